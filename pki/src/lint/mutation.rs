//! Can the lint fail? Every single change to good bytes, to the plan and to the issuer
//! must be found.

use std::collections::BTreeSet;

use crate::{
    Attribute, Draft, Eku, IssuerCert, KeyKind, KeyUsage, Kind, NameConstraints, Plan, San,
    Subject, Subtree,
    lint::certificate,
    testing::{DAY, NOW, TestKey, ca_plan, leaf_plan, root, serial, subject},
    wire::{Cursor, Writer, tag},
};

struct Good {
    tbs: Vec<u8>,
    plan: Plan,
    issuer: IssuerCert,
}

impl Good {
    fn new(plan: Plan, issuer: &IssuerCert) -> Self {
        let tbs = Draft::new(plan.clone(), issuer).unwrap().tbs().to_vec();
        let good = Self {
            tbs,
            plan,
            issuer: issuer.clone(),
        };
        assert_eq!(good.rules(&good.tbs), BTreeSet::new());
        good
    }

    fn rules(&self, tbs: &[u8]) -> BTreeSet<&'static str> {
        match certificate(tbs, &self.plan, &self.issuer, false, NOW) {
            Ok(()) => BTreeSet::new(),
            Err(found) => found.iter().map(|f| f.rule).collect(),
        }
    }
}

/// A leaf, an intermediate with constraints, and an OCSP responder.
fn goods() -> Vec<Good> {
    let (_, issuer) = root(&TestKey::new(KeyKind::EcP256));
    let key = || TestKey::new(KeyKind::EcP384).public();
    let mut ca = ca_plan(key(), Some(0));
    ca.kind = Kind::Ca {
        path_len: Some(0),
        constraints: NameConstraints {
            permitted: vec![
                Subtree::Dns("example.com".into()),
                Subtree::UriHost("a.b".into()),
            ],
            excluded: vec![Subtree::Ip {
                address: [10, 0, 0, 0].into(),
                prefix: 9,
            }],
        },
    };
    let mut responder = leaf_plan(key());
    responder.kind = Kind::OcspResponder;
    (responder.subject, responder.sans) = (subject("OCSP"), vec![]);
    responder.urls.ocsp = None;
    let mut short = leaf_plan(key());
    if let Kind::Leaf { no_rev_avail, .. } = &mut short.kind {
        *no_rev_avail = true;
    }
    (short.urls.crl_dp, short.urls.ocsp) = (None, None);
    [leaf_plan(key()), ca, responder, short]
        .into_iter()
        .map(|plan| Good::new(plan, &issuer))
        .collect()
}

#[test]
fn every_bit_counts() {
    for good in goods() {
        for at in 0..good.tbs.len() {
            for bit in 0..8 {
                let mut tbs = good.tbs.clone();
                tbs[at] ^= 1 << bit;
                assert!(
                    !good.rules(&tbs).is_empty(),
                    "octet {at} bit {bit} of {:?}",
                    good.plan.kind
                );
            }
        }
    }
}

#[test]
fn no_octet_less_or_more() {
    for good in goods() {
        for at in 0..good.tbs.len() {
            assert!(!good.rules(&good.tbs[..at]).is_empty());
            let mut more = good.tbs.clone();
            more.insert(at, 0);
            assert!(!good.rules(&more).is_empty(), "inserted at {at}");
            let mut less = good.tbs.clone();
            less.remove(at);
            assert!(!good.rules(&less).is_empty(), "removed at {at}");
        }
        assert!(!good.rules(&[&good.tbs[..], &[5, 0]].concat()).is_empty());
    }
}

/// The same bytes with other extensions.
fn with_extensions(tbs: &[u8], change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut fields = Cursor::within(tag::SEQUENCE, tbs).unwrap();
    let mut writer = Writer::default();
    writer.nest(tag::SEQUENCE, |w| {
        while !fields.at(tag::constructed(3)) {
            w.raw(fields.element().unwrap());
        }
        let list = fields.take(tag::constructed(3)).unwrap();
        let mut list = Cursor::within(tag::SEQUENCE, list).unwrap();
        let mut extensions = Vec::new();
        while !list.is_empty() {
            extensions.push(list.element().unwrap().to_vec());
        }
        change(&mut extensions);
        w.nest(tag::constructed(3), |w| {
            w.nest(tag::SEQUENCE, |w| extensions.iter().for_each(|e| w.raw(e)));
        });
    });
    writer.finish()
}

