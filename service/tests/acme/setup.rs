//! An appliance with an authority, an ACME door, and the world around it on loopback.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use keywright_pki::{SpiffeId, dev_service};
use keywright_service::{
    api::{TlsReloader, acme},
    audit::Entry,
    authority::AuthorityName,
    config::Limits,
    key::TenantId,
    ops::{
        App, Call,
        acme::{Acme, CreateAcmeKey, create_acme_key},
        pki,
    },
    policy::Caller,
    validator::{Options, Validator},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{
    client::Client,
    common::{Appliance, config},
};

type Shared = Arc<Mutex<HashMap<String, String>>>;

pub(crate) struct World {
    pub(crate) appliance: Appliance,
    /// What the web server of every host shows, by token.
    pub(crate) files: Shared,
    /// TXT records by name.
    pub(crate) texts: Shared,
    /// Key id and MAC key in base64url.
    pub(crate) acme_key: (String, String),
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

const TENANT: TenantId = TenantId([1; 16]);

fn call(app: &App) -> Call {
    let caller = Caller {
        id: SpiffeId::parse("spiffe://red.example/developer").unwrap(),
        tenant: TENANT,
        tenant_name: "red".into(),
        certificate: [0; 32],
        spki: [0; 32],
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    Call::new(
        Arc::new(caller),
        "Test",
        deadline,
        app.clock.now_ms(),
        Entry::default(),
    )
}

/// A root and an intermediate below it.
async fn authorities(app: &Arc<App>) {
    for text in [
        "name = \"root\"\nkind = \"root\"\nkey = \"ec-p256\"\nvalidity_days = 3650\napprovals = 1\n[subject]\nCN = \"Root\"\n",
        "name = \"int\"\nkind = \"intermediate\"\nparent = \"root\"\nkey = \"ec-p256\"\nvalidity_days = 365\npath_len = 0\napprovals = 1\n[subject]\nCN = \"Int\"\n[urls]\nbase = \"http://pki.example\"\n",
    ] {
        let planned = pki::plan_ceremony(app, &mut call(app), text.into())
            .await
            .unwrap();
        let issuer = &planned.authority.issuer;
        let approve = pki::ApproveCeremony {
            id: issuer.id,
            digest: issuer.digest.to_vec(),
        };
        pki::approve_ceremony(app, &mut call(app), approve)
            .await
            .unwrap();
        pki::commit_ceremony(app, &mut call(app), issuer.id)
            .await
            .unwrap();
    }
    let service = dev_service("int");
    let local = format!("{service}[acme]\nnetworks = [\"127.0.0.0/8\"]\n");
    let public = service.replace("dev-service", "public");
    for profile in [local, public] {
        pki::put_profile(app, &mut call(app), profile)
            .await
            .unwrap();
    }
}

impl World {
    pub(crate) fn limits() -> Limits {
        Limits {
            pki_approvals: 1,
            ..Limits::default()
        }
    }

    pub(crate) async fn start() -> Self {
        Self::with(Self::limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let appliance = Appliance::with(limits).await;
        let app = &appliance.app;
        authorities(app).await;
        let request = CreateAcmeKey {
            identity: SpiffeId::parse("spiffe://red.example/developer").unwrap(),
            profiles: ["dev-service", "public"]
                .map(|name| AuthorityName::parse(name).unwrap())
                .to_vec(),
        };
        let key = create_acme_key(app, &mut call(app), request).await.unwrap();
        let acme_key = (
            key.kid.to_string(),
            keywright_service::acme::encode64(&key.hmac_key),
        );

        let (files, texts) = (Shared::default(), Shared::default());
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dns = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            resolver: dns.local_addr().unwrap(),
            http01_port: web.local_addr().unwrap().port(),
            tls_alpn01_port: 1,
            patience: Duration::from_secs(5),
        };
        tokio::spawn(serve_files(web, Arc::clone(&files)));
        tokio::spawn(serve_names(dns, Arc::clone(&texts)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tenants = BTreeMap::from([("red".to_owned(), TENANT)]);
        let base = format!("https://127.0.0.1:{}", address.port());
        let state = Acme::new(Arc::clone(app), Validator::new(options), tenants, base).unwrap();
        let reloader = TlsReloader::new(&config(appliance.dir.path(), limits)).unwrap();
        let conns = acme::client_conns(listener, &reloader, limits).unwrap();
        tokio::spawn(acme::serve(Arc::new(state), conns, std::future::pending()));
        let mut roots = rustls::RootCertStore::empty();
        let ca = appliance.dir.path().join("server-ca.pem");
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            files,
            texts,
            acme_key,
            address,
            tls: Arc::new(tls),
            appliance,
        }
    }

    /// Without an account.
    pub(crate) async fn stranger(&self) -> Client {
        let directory = format!(
            "https://127.0.0.1:{}/acme/red/directory",
            self.address.port()
        );
        Client::new(self.address, Arc::clone(&self.tls), &directory).await
    }

    /// With an account.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.stranger().await;
        let (kid, key) = &self.acme_key;
        let reply = client.register(Some((kid, key))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        client
    }
}

async fn serve_files(listener: TcpListener, files: Shared) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut bytes = vec![0; 4096];
        let len = stream.read(&mut bytes).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let token = path.rsplit('/').next().unwrap_or_default();
        let shown = files
            .lock()
            .unwrap()
            .get(token)
            .cloned()
            .unwrap_or_default();
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}",
            shown.len()
        );
        let _ = stream.write_all(reply.as_bytes()).await;
    }
}

/// Every host is 127.0.0.1.
async fn serve_names(socket: UdpSocket, texts: Shared) {
    let mut bytes = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
        let question = &bytes[..len];
        let (mut labels, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8(question[at + 1..end].to_vec()).unwrap());
            at = end;
        }
        let kind = question[at + 2];
        let text = texts.lock().unwrap().get(&labels.join(".")).cloned();
        let data = match (kind, text) {
            (1, _) => Some(vec![127, 0, 0, 1]),
            (16, Some(text)) => {
                Some([&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat())
            }
            _ => None,
        };
        let mut reply = question.to_vec();
        reply[2] |= 0x80;
        if let Some(data) = data {
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
            reply.push(u8::try_from(data.len()).unwrap());
            reply.extend(data);
        }
        let _ = socket.send_to(&reply, from).await;
    }
}
