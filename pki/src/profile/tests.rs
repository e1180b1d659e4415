//! Profiles that must not load, and single rules of issuing.

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{
    csr::Csr,
    identity::Identity,
    name::San,
    plan::{Kind, Plan, Subtree, Urls},
    serial::Serial,
    spiffe::{SpiffeId, TrustDomain},
};

/// The example of the design, whole.
const FULL: &str = r#"
name = "service-tls"
version = 3
issuers = ["int-p256-a", "int-p256-b"]

[validity]
default = "24h"
max = "72h"
backdate = "5m"
round_up_to_issuer = false

[key]
allow = ["ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072"]
reuse = "forbid-after-revocation"

[subject]
common_name = "omit"
fixed = { O = "Example" }

[[san.dns]]
match = "exact"
value = "{principal.service}.svc.example.internal"
[[san.dns]]
match = "one-label-under"
value = "apps.example.internal"
wildcard = false
[san.ip]
cidrs = ["10.20.0.0/16"]
max = 2
[san.uri]
spiffe = { trust_domain = "example.internal", path = "/ns/{principal.ns}/sa/{principal.sa}", count = 1 }
[san]
require_any = true
max_total = 20

[usage]
ku = "auto"
eku = ["serverAuth", "clientAuth"]

[extensions]
policies = []
ski = true
no_rev_avail = false
crl_dp = true
ocsp = false
allow_oids = []

[lint]
set = "private-v1"
ignore = []

[authz]
require = ["mtls", "token"]
rate = { per_principal = "20/min", burst = 40 }
approve = "none"
"#;

const CA: &str = r#"
name = "intermediate"
version = 1
kind = "ca"
issuers = ["root"]
path_len = 0
permitted = ["dns:example.internal", "ip:10.0.0.0/8", "uri:.example.internal"]
excluded = ["dns:secret.example.internal"]
[validity]
default = "365d"
max = "3650d"
[key]
allow = ["ec-p384"]
"#;

const NOW: u64 = 1_800_000_000;

fn csr(names: &[&str]) -> Csr {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(names)
        .unwrap()
        .serialize_request(&key)
        .unwrap();
    Csr::from_der(request.der()).unwrap()
}

fn issuer(name: &str) -> IssuerFacts {
    IssuerFacts {
        name: name.to_owned(),
        is_root: false,
        spki_sha256: [0; 32],
        not_before: NOW - 1_000_000,
        not_after: NOW + 1_000_000,
        urls: Urls {
            crl_dp: Some("http://pki.example/a.crl".to_owned()),
            ..Urls::default()
        },
    }
}

fn ask(profile: &str, id: &str, names: &[&str], issuer: &IssuerFacts) -> Result<Plan, Refusal> {
    let names: Vec<San> = names.iter().map(|n| n.parse().unwrap()).collect();
    Profile::parse(profile).unwrap().prepare(&Request {
        csr: &csr(&["from-csr.dev.example"]),
        names: &names,
        identity: &Identity::new(&SpiffeId::parse(id).unwrap(), "acme"),
        ttl_seconds: None,
        now: NOW,
        serial: Serial::from_random([1; 17]),
        issuer,
    })
}

fn refused(text: &str, what: &str) {
    let error = Profile::parse(text).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
}

#[test]
fn the_example_loads_and_says_what_it_says() {
    let profile = Profile::parse(FULL).unwrap();
    assert_eq!((profile.name(), profile.version()), ("service-tls", 3));
    assert_eq!(profile.max_ttl_seconds(), 259_200);
    assert_eq!(profile.keys().len(), 5);
    let rate = Rate {
        count: 20,
        per_seconds: 60,
        burst: 40,
    };
    assert_eq!(profile.authz().rate, Some(rate));
    assert!(profile.ca().is_none());
    // Line ends and blanks do not make another profile; anything else does.
    let same = Profile::parse(&FULL.replace('\n', "  \r\n")).unwrap();
    assert_eq!(same.sha256(), profile.sha256());
    let other = Profile::parse(&FULL.replace("version = 3", "version = 4")).unwrap();
    assert_ne!(other.sha256(), profile.sha256());
}

#[test]
fn unknown_keys_are_told_with_their_line() {
    let text = FULL.replace("require_any = true", "require_anny = true");
    let line = text.lines().position(|l| l.contains("anny")).unwrap() + 1;
    // The canonical text keeps the empty first line.
    refused(
        &text,
        &format!("line {line} of the profile: unknown field `require_anny`"),
    );
    refused("name = 1", "line 1");
}

