//! A root and an intermediate with OCSP and shards, made by ceremony, and the door before
//! them.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_pki::{SpiffeId, certificate_to_pem, dev_service};
use keywright_service::{
    api::{Tenants, pki_routes, serve_http},
    audit::Entry,
    authority::{AuthorityName, Reason, Usage},
    config::Limits,
    key::TenantId,
    ops::{
        App, Call,
        pki::{self, ApproveCeremony, Revoke, SetUsage, SignCsr, Target},
    },
    policy::Caller,
};

use crate::{
    common::{Appliance, documents},
    raw::{Reply, get},
};

/// Lists every second, so that a test does not wait for one.
pub(crate) fn limits() -> Limits {
    Limits {
        pki_approvals: 1,
        crl_every_ms: 1_000,
        ..Limits::default()
    }
}

pub(crate) struct Pki {
    pub(crate) it: Appliance,
    pub(crate) addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) async fn start(limits: Limits) -> Self {
        let it = Appliance::with(limits).await;
        let dir = tempfile::tempdir().unwrap();
        let pki = Self::open(it, dir, limits).await;
        pki.ceremony("root", "kind = \"root\"\nvalidity_days = 3650\n", false)
            .await;
        // Not as long as the root: a second may pass between the two.
        let below = "kind = \"intermediate\"\nvalidity_days = 1825\nparent = \"root\"\npath_len = 0\nshards = 2\n";
        pki.ceremony("int", below, true).await;
        pki.profile().await;
        pki.put("root.pem", &[pki.certificate("root")]);
        pki.put("int.pem", &[pki.certificate("int")]);
        pki
    }

    /// The same data directory and token, opened again; the door is at another address.
    pub(crate) async fn restart(self, limits: Limits) -> Self {
        let Self { it, dir, .. } = self;
        Self::open(it.restart().await, dir, limits).await
    }

    async fn open(it: Appliance, dir: tempfile::TempDir, limits: Limits) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tenants = Tenants::default();
        tenants.add("red.example", TenantId([1; 16]), "red");
        tenants.add("blue.example", TenantId([2; 16]), "blue");
        let routes = pki_routes(&it.app, &tenants);
        tokio::spawn(serve_http(listener, routes, limits, std::future::pending()));
        Self { it, addr, dir }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.it.app
    }

    /// What the door gives; lists and answers are kept for other verifiers.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        let reply = get(self.addr, path).await;
        let words: Vec<&str> = path.split('/').collect();
        if reply.status == 200 && path.ends_with(".crl") {
            let (name, shard) = match words[..] {
                [_, "red", file] => (file.strip_suffix(".crl").unwrap(), 0),
                [_, "red", name, _] => (name, 1),
                _ => panic!("{path}"),
            };
            documents::crl(self.app(), name, shard, &reply.body, self.now_ms());
        }
        reply
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.app().clock.now_ms()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn put(&self, name: &str, ders: &[Vec<u8>]) {
        let pem: String = ders.iter().map(|der| certificate_to_pem(der)).collect();
        self.write(name, pem.as_bytes());
    }

    pub(crate) fn certificate(&self, issuer: &str) -> Vec<u8> {
        let issuers = self.app().authorities.all_issuers();
        let found = issuers.iter().find(|a| a.issuer.name.as_str() == issuer);
        found.unwrap().issuer.certificate.clone()
    }

    fn call(&self) -> Call {
        let caller = Caller {
            id: SpiffeId::parse("spiffe://red.example/developer").unwrap(),
            tenant: TenantId([1; 16]),
            tenant_name: "red".into(),
            certificate: [0; 32],
            spki: [0; 32],
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        Call::new(
            Arc::new(caller),
            "test",
            deadline,
            self.now_ms(),
            Entry::default(),
        )
    }

    async fn ceremony(&self, name: &str, more: &str, ocsp: bool) {
        let text = format!(
            "name = \"{name}\"\nkey = \"ec-p256\"\napprovals = 1\n{more}
             [subject]\nCN = \"{name}\"\n
             [urls]\nbase = \"http://{}/red\"\nocsp = {ocsp}\n",
            self.addr
        );
        let app = self.app();
        let planned = pki::plan_ceremony(app, &mut self.call(), text)
            .await
            .unwrap();
        let issuer = &planned.authority.issuer;
        let approve = ApproveCeremony {
            id: issuer.id,
            digest: issuer.digest.to_vec(),
        };
        pki::approve_ceremony(app, &mut self.call(), approve)
            .await
            .unwrap();
        pki::commit_ceremony(app, &mut self.call(), issuer.id)
            .await
            .unwrap();
    }

    async fn profile(&self) {
        // Here the URLs stay what they are.
        let text = dev_service("int").replace("crl_dp = false", "crl_dp = true");
        pki::put_profile(self.app(), &mut self.call(), text)
            .await
            .unwrap();
    }

    /// A certificate for `name.dev.example`, written to `name.pem`.
    pub(crate) async fn issue(&self, name: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec![format!("{name}.dev.example")];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let csr = params.serialize_request(&key).unwrap();
        let request = SignCsr {
            profile: AuthorityName::parse("dev-service").unwrap(),
            version: None,
            csr: csr.der().to_vec(),
            ttl: None,
            sans: Vec::new(),
            request_key: format!("0123456789abcdef-{name}"),
        };
        let issued = pki::sign_csr(self.app(), &mut self.call(), request)
            .await
            .unwrap();
        let der = issued.record.certificate;
        self.put(&format!("{name}.pem"), std::slice::from_ref(&der));
        der
    }

    pub(crate) async fn revoke(&self, certificate: &[u8], why: Reason) {
        let request = Revoke {
            target: Target::Certificate(certificate.to_vec()),
            why,
            invalidity_ms: None,
            key_proof: None,
        };
        let revoked = pki::revoke(self.app(), &mut self.call(), request).await;
        assert!(!revoked.unwrap().revoked.is_empty());
    }

    pub(crate) async fn stop_issuer(&self) {
        let request = SetUsage {
            issuer: AuthorityName::parse("int").unwrap(),
            usage: Usage::default(),
        };
        pki::set_issuer_usage(self.app(), &mut self.call(), request)
            .await
            .unwrap();
    }

    /// Whether `openssl`, in the test's folder, was content, and what it said.
    pub(crate) async fn openssl(&self, words: &str) -> (bool, String) {
        let dir = self.dir.path().to_owned();
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let run = move || {
            Command::new("openssl")
                .current_dir(&dir)
                .args(words)
                .output()
                .expect("the command openssl")
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    }

    /// Until it is so.
    pub(crate) async fn eventually<T>(&self, what: &str, check: impl AsyncFn() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = check().await {
                return found;
            }
            assert!(Instant::now() < end, "{what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
