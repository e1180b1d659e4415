//! An appliance in process: fake token, real store, real audit log, real policies, real
//! TLS listener, real client.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "shared by tests that use different parts of it"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_client::{Client, Settings, proto};
use keywright_hsm::{Dek, Hsm, KeyRef, KeySpec, ObjectId, Options, Silent, fake::FakeDevice};
use keywright_service::{
    api::{Tenants, TlsReloader, accept, grpc},
    audit::{Audit, Log},
    authorities::Authorities,
    clock::System,
    config::{Config, HsmConfig, Limits, Listen, TenantConfig, Tls},
    key::TenantId,
    keyring::Keyring,
    ledger::Ledger,
    membership::Membership,
    ops::{App, Pauses, Renewing, nodes, pki},
    policy::{DEFAULT_ROLES, Engine},
    store::{Anchors, LogId, NodeId, Sealer, SqliteStore, Store, Tenant},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::oneshot;

pub(crate) mod authority;
pub(crate) mod documents;
pub(crate) mod verify;

/// The tenants: name, which is also the first part of the trust domain.
pub(crate) const TENANTS: [&str; 2] = ["red", "blue"];

/// Roles and what the identities that have them are called.
pub(crate) const ROLES: [(&str, &str); 8] = [
    ("key-user", "user"),
    ("key-admin", "admin"),
    ("rewrapper", "rewrap"),
    ("auditor", "auditor"),
    ("node-operator", "node"),
    ("everything", "developer"),
    ("pki-user", "service"),
    ("pki-admin", "pki"),
];

/// Roles of which there are more identities: a ceremony needs several people.
const ALSO: [(&str, &str); 3] = [
    ("pki-admin", "pki-two"),
    ("pki-admin", "pki-three"),
    ("pki-user", "ns/pay/sa/api"),
];

pub(crate) struct Appliance {
    pub(crate) app: Arc<App>,
    pub(crate) device: FakeDevice,
    pub(crate) addr: SocketAddr,
    documents: documents::Documents,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) canary: KeyRef,
    pub(crate) clock: Arc<Later>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
    crls: tokio::task::JoinHandle<()>,
    member: tokio::task::JoinHandle<()>,
}

impl Appliance {
    pub(crate) async fn start() -> Self {
        // What a test has just used may go at once; the gate has tests of its own.
        Self::with(Limits {
            retirement_quiet_ms: 0,
            ..Limits::default()
        })
        .await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(dir.path());
        Self::open(dir, limits, FakeDevice::new()).await
    }