/// The extension with `critical` the other way round.
fn other_criticality(extension: &[u8]) -> Vec<u8> {
    let mut parts = Cursor::within(tag::SEQUENCE, extension).unwrap();
    let oid = parts.take(tag::OID).unwrap();
    let critical = parts.take(tag::BOOLEAN).is_some();
    let value = parts.take(tag::OCTET_STRING).unwrap();
    let mut writer = Writer::default();
    crate::extension::put(&mut writer, oid, !critical, |w| w.raw(value));
    writer.finish()
}

#[test]
fn extensions_are_the_planned_ones_in_order() {
    for good in goods() {
        assert_eq!(with_extensions(&good.tbs, |_| {}), good.tbs);
        let mut count = 0;
        with_extensions(&good.tbs, |all| count = all.len());
        for n in 0..count {
            let refused = |what: &str, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
                let tbs = with_extensions(&good.tbs, |all| change(all));
                assert!(!good.rules(&tbs).is_empty(), "{what} {n}");
            };
            refused("dropped", &|all| drop(all.remove(n)));
            refused("twice", &|all| all.insert(n, all[n].clone()));
            refused("criticality", &|all| all[n] = other_criticality(&all[n]));
            refused("order", &|all| all.swap(n, (n + 1) % count));
        }
        let mut foreign = Writer::default();
        crate::extension::put(&mut foreign, &[0x2a, 3, 4], false, |w| {
            w.put(tag::NULL, &[])
        });
        let foreign = foreign.finish();
        let tbs = with_extensions(&good.tbs, |all| all.push(foreign));
        assert_eq!(good.rules(&tbs), BTreeSet::from(["C19"]));
    }
}

/// Good bytes held against a plan with one field changed.
#[test]
fn bytes_that_are_not_the_plan_are_found() {
    type Change = (&'static str, fn(&mut Plan));
    let changes: [Change; 14] = [
        ("C1", |p| p.serial = serial(9)),
        ("C5", |p| p.not_before -= 1),
        ("C5", |p| p.not_after += 1),
        ("C7", |p| p.subject = subject("other")),
        ("C9", |p| p.sans.truncate(1)),
        ("C9", |p| p.sans.swap(0, 1)),
        ("C12", |p| p.ski = false),
        ("C18", |p| p.urls.crl_dp = None),
        ("C18", |p| {
            p.urls.ocsp = Some("http://other.example/".into())
        }),
        ("C18", |p| p.urls.ca_issuers = None),
        ("C20", |p| p.key = TestKey::new(KeyKind::EcP384).public()),
        ("C13", |p| leaf(p, |usage, _, _| usage.key_agreement = true)),
        ("C17", |p| leaf(p, |_, eku, _| eku.truncate(1))),
        ("C19", |p| leaf(p, |_, _, policies| policies.clear())),
    ];
    for (rule, change) in changes {
        let mut good = goods().swap_remove(0);
        change(&mut good.plan);
        let found = good.rules(&good.tbs);
        assert!(found.contains(rule), "{rule}: {found:?}");
    }
}

fn leaf(
    plan: &mut Plan,
    change: impl FnOnce(&mut KeyUsage, &mut Vec<Eku>, &mut Vec<der::asn1::ObjectIdentifier>),
) {
    if let Kind::Leaf {
        key_usage,
        ext_key_usage,
        policies,
        ..
    } = &mut plan.kind
    {
        change(key_usage, ext_key_usage, policies);
    }
}

fn found(plan: Plan, issuer: &IssuerCert) -> BTreeSet<&'static str> {
    match Draft::new(plan, issuer).unwrap().lint(NOW) {
        Ok(_) => BTreeSet::new(),
        Err(found) => found.iter().map(|f| f.rule).collect(),
    }
}

