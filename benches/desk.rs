//! One issuer with its key on a token and one request: what a certificate costs without
//! store, audit and wire, and the documents whose parts are timed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keywright_hsm::{KeyRef, Signing, Token};
use keywright_pki::{
    Algorithm, Attribute, Certificate, CrlDraft, CrlPlan, Csr, Document, Draft, Identity,
    IssuerCert, IssuerFacts, Kind, NameConstraints, Plan, Profile, Reason, Request, Revoked, Scope,
    Serial, SpiffeId, Subject, SubjectKey, Unsigned, Urls, ecdsa_to_der,
};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest, Sha256};

const DAY: u64 = 86_400;
const PROFILE: &str = r#"
name = "bench"
version = 1
issuers = ["root", "bench"]

[validity]
default = "24h"
max = "72h"

[key]
allow = ["ec-p256"]

[[san.dns]]
match = "exact"
value = "{principal.name}.svc.example.internal"
[san.uri]
spiffe = { trust_domain = "bench.example", path = "/{principal.name}", count = 1 }
[san]
from_csr = true

[usage]
eku = ["serverAuth", "clientAuth"]
"#;

/// Everything an issue needs but the token.
#[derive(Debug)]
pub struct Desk {
    issuer: IssuerCert,
    facts: IssuerFacts,
    profile: Profile,
    identity: Identity,
    csr: Vec<u8>,
    now: u64,
}

impl Desk {
    /// Signs the issuer's own certificate.
    #[must_use]
    pub fn open(token: &mut dyn Token, key: &KeyRef) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let spki = key.public().expect("a pair").spki();
        let plan = Plan {
            serial: Serial::from_random([1; Serial::RANDOM_LEN]),
            subject: Subject::new(&[(Attribute::CommonName, "Bench")]).unwrap(),
            key: SubjectKey::from_spki(spki).unwrap(),
            sans: vec![],
            not_before: now - 300,
            not_after: now + 3650 * DAY - 301,
            kind: Kind::Ca {
                path_len: None,
                constraints: NameConstraints::default(),
            },
            urls: Urls::default(),
            ski: true,
        };
        let draft = Draft::self_signed(plan, Algorithm::EcdsaP256Sha256).unwrap();
        let root = sign(token, key, draft.lint(now).unwrap());
        let issuer = IssuerCert::from_der(root.der()).unwrap();
        let caller = SpiffeId::parse("spiffe://bench.example/service").unwrap();
        let names = ["service.svc.example.internal"].map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        let id = "spiffe://bench.example/service".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(id));
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&KeyPair::generate().unwrap());
        Self {
            facts: IssuerFacts {
                name: "bench".into(),
                is_root: false,
                spki_sha256: issuer.key().spki_sha256(),
                not_before: issuer.not_before(),
                not_after: issuer.not_after(),
                urls: Urls {
                    crl_dp: Some("http://pki.example/bench/1.crl".into()),
                    ca_issuers: Some("http://pki.example/bench.cer".into()),
                    ocsp: None,
                },
            },
            issuer,
            profile: Profile::parse(PROFILE).unwrap(),
            identity: Identity::new(&caller, "bench"),
            csr: csr.unwrap().der().to_vec(),
            now,
        }
    }

    /// Who signs.
    #[must_use]
    pub fn issuer(&self) -> &IssuerCert {
        &self.issuer
    }

    /// Unix seconds of all documents.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What the profile makes of the request.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let csr = Csr::from_der(&self.csr).unwrap();
        let request = Request {
            csr: &csr,
            names: &[],
            identity: &self.identity,
            ttl_seconds: None,
            now: self.now,
            serial: Serial::from_random([2; Serial::RANDOM_LEN]),
            issuer: &self.facts,
        };
        self.profile.prepare(&request).unwrap()
    }

    /// The time of the lint of one certificate, with what re-reads the DER: the fastest of
    /// ten batches, which is what the code takes when nobody disturbs it.
    #[must_use]
    pub fn lint(&self) -> Duration {
        const BATCH: u32 = 1000;
        let plan = self.plan();
        let batch = || {
            let draft = || Draft::new(plan.clone(), &self.issuer).unwrap();
            let drafts: Vec<_> = (0..BATCH).map(|_| draft()).collect();
            let start = Instant::now();
            let linted: Vec<_> = drafts.into_iter().map(|d| d.lint(self.now)).collect();
            let time = start.elapsed() / BATCH;
            assert!(linted.iter().all(Result::is_ok), "lint finds something");
            time
        };
        (0..10).map(|_| batch()).min().unwrap()
    }

    /// The time of a full CRL: draft, lint, signature, self-check.
    #[must_use]
    pub fn crl(&self, token: &mut dyn Token, key: &KeyRef, entries: u32) -> Duration {
        let revoked = (0..entries).map(|n| {
            let mut random = [7; Serial::RANDOM_LEN];
            for (to, from) in random.iter_mut().rev().zip(n.to_le_bytes()) {
                *to = from;
            }
            Revoked {
                serial: Serial::from_random(random),
                revoked_at: self.now - 10,
                reason: Some(Reason::Superseded),
                invalidity_date: None,
            }
        });
        let plan = CrlPlan {
            number: self.now,
            this_update: self.now,
            next_update: self.now + DAY - 1,
            scope: Scope::Full,
        };
        let start = Instant::now();
        let draft = CrlDraft::new(plan, &self.issuer, revoked);
        let crl = sign(token, key, draft.lint(self.now).unwrap());
        assert!(crl.der().len() > entries as usize * 30);
        start.elapsed()
    }

    /// Proof of possession, key policy, profile, draft, lint, one signature, self-check.
    #[must_use]
    pub fn issue(&self, token: &mut dyn Token, key: &KeyRef) -> Certificate {
        let draft = Draft::new(self.plan(), &self.issuer).unwrap();
        sign(token, key, draft.lint(self.now).unwrap())
    }
}

/// Signs what was linted.
#[must_use]
pub fn sign<T: Document>(token: &mut dyn Token, key: &KeyRef, unsigned: Unsigned<T>) -> T {
    let digest = Sha256::digest(unsigned.tbs());
    let signature = token.sign(key, Signing::Ecdsa, &digest).unwrap();
    unsigned.attach(&ecdsa_to_der(&signature).unwrap()).unwrap()
}