    /// Ends the daemon and opens the same data directory and token again.
    pub(crate) async fn restart(mut self) -> Self {
        let device = self.device.clone();
        let limits = self.app.limits;
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.served).await.unwrap();
        self.crls.abort();
        let Self { dir, documents, .. } = self;
        drop(documents);
        Self::open(dir, limits, device).await
    }

    async fn open(dir: tempfile::TempDir, limits: Limits, device: FakeDevice) -> Self {
        let store = SqliteStore::open(&dir.path().join("keywright.db"))
            .await
            .unwrap();
        Self::open_on(dir, limits, device, Arc::new(store), 0, Arc::default()).await
    }

    /// One of many on a store and a token; of two the one with the smaller number is first.
    pub(crate) async fn node(
        limits: Limits,
        store: Arc<dyn Store>,
        device: FakeDevice,
        number: u8,
        clock: Arc<Later>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(dir.path());
        Self::open_on(dir, limits, device, store, number, clock).await
    }

    /// The lease is not renewed any more: to the others the node is as good as gone.
    pub(crate) fn freeze(&mut self) {
        self.member.abort();
    }

    /// It is again.
    pub(crate) fn thaw(&mut self) {
        self.member = tokio::spawn(nodes::keep_membership(Arc::clone(&self.app)));
    }

    async fn open_on(
        dir: tempfile::TempDir,
        limits: Limits,
        device: FakeDevice,
        store: Arc<dyn Store>,
        number: u8,
        clock: Arc<Later>,
    ) -> Self {
        let options = Options {
            workers: 2,
            queue_jobs: 512,
            check_every: Duration::from_millis(50),
        };
        let hsm = Hsm::start(Arc::new(device.clone()), options, Arc::new(Silent)).unwrap();
        store.seal_with(Sealer::new(&Dek::take(&mut [7; 32])));
        let contents = store.load().await.unwrap();
        let canary = match contents.canary {
            Some(canary) => canary,
            None => {
                let deadline = Instant::now() + Duration::from_secs(5);
                let id = ObjectId::random().unwrap();
                let new = hsm
                    .generate(id, KeySpec::Aes256, "canary".into(), deadline)
                    .await
                    .unwrap();
                store.set_canary(&new.key).await.unwrap();
                for (i, name) in TENANTS.iter().enumerate() {
                    let id = TenantId([u8::try_from(i).unwrap() + 1; 16]);
                    store
                        .add_tenant(&Tenant {
                            id,
                            name: (*name).into(),
                        })
                        .await
                        .unwrap();
                }
                new.key
            }
        };
        hsm.watch(canary.clone());
        let mut tenants = Tenants::default();
        for tenant in store.load().await.unwrap().tenants {
            tenants.add(&format!("{}.example", tenant.name), tenant.id, &tenant.name);
        }
        let audit = dir.path().join("audit");
        if number > 1 {
            Log::name(&audit, LogId([number; 16])).unwrap();
        }
        let log = Log::open(&audit, limits.audit_segment_bytes, &Anchors::new())
            .unwrap()
            .log;
        let audit = Audit::start(
            log,
            Arc::new(System),
            Duration::from_millis(limits.audit_ms),
        )
        .unwrap();
        let crl_dir = dir.path().join("crl");
        std::fs::create_dir_all(&crl_dir).unwrap();
        let authorities = store.load_authorities().await.unwrap();
        let ledger = Ledger::start(Arc::clone(&store));
        let authorities = Authorities::new(authorities, ledger, store.is_shared()).unwrap();
        let membership = if store.is_shared() {
            let name = format!("node {number}");
            Membership::of_many(NodeId([number; 16]), name, contents.known)
        } else {
            Membership::alone()
        };
        let membership = Arc::new(membership);
        let named = store.load().await.unwrap().tenants;
        let app = Arc::new(App {
            tenants: named.into_iter().map(|t| (t.id, t.name)).collect(),
            authorities: Arc::new(authorities),
            crl_dir,
            hsm,
            store,
            keyring: Arc::new(Keyring::new(
                contents.keys,
                engine(""),
                Arc::clone(&membership),
            )),
            membership,
            audit,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(System),
            limits,
            reserving: tokio::sync::Mutex::new(()),
            renewing: Renewing::default(),
            watchers: Arc::new(tokio::sync::Semaphore::new(limits.job_watchers)),
            leases: Arc::new(tokio::sync::Semaphore::new(limits.leases)),
            pauses: Pauses::default(),
        });
        if app.store.is_shared() {
            assert_eq!(nodes::join(&app).await.unwrap(), None);
        }
        let crls = tokio::spawn(pki::publish_crls(Arc::clone(&app)));
        let member = tokio::spawn(nodes::keep_membership(Arc::clone(&app)));
        let tls = TlsReloader::new(&config(dir.path(), limits)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tenants = Arc::new(tenants);
        tls.trust_issuers(Arc::clone(&app.authorities), Arc::clone(&tenants));
        let conns = accept(listener, tls, tenants, limits);
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&app);
        let served = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            // A client that keeps its connection open must not keep the test for ever; some
            // tests take minutes on a slow machine.
            let serve = grpc::serve(serving, conns, stop);
            let _ = tokio::time::timeout(Duration::from_secs(900), serve).await;
        });
        let documents = documents::Documents {
            app: Arc::clone(&app),
            dir: dir.path().to_owned(),
        };
        Self {
            app,
            device,
            addr,
            documents,
            dir,
            canary,
            clock,
            stop: Some(stop),
            served,
            crls,
            member,
        }
    }

    /// As `spiffe://TENANT.example/NAME`.
    pub(crate) async fn client(&self, tenant: &str, name: &str) -> Client {
        Client::connect(&self.settings(tenant, name)).await.unwrap()
    }

    pub(crate) fn settings(&self, tenant: &str, name: &str) -> Settings {
        let file = |f: String| Some(self.dir.path().join(f));
        Settings {
            addr: Some(self.addr.to_string()),
            ca: file("server-ca.pem".into()),
            cert: file(format!("{tenant}-{}.pem", name.replace('/', "-"))),
            key: file(format!("{tenant}-{}.key", name.replace('/', "-"))),
        }
    }

    pub(crate) async fn create(&self, tenant: &str, name: &str) -> proto::Key {
        let request = proto::CreateKeyRequest {
            name: name.into(),
            spec: proto::KeySpec::Aes256.into(),
            ..Default::default()
        };
        let admin = self.client(tenant, "admin").await;
        admin
            .keys()
            .create_key(request)
            .await
            .unwrap()
            .into_inner()
            .key
            .unwrap()
    }

    pub(crate) async fn rotate(&self, tenant: &str, name: &str) -> proto::Key {
        let request = proto::RotateKeyRequest { name: name.into() };
        let admin = self.client(tenant, "admin").await;
        admin
            .keys()
            .rotate_key(request)
            .await
            .unwrap()
            .into_inner()
            .key
            .unwrap()
    }

    /// Every line of the audit log.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.path().join("audit"))
            .unwrap()
            .map(|e| e.unwrap().path())
            // Beside them may lie which log it is.
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            lines.extend(text.lines().map(|l| serde_json::from_str(l).unwrap()));
        }
        lines
    }

    /// Records of one action, the last one last.
    pub(crate) fn records(&self, action: &str) -> Vec<serde_json::Value> {
        self.audit()
            .into_iter()
            .filter(|r| r["action"] == action)
            .collect()
    }
}