/// What to replace in the example, by what, and a part of the message.
const BROKEN: &[(&str, &str, &str)] = &[
    ("max = \"72h\"", "max = \"1h\"", "validity.default"),
    ("backdate = \"5m\"", "backdate = \"61m\"", "at most 1h"),
    ("backdate = \"5m\"", "backdate = \"-5m\"", "is no time"),
    (
        "round_up_to_issuer = false",
        "round_up_to_issuer = true",
        "must be false",
    ),
    ("\"ec-p384\"", "\"rsa-1024\"", "none of"),
    ("O = \"Example\"", "CN = \"x\"", "unknown field"),
    (
        "eku = [\"serverAuth\"",
        "eku = [\"OCSPSigning\"",
        "the CA's own",
    ),
    (
        "eku = [\"serverAuth\"",
        "eku = [\"anyExtendedKeyUsage\"",
        "not issued",
    ),
    (
        "eku = [\"serverAuth\", \"clientAuth\"]",
        "eku = []",
        "at least one",
    ),
    (
        "ku = \"auto\"",
        "ku = [\"digitalSignature\", \"keyCertSign\"]",
        "kind = \"ca\"",
    ),
    (
        "ku = \"auto\"",
        "ku = [\"keyEncipherment\"]",
        "digitalSignature",
    ),
    ("version = 3", "version = 3\npath_len = 0", "must be \"ca\""),
    (
        "no_rev_avail = false",
        "no_rev_avail = true",
        "crl_dp = false",
    ),
    (
        "allow_oids = []",
        "allow_oids = [\"1.2.3\"]",
        "must be empty",
    ),
    ("policies = []", "policies = [\"1.x\"]", "no OID"),
    ("10.20.0.0/16", "10.20.0.1/16", "behind its prefix"),
    ("10.20.0.0/16", "10.20.0.0/33", "no network"),
    ("count = 1", "count = 2", "must be 1"),
    ("path = \"/ns/{", "path = \"ns/{", "begin with /"),
    ("{principal.sa}", "{principal.role}", "no placeholder"),
    (
        "{principal.service}.svc",
        "x-{principal.service}.svc",
        "no placeholder",
    ),
    (
        "value = \"apps.example.internal\"",
        "value = \"*.example\"",
        "wildcard",
    ),
    (
        "value = \"apps.example.internal\"",
        "value = \"a.{principal.ns}\"",
        "last label",
    ),
    (
        "match = \"exact\"",
        "match = \"exact\"\nwildcard = true",
        "covers no wildcard",
    ),
    ("match = \"exact\"", "match = \"glob\"", "unknown variant"),
    (
        "require = [\"mtls\", \"token\"]",
        "require = []",
        "authz.require",
    ),
    ("20/min", "20/fortnight", "authz.rate"),
    ("max_total = 20", "max_total = 101", "san.max_total"),
];

#[test]
fn what_breaks_a_rule_does_not_load() {
    for (from, to, what) in BROKEN {
        let text = FULL.replacen(from, to, 1);
        assert_ne!(text, FULL, "{from}");
        refused(&text, what);
    }
    let short = FULL
        .replace("no_rev_avail = false", "no_rev_avail = true")
        .replace("crl_dp = true", "crl_dp = false");
    assert!(Profile::parse(&short).is_ok());
    refused(&short.replace("72h", "8d"), "at most 7d");
}

#[test]
fn a_ca_profile_has_its_constraints_and_serves_no_request() {
    let profile = Profile::parse(CA).unwrap();
    let rules = profile.ca().unwrap();
    assert_eq!(rules.path_len, 0);
    assert_eq!(rules.constraints.permitted.len(), 3);
    assert_eq!(
        rules.constraints.excluded,
        [Subtree::Dns("secret.example.internal".to_owned())]
    );
    let got = ask(CA, "spiffe://td/a", &["dns:a.example"], &issuer("root"));
    assert_eq!(got, Err(Refusal(vec![Violation::CaProfile])));
    for line in [
        "path_len = 0\n",
        "excluded = [\"dns:secret.example.internal\"]\n",
    ] {
        refused(
            &CA.replace(line, ""),
            "needs path_len, permitted and excluded",
        );
    }
    refused(&CA.replace("dns:example", "dns:.example"), "permitted");
    refused(&format!("{CA}[usage]\neku = []\n"), "no [usage]");
}

#[test]
fn networks_for_acme_are_listed_or_none() {
    let acme = |list: &str| format!("{FULL}\n[acme]\nnetworks = {list}\n");
    assert!(Profile::parse(FULL).unwrap().acme_networks().is_empty());
    let profile = Profile::parse(&acme("[\"10.20.0.0/16\", \"fd00::/8\"]")).unwrap();
    let inside = |address: &str| {
        let address = address.parse().unwrap();
        profile.acme_networks().iter().any(|n| n.contains(address))
    };
    assert!(inside("10.20.3.4") && inside("fd01::1"));
    assert!(!inside("10.21.0.1") && !inside("fe80::1"));
    for bad in ["[\"10.20.0.1/16\"]", "[\"10.20.0.0\"]", "[\"*\"]", "[\"\"]"] {
        refused(&acme(bad), "acme.networks");
    }
    let ca = format!("{CA}\n[acme]\nnetworks = [\"10.0.0.0/8\"]\n");
    refused(&ca, "acme.networks");
}

