//! What we make, as OpenSSL reads it. The command `openssl` must be there; these tests do
//! not skip themselves.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Algorithm, Answer, CaRequest, CertStatus, CrlDraft, CrlPlan, Draft, IssuerCert, KeyKind, Kind,
    OcspDraft, OcspPlan, OcspRequest, OcspResponder, Plan, Reason, Revoked, Scope,
    testing::{DAY, NOW, TestKey, ca_plan, leaf_plan, root, serial, subject},
};

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Output and errors of `openssl` with these words, then these files.
fn openssl(words: &str, files: &[(&str, &Path)]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(words.split_whitespace());
    for (option, path) in files {
        command
            .args((!option.is_empty()).then_some(option))
            .arg(path);
    }
    let output = command.output().expect("the command openssl");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn accepts(words: &str, files: &[(&str, &Path)]) -> String {
    let (success, text) = openssl(words, files);
    assert!(success, "openssl {words}: {text}");
    text
}

/// root → intermediate → leaf, and what they make, all with one kind of key.
struct Hierarchy {
    dir: Dir,
    root: PathBuf,
    middle: PathBuf,
    issuer: IssuerCert,
}

impl Hierarchy {
    fn new(root_key: &TestKey, key: &TestKey, algorithm: Algorithm) -> Self {
        let (root_cert, root_issuer) = root(root_key);
        let root_issuer = if root_key.public().kind().is_rsa() {
            root_issuer.signing_with(algorithm).unwrap()
        } else {
            root_issuer
        };
        let plan = Plan {
            serial: serial(7),
            ..ca_plan(key.public(), Some(0))
        };
        let draft = Draft::new(plan, &root_issuer).unwrap();
        let middle_cert = root_key.sign(draft.lint(NOW).unwrap());
        let issuer = IssuerCert::from_chain(&[middle_cert.der(), root_cert.der()]).unwrap();
        let issuer = issuer.signing_with(algorithm).unwrap();
        let dir = Dir::new();
        let root = dir.put("root.pem", root_cert.pem());
        let middle = dir.put("middle.pem", middle_cert.pem());
        Self {
            dir,
            root,
            middle,
            issuer,
        }
    }

    fn leaf(&self, key: &TestKey, plan: Plan) -> PathBuf {
        let leaf = key.sign(Draft::new(plan, &self.issuer).unwrap().lint(NOW).unwrap());
        self.dir.put("leaf.pem", leaf.pem())
    }

    fn chain<'a>(&'a self, leaf: &'a Path) -> [(&'a str, &'a Path); 3] {
        [
            ("-CAfile", &self.root),
            ("-untrusted", &self.middle),
            ("", leaf),
        ]
    }
}

fn crl_plan(scope: Scope) -> CrlPlan {
    CrlPlan {
        number: 0x80,
        this_update: NOW - 10,
        next_update: NOW + DAY - 11,
        scope,
    }
}

/// Chain, CRL, OCSP and request with this key.
fn everything(root_key: &TestKey, key: &TestKey, algorithm: Algorithm) {
    let h = Hierarchy::new(root_key, key, algorithm);
    let subject_key = TestKey::new(KeyKind::EcP256);
    let leaf = h.leaf(key, leaf_plan(subject_key.public()));
    let verify = |more: &str| format!("verify -x509_strict -attime {NOW} {more}");
    let server = "-purpose sslserver -verify_hostname x.b.example.com";
    accepts(&verify(server), &h.chain(&leaf));
    accepts(
        &verify("-purpose sslclient -verify_ip 192.0.2.1"),
        &h.chain(&leaf),
    );
    let (success, _) = openssl(&verify("-verify_hostname other.example"), &h.chain(&leaf));
    assert!(!success, "another name must not verify");

    let revoked = Revoked {
        serial: serial(2),
        revoked_at: NOW - 20,
        reason: Some(Reason::KeyCompromise),
        invalidity_date: Some(NOW - DAY),
    };
    for (name, entries, good) in [
        ("empty.crl", vec![], true),
        ("one.crl", vec![revoked], false),
    ] {
        let draft = CrlDraft::new(crl_plan(Scope::Full), &h.issuer, entries);
        let crl = h.dir.put(name, key.sign(draft.lint(NOW).unwrap()).pem());
        accepts("crl -noout", &[("-CAfile", &h.middle), ("-in", &crl)]);
        let mut files = h.chain(&leaf).to_vec();
        files.insert(0, ("-CRLfile", crl.as_path()));
        let (success, text) = openssl(&verify("-crl_check"), &files);
        assert_eq!(success, good, "{text}");
        assert_eq!(text.contains("certificate revoked"), !good, "{text}");
    }

    let request = key.sign(CaRequest::draft(&subject("CA"), &key.public()).unwrap());
    let request = h.dir.put("ca.csr", request.pem());
    let text = accepts("req -verify -noout -text", &[("-in", &request)]);
    assert!(
        text.contains("CA:TRUE") && text.contains("Certificate Sign"),
        "{text}"
    );
    ocsp(&h, key, &leaf);
}