/// The default policies, a role that may do everything, and `extra`.
pub(crate) fn engine(extra: &str) -> Engine {
    let everything = "permit (principal in Role::\"everything\", action, resource);";
    let files = BTreeMap::from([
        ("roles.cedar".to_owned(), DEFAULT_ROLES.to_owned()),
        ("everything.cedar".to_owned(), everything.to_owned()),
        ("extra.cedar".to_owned(), extra.to_owned()),
    ]);
    let mut roles = String::from("[roles]\n");
    for (role, _) in ROLES {
        let names = ROLES.iter().chain(&ALSO).filter(|(r, _)| *r == role);
        let members: Vec<String> = names
            .flat_map(|(_, name)| TENANTS.map(|t| format!("\"spiffe://{t}.example/{name}\"")))
            .collect();
        roles.push_str(&format!("{role} = [{}]\n", members.join(", ")));
    }
    Engine::new(
        &files,
        &roles,
        keywright_service::policy::Roles::parse(&roles).unwrap(),
    )
    .unwrap()
}

pub(crate) fn config(dir: &Path, limits: Limits) -> Config {
    Config {
        data_dir: dir.to_owned(),
        policies_dir: dir.to_owned(),
        listen: Listen {
            grpc: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            pki: None,
            acme: None,
        },
        tls: Tls {
            certificate: dir.join("server.pem"),
            key: dir.join("server.key"),
        },
        tenants: TENANTS
            .iter()
            .map(|t| TenantConfig {
                name: (*t).into(),
                trust_domain: format!("{t}.example"),
                client_ca: dir.join(format!("{t}-ca.pem")),
            })
            .collect(),
        hsm: HsmConfig {
            keep_epoch: true,
            module: "/nowhere".into(),
            init_reserved: None,
            token_label: None,
            token_serial: None,
            pin_file: None,
            pin_fd: None,
            pin_credential: None,
            pin_env: None,
            workers: None,
            queue_jobs: 1,
            check_every_ms: 1000,
            replica: Vec::new(),
        },
        acme: None,
        store: None,
        limits,
    }
}