#[test]
fn every_violation_is_told_at_once() {
    let mut root = issuer("other");
    root.is_root = true;
    root.not_after = NOW + 100;
    root.urls.crl_dp = None;
    let names = [
        "dns:cart.svc.example.internal",
        "dns:evil.example",
        "dns:*.apps.example.internal",
        "dns:a.b.apps.example.internal",
        "ip:10.21.0.1",
        "uri:spiffe://example.internal/ns/shop/sa/other",
    ];
    let id = "spiffe://example.internal/ns/shop/sa/cart";
    let Err(Refusal(against)) = ask(FULL, id, &names, &root) else {
        panic!("issued");
    };
    let bad = against
        .iter()
        .filter(|v| matches!(v, Violation::Name { .. }));
    assert_eq!(bad.count(), 5);
    assert!(against.contains(&Violation::Issuer("other".to_owned())));
    assert!(against.contains(&Violation::Root("other".to_owned())));
    assert!(against.contains(&Violation::NoUrl("crl_dp")));
    let outlives = |v: &Violation| matches!(v, Violation::OutlivesIssuer { .. });
    assert!(against.iter().any(outlives));
}

#[test]
fn a_foreign_trust_domain_or_a_strange_segment_gets_no_name() {
    let uri = "uri:spiffe://example.internal/ns/shop/sa/cart";
    let at = issuer("int-p256-a");
    assert!(
        ask(
            FULL,
            "spiffe://example.internal/ns/shop/sa/cart",
            &[uri],
            &at
        )
        .is_ok()
    );
    assert!(ask(FULL, "spiffe://foreign/ns/shop/sa/cart", &[uri], &at).is_err());
    let dns = "dns:a.b.svc.example.internal";
    let got = ask(FULL, "spiffe://example.internal/a.b", &[dns], &at).unwrap_err();
    assert!(got.to_string().contains("not one label"), "{got}");
}

#[test]
fn lifetimes_count_both_ends() {
    let id = "spiffe://example.internal/cart";
    let name = ["dns:cart.svc.example.internal"];
    let mut at = issuer("int-p256-a");
    let plan = ask(FULL, id, &name, &at).unwrap();
    assert_eq!(plan.not_before, NOW - 300);
    assert_eq!(plan.not_after - plan.not_before + 1, 86_400);
    at.not_after = plan.not_after;
    assert!(ask(FULL, id, &name, &at).is_ok());
    at.not_after -= 1;
    let got = ask(FULL, id, &name, &at);
    assert_eq!(got, Err(Refusal(vec![Violation::OutlivesIssuer { by: 1 }])));
}

#[test]
fn names_of_the_csr_count_only_where_the_profile_says() {
    let got = ask(
        FULL,
        "spiffe://example.internal/cart",
        &[],
        &issuer("int-p256-a"),
    );
    assert!(got.unwrap_err().0.contains(&Violation::NamesFromCsr));
    let plan = ask(&dev_service("int"), "spiffe://td/x", &[], &issuer("int")).unwrap();
    assert_eq!(plan.sans, [San::dns("from-csr.dev.example").unwrap()]);
}

#[test]
fn the_built_in_svid_profile_gives_exactly_the_callers_own_id() {
    let domain = TrustDomain::parse("td.example").unwrap();
    let text = spiffe_svid(&domain, "int");
    let id = "spiffe://td.example/ns/shop/sa/cart";
    let plan = ask(&text, id, &[&format!("uri:{id}")], &issuer("int")).unwrap();
    assert_eq!(plan.sans, [San::uri(id).unwrap()]);
    assert!(plan.subject.is_empty() && plan.urls.crl_dp.is_none());
    assert!(matches!(
        plan.kind,
        Kind::Leaf {
            no_rev_avail: true,
            ..
        }
    ));
    for names in [
        &["uri:spiffe://td.example/ns/shop/sa/other"][..],
        &["uri:spiffe://td.example/ns/shop/sa/cart", "dns:a.example"],
        &["dns:cart"],
    ] {
        assert!(ask(&text, id, names, &issuer("int")).is_err(), "{names:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,200}") {
        prop_assert!(Profile::parse(&text).is_err());
    }

    /// Any byte of the example may be another; it loads or it does not.
    #[test]
    fn an_altered_example_does_not_panic(at in 0..FULL.len(), to in "\\PC") {
        let mut text = FULL.to_owned();
        text.replace_range(at..=at, &to);
        let _ = Profile::parse(&text);
    }
}