fn ocsp(h: &Hierarchy, key: &TestKey, leaf: &Path) {
    let responder_key = TestKey::new(KeyKind::EcP256);
    let mut plan = leaf_plan(responder_key.public());
    plan.kind = Kind::OcspResponder;
    (plan.serial, plan.subject, plan.sans) = (serial(3), subject("OCSP"), vec![]);
    (plan.urls.crl_dp, plan.urls.ocsp) = (None, None);
    let certificate = key.sign(Draft::new(plan, &h.issuer).unwrap().lint(NOW).unwrap());
    let responder = OcspResponder::from_der(certificate.der(), &h.issuer).unwrap();

    for (digest, status, word) in [
        ("-sha1", CertStatus::Good, "Cert Status: good"),
        ("-sha256", CertStatus::Unknown, "Cert Status: unknown"),
        (
            "-sha256",
            CertStatus::Revoked {
                at: NOW - 5,
                reason: Some(Reason::Superseded),
            },
            "Revocation Reason: superseded",
        ),
    ] {
        let request_file = h.dir.path("request.der");
        let files = [
            ("-issuer", h.middle.as_path()),
            ("-cert", leaf),
            ("-reqout", request_file.as_path()),
        ];
        accepts(&format!("ocsp {digest} -nonce"), &files);
        let request = OcspRequest::from_der(&std::fs::read(&request_file).unwrap()).unwrap();
        let [cert_id] = request.cert_ids.as_slice() else {
            panic!("one certificate")
        };
        assert!(cert_id.is_of(&h.issuer));
        assert_eq!(cert_id.serial(), Some(serial(2)));
        let plan = OcspPlan {
            produced_at: NOW - 1,
            this_update: NOW - 1,
            next_update: NOW + 3600,
            answers: vec![Answer {
                cert_id: cert_id.clone(),
                status,
            }],
            nonce: request.nonce.clone(),
        };
        let draft = OcspDraft::new(plan, &responder).lint(NOW).unwrap();
        // With -cert, openssl would make a request of its own and not read ours.
        let response = h.dir.put("response.der", responder_key.sign(draft).der());
        let files = [
            ("-reqin", request_file.as_path()),
            ("-respin", response.as_path()),
            ("-CAfile", h.root.as_path()),
            ("-verify_other", h.middle.as_path()),
        ];
        let text = accepts(&format!("ocsp -no_nonce -resp_text -attime {NOW}"), &files);
        assert!(
            text.contains("Response verify OK") && text.contains(word),
            "{text}"
        );
        assert!(!text.contains("WARNING: no nonce"), "{text}");
    }
}

#[test]
fn p256() {
    let key = || TestKey::new(KeyKind::EcP256);
    everything(&key(), &key(), Algorithm::EcdsaP256Sha256);
}

#[test]
fn p384() {
    let key = || TestKey::new(KeyKind::EcP384);
    everything(&key(), &key(), Algorithm::EcdsaP384Sha384);
}

#[test]
fn ed25519() {
    let key = || TestKey::new(KeyKind::Ed25519);
    everything(&key(), &key(), Algorithm::Ed25519);
}

/// The root is on P-256, since the issuer's key is never its subject's.
#[test]
fn rsa_3072() {
    let root = TestKey::new(KeyKind::EcP256);
    everything(&root, TestKey::rsa(), Algorithm::RsaPkcs1Sha256);
    everything(&root, TestKey::rsa(), Algorithm::RsaPssSha256);
}

#[test]
fn a_shard_is_read_with_its_distribution_point() {
    let key = TestKey::new(KeyKind::EcP256);
    let (certificate, issuer) = root(&key);
    let dir = Dir::new();
    let root = dir.put("root.pem", certificate.pem());
    let scope = Scope::Shard {
        url: "http://crl.example.com/1.crl".into(),
    };
    let draft = CrlDraft::new(crl_plan(scope), &issuer, []);
    let crl = dir.put("shard.crl", key.sign(draft.lint(NOW).unwrap()).pem());
    let text = accepts("crl -noout -text", &[("-CAfile", &root), ("-in", &crl)]);
    for part in [
        "Issuing Distribution Point: critical",
        "Only User Certificates",
        "verify OK",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let leaf = TestKey::new(KeyKind::EcP256).public();
    let leaf = key.sign(
        Draft::new(leaf_plan(leaf), &issuer)
            .unwrap()
            .lint(NOW)
            .unwrap(),
    );
    let leaf = dir.put("leaf.pem", leaf.pem());
    let files = [("-CAfile", root.as_path()), ("-CRLfile", &crl), ("", &leaf)];
    accepts(
        &format!("verify -x509_strict -crl_check -extended_crl -attime {NOW}"),
        &files,
    );
}