/// A CA of a test.
pub(crate) struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) pem: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// Certificate and key for these names.
    pub(crate) fn issue(&self, names: Vec<SanType>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let issuer = Issuer::from_params(&self.params, &self.key);
        (
            params.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    pub(crate) fn write(&self, dir: &Path, name: &str, names: Vec<SanType>) {
        let (pem, key) = self.issue(names);
        fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), key).unwrap();
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn write_certificates(dir: &Path) {
    let server = Ca::new("server CA");
    fs::write(dir.join("server-ca.pem"), &server.pem).unwrap();
    server.write(
        dir,
        "server",
        vec![SanType::IpAddress([127, 0, 0, 1].into())],
    );
    for tenant in TENANTS {
        let ca = Ca::new(&format!("{tenant} CA"));
        fs::write(dir.join(format!("{tenant}-ca.pem")), &ca.pem).unwrap();
        let names = ROLES.iter().chain(&ALSO).map(|(_, name)| *name);
        for name in names.chain(["nobody"]) {
            let id = format!("spiffe://{tenant}.example/{name}");
            let file = format!("{tenant}-{}", name.replace('/', "-"));
            ca.write(dir, &file, vec![uri(&id)]);
        }
        ca.write(dir, &format!("{tenant}-nameless"), vec![]);
        let two = ["a", "b"].map(|n| uri(&format!("spiffe://{tenant}.example/{n}")));
        ca.write(dir, &format!("{tenant}-two"), two.to_vec());
        // A CA that mints an identity of the other tenant.
        let other = TENANTS.iter().find(|t| **t != tenant).unwrap();
        let forged = uri(&format!("spiffe://{other}.example/admin"));
        ca.write(dir, &format!("{tenant}-forged"), vec![forged]);
        let foreign = uri("spiffe://elsewhere.example/admin");
        ca.write(dir, &format!("{tenant}-foreign"), vec![foreign]);
    }
    let stranger = Ca::new("stranger CA");
    stranger.write(
        dir,
        "stranger-admin",
        vec![uri("spiffe://red.example/admin")],
    );
}

/// Plaintexts under a key, detached.
pub(crate) fn encrypt(key: &str, plaintexts: &[&[u8]]) -> proto::EncryptRequest {
    proto::EncryptRequest {
        key: key.into(),
        plaintexts: plaintexts
            .iter()
            .map(|p| bytes::Bytes::copy_from_slice(p))
            .collect(),
        ..Default::default()
    }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect()
}

/// A batch that failed on a stream, as a call would have failed.
pub(crate) fn as_status(e: &proto::BatchError) -> tonic::Status {
    use tonic_types::{ErrorDetails, StatusExt};
    let details = ErrorDetails::with_error_info(&e.reason, "keywright", []);
    tonic::Status::with_error_details(e.code.into(), &e.message, details)
}

/// The system's clock, some time later.
#[derive(Debug, Default)]
pub(crate) struct Later(std::sync::atomic::AtomicI64);

impl Later {
    pub(crate) fn advance_days(&self, days: i64) {
        self.advance_ms(days * 24 * 60 * 60 * 1000);
    }

    /// Negative: the clock steps back.
    pub(crate) fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }
}

impl keywright_service::clock::Clock for Later {
    fn now_ms(&self) -> i64 {
        keywright_service::clock::Clock::now_ms(&System)
            + self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// The stable reason of a refused call.
pub(crate) fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt;
    status
        .get_error_details()
        .error_info()
        .map_or_else(String::new, |i| i.reason.clone())
}