/// Bytes that say what the plan says, where the plan itself breaks a rule.
#[test]
fn a_bad_plan_is_found() {
    type Change = (&'static str, fn(&mut Plan));
    let changes: [Change; 21] = [
        ("C6", |p| p.not_before = NOW + 1),
        ("C6", |p| p.not_before = NOW - 3601),
        ("C6", |p| p.not_after = NOW + 4000 * DAY),
        ("C6", |p| p.not_after = NOW),
        ("C7", |p| p.sans.clear()),
        ("C8", |p| p.subject = subject("not-a-san")),
        ("C9", |p| p.sans.push(San::dns("a.example.com").unwrap())),
        ("C13", |p| {
            leaf(p, |usage, _, _| usage.key_encipherment = true)
        }),
        ("C14", |p| p.kind = ca_plan(p.key.clone(), None).kind),
        ("C12", |p| {
            p.kind = ca_plan(p.key.clone(), Some(0)).kind;
            p.ski = false;
        }),
        ("C7", |p| p.kind = ca_plan(p.key.clone(), Some(0)).kind),
        ("C15", |p| {
            constrained(p, Subtree::Dns(".example.com".into()))
        }),
        ("C15", |p| constrained(p, Subtree::UriHost("a/b".into()))),
        ("C15", |p| {
            constrained(
                p,
                Subtree::Ip {
                    address: [10, 0, 0, 1].into(),
                    prefix: 8,
                },
            )
        }),
        ("C17", |p| leaf(p, |_, eku, _| eku.clear())),
        ("C17", |p| leaf(p, |_, eku, _| eku.push(Eku::ServerAuth))),
        ("C18", |p| p.urls.crl_dp = Some("https://a.example/".into())),
        ("C18", |p| {
            if let Kind::Leaf { no_rev_avail, .. } = &mut p.kind {
                *no_rev_avail = true;
            }
        }),
        ("C23", |p| {
            p.sans.push(San::uri("https://a.example/").unwrap())
        }),
        ("C23", |p| leaf(p, |_, eku, _| eku.truncate(1))),
        ("R9", |p| {
            p.kind = Kind::OcspResponder;
            p.not_after = p.not_before + 14 * DAY;
        }),
    ];
    let (_, issuer) = root(&TestKey::new(KeyKind::EcP256));
    for (n, (rule, change)) in changes.into_iter().enumerate() {
        let mut plan = leaf_plan(TestKey::new(KeyKind::EcP256).public());
        change(&mut plan);
        let found = found(plan, &issuer);
        assert!(found.contains(rule), "{n} {rule}: {found:?}");
    }
    // The key of the issuer is not for others.
    assert!(found(leaf_plan(issuer.key().clone()), &issuer).contains("C20"));
    let mut named = leaf_plan(TestKey::new(KeyKind::EcP256).public());
    named.subject = Subject::new(&[(Attribute::CommonName, "a.example.com")]).unwrap();
    assert_eq!(found(named, &issuer), BTreeSet::new());
}

fn constrained(plan: &mut Plan, base: Subtree) {
    plan.subject = subject("CA");
    plan.kind = Kind::Ca {
        path_len: Some(0),
        constraints: NameConstraints {
            permitted: vec![base],
            excluded: vec![],
        },
    };
}

#[test]
fn the_chain_above_is_heard() {
    let (root_key, middle_key) = (TestKey::new(KeyKind::EcP384), TestKey::new(KeyKind::EcP256));
    let (root_cert, root) = root(&root_key);
    let mut middle = ca_plan(middle_key.public(), Some(1));
    middle.kind = Kind::Ca {
        path_len: Some(1),
        constraints: NameConstraints {
            permitted: vec![Subtree::Dns("example.com".into())],
            excluded: vec![Subtree::Dns("b.example.com".into())],
        },
    };
    let middle = root_key.sign(Draft::new(middle, &root).unwrap().lint(NOW).unwrap());
    let below_key = TestKey::new(KeyKind::Ed25519);
    let issuer = IssuerCert::from_chain(&[middle.der(), root_cert.der()]).unwrap();
    let below = ca_plan(below_key.public(), Some(0));
    assert!(found(ca_plan(below_key.public(), Some(1)), &issuer).contains("C14"));
    let below = middle_key.sign(Draft::new(below, &issuer).unwrap().lint(NOW).unwrap());

    let chain = [below.der(), middle.der(), root_cert.der()];
    let issuer = IssuerCert::from_chain(&chain).unwrap();
    let leaf_key = TestKey::new(KeyKind::EcP256).public();
    // `*.b.example.com` of the usual leaf is excluded two levels above.
    assert_eq!(
        found(leaf_plan(leaf_key.clone()), &issuer),
        BTreeSet::from(["C16"])
    );
    let mut allowed = leaf_plan(leaf_key.clone());
    allowed.sans.remove(1);
    assert_eq!(found(allowed, &issuer), BTreeSet::new());
    assert!(found(ca_plan(leaf_key, Some(0)), &issuer).contains("C14"));
    assert!(IssuerCert::from_chain(&[below.der(), root_cert.der()]).is_err());
}
