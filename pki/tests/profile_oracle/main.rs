//! Random requests against random profiles. A second reading of the same TOML text, which
//! shares no code with the profile, says what may be issued: the two must agree, and
//! what is issued must be what the text says.
//!
//! `KEYWRIGHT_PKI_CASES` says how many cases; 100,000 when it is not set.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: helpers are not marked as such"
)]

mod case;

use std::net::IpAddr;

use crate::case::{Case, NOW, Random, case};
use keywright_pki::{Csr, Identity, Kind, Plan, Profile, Request, San, Serial, SpiffeId};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use toml::{Table, Value};

/// The second reading. `Err` names the first thing against the case.
struct Oracle<'a> {
    profile: Table,
    case: &'a Case,
}

impl Oracle<'_> {
    fn at(&self, path: &str) -> Option<&Value> {
        let mut keys = path.split('.');
        let first = self.profile.get(keys.next()?)?;
        keys.try_fold(first, |value, key| value.get(key))
    }

    fn flag(&self, path: &str) -> bool {
        self.at(path).is_some_and(|v| v.as_bool() == Some(true))
    }

    fn time(&self, path: &str) -> u64 {
        let text = self.at(path).unwrap().as_str().unwrap();
        let (number, unit) = text.split_at(text.len() - 1);
        let unit = ["s", "m", "h", "d"]
            .iter()
            .position(|u| *u == unit)
            .unwrap();
        number.parse::<u64>().unwrap() * [1, 60, 3600, 86_400][unit]
    }

    /// `text` with its placeholders filled in; `None` when one has no value.
    fn fill(&self, text: &str) -> Option<String> {
        let parts: Vec<&str> = self.case.path.split('/').skip(1).collect();
        let in_ns = parts.len() == 4 && parts[0] == "ns" && parts[2] == "sa";
        let after = parts
            .iter()
            .position(|p| *p == "service")
            .map(|i| parts[i + 1]);
        let mut out = text.to_owned();
        for (key, value) in [
            ("name", parts.last().copied()),
            ("ns", in_ns.then(|| parts[1])),
            ("sa", in_ns.then(|| parts[3])),
            ("service", after.or(parts.last().copied())),
            ("tenant", Some("acme")),
        ] {
            let key = format!("{{principal.{key}}}");
            if !text.contains(&key) {
                continue;
            }
            let value = value?;
            if value.contains(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
            {
                return None;
            }
            out = out.replace(&key, value);
        }
        Some(out)
    }

    fn dns(&self, name: &str) -> bool {
        let rules = self.at("san.dns").map(|v| v.as_array().unwrap().as_slice());
        rules.unwrap_or_default().iter().any(|rule| {
            let Some(value) = self.fill(rule["value"].as_str().unwrap()) else {
                return false;
            };
            let base: Vec<&str> = value.rsplit('.').collect();
            let own: Vec<&str> = name.rsplit('.').collect();
            let star = own.last() == Some(&"*");
            if star && rule["wildcard"].as_bool() != Some(true) {
                return false;
            }
            if own.len() < base.len() || own[..base.len()] != base[..] {
                return false;
            }
            match (rule["match"].as_str().unwrap(), own.len() - base.len()) {
                ("exact", 0) | ("one-label-under", 1) => true,
                ("any-depth-under", more) => more > 0,
                _ => false,
            }
        })
    }

    fn ip(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| -> String {
            let octets = match address {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            };
            octets.iter().map(|o| format!("{o:08b}")).collect()
        };
        let cidrs = self
            .at("san.ip.cidrs")
            .map(|v| v.as_array().unwrap().as_slice());
        cidrs.unwrap_or_default().iter().any(|cidr| {
            let (base, prefix) = cidr.as_str().unwrap().split_once('/').unwrap();
            let base: IpAddr = base.parse().unwrap();
            let prefix: usize = prefix.parse().unwrap();
            base.is_ipv4() == address.is_ipv4() && bits(base)[..prefix] == bits(address)[..prefix]
        })
    }

    fn uri(&self, uri: &str) -> bool {
        let Some(rule) = self.at("san.uri.spiffe") else {
            return false;
        };
        let domain = rule["trust_domain"].as_str().unwrap();
        let path = self.fill(rule["path"].as_str().unwrap());
        domain == self.case.domain && path.is_some_and(|p| uri == format!("spiffe://{domain}{p}"))
    }

    /// The names that would be issued.
    fn names(&self) -> Result<Vec<San>, &'static str> {
        let given = if !self.case.asked.is_empty() {
            &self.case.asked
        } else if self.case.of_csr.is_empty() || self.flag("san.from_csr") {
            &self.case.of_csr
        } else {
            return Err("names from the CSR");
        };
        let mut names: Vec<San> = Vec::new();
        for san in given {
            if names.iter().all(|n| n != san) {
                names.push(san.clone());
            }
            let allowed = match san {
                San::Dns(name) => self.dns(name.as_str()),
                San::Ip(address) => self.ip(*address),
                San::Uri(uri) => self.uri(uri.as_str()),
            };
            if !allowed {
                return Err("a name");
            }
        }
        let number = |path, default| {
            self.at(path)
                .map_or(default, |v| v.as_integer().unwrap() as usize)
        };
        let count = |kind: fn(&San) -> bool| names.iter().filter(|n| kind(n)).count();
        if names.len() > number("san.max_total", 20)
            || count(|n| matches!(n, San::Ip(_))) > number("san.ip.max", 0)
            || count(|n| matches!(n, San::Uri(_))) > 1
            || (names.is_empty() && self.flag("san.require_any"))
        {
            return Err("their number");
        }
        Ok(names)
    }

    fn first_and_last(&self) -> Result<(u64, u64), &'static str> {
        let issuer = &self.case.issuer;
        let backdate = self.time("validity.backdate");
        let ttl = self
            .case
            .ttl
            .unwrap_or_else(|| self.time("validity.default"));
        if ttl > self.time("validity.max") || ttl <= backdate {
            return Err("the lifetime");
        }
        let first = std::cmp::max(NOW - backdate, issuer.not_before);
        let last = first + ttl - 1;
        if last > issuer.not_after || NOW < issuer.not_before {
            return Err("the issuer's lifetime");
        }
        Ok((first, last))
    }

    fn common_name(&self, names: &[San]) -> Result<Option<String>, &'static str> {
        let hosts: Vec<String> = names
            .iter()
            .filter_map(|n| n.to_string().strip_prefix("dns:").map(str::to_owned))
            .collect();
        match (
            self.at("subject.common_name").unwrap().as_str().unwrap(),
            &self.case.common_name,
        ) {
            ("first-dns", _) => Ok(hosts.first().cloned()),
            ("from-san", Some(cn)) if hosts.contains(&cn.to_lowercase()) => {
                Ok(Some(cn.to_lowercase()))
            }
            ("from-san", Some(_)) => Err("the common name"),
            _ => Ok(None),
        }
    }

    fn rest(&self) -> Result<(), &'static str> {
        let (issuer, key) = (
            &self.case.issuer,
            ["ec-p256", "rsa-2048", "ec-p384"][self.case.key],
        );
        let lists = |path, word: &str| {
            let list = self.at(path).unwrap().as_array().unwrap();
            list.iter().any(|v| v.as_str() == Some(word))
        };
        if issuer.is_root || !lists("issuers", &issuer.name) {
            return Err("the issuer");
        }
        if !lists("key.allow", key) {
            return Err("the key");
        }
        if (self.flag("extensions.crl_dp") && issuer.urls.crl_dp.is_none())
            || (self.flag("extensions.ocsp") && issuer.urls.ocsp.is_none())
        {
            return Err("a URL");
        }
        Ok(())
    }

    /// Holds an issued plan against the text.
    fn compare(&self, plan: &Plan) -> Result<(), &'static str> {
        self.rest()?;
        let names = self.names()?;
        assert_eq!(plan.sans, names);
        assert_eq!((plan.not_before, plan.not_after), self.first_and_last()?);
        let cn = self.common_name(&names)?;
        assert_eq!(plan.subject.is_empty(), cn.is_none());
        if let Some(cn) = cn {
            assert!(plan.subject.as_der().ends_with(cn.as_bytes()));
        }
        let urls = &self.case.issuer.urls;
        assert_eq!(plan.urls.crl_dp.is_some(), self.flag("extensions.crl_dp"));
        assert_eq!(plan.urls.ocsp.is_some(), self.flag("extensions.ocsp"));
        assert_eq!(plan.urls.ca_issuers, urls.ca_issuers);
        assert_eq!(plan.ski, self.flag("extensions.ski"));
        let Kind::Leaf { key_usage, .. } = &plan.kind else {
            panic!("no leaf");
        };
        let list = self.at("usage.ku").unwrap().is_array();
        assert_eq!(key_usage.key_encipherment, list && self.case.key == 1);
        assert_eq!(key_usage.key_agreement, list && self.case.key != 1);
        Ok(())
    }
}

fn csr(case: &Case, keys: &[KeyPair]) -> Csr {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(cn) = &case.common_name {
        params
            .distinguished_name
            .push(DnType::CommonName, cn.clone());
    }
    params.subject_alt_names = case
        .of_csr
        .iter()
        .map(|san| match san {
            San::Dns(name) => SanType::DnsName(name.as_str().try_into().unwrap()),
            San::Ip(address) => SanType::IpAddress(*address),
            San::Uri(uri) => SanType::URI(uri.as_str().try_into().unwrap()),
        })
        .collect();
    let request = params.serialize_request(&keys[case.key]).unwrap();
    Csr::from_der(request.der()).unwrap()
}

#[test]
fn no_plan_is_outside_its_profile() {
    let keys = [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
    ];
    #[expect(clippy::disallowed_methods, reason = "how long this test runs")]
    let cases = std::env::var("KEYWRIGHT_PKI_CASES").map_or(100_000, |n| n.parse().unwrap());
    let (mut issued, mut with_names) = (0_u64, 0_u64);
    let mut refused = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..cases {
        let case = case(&mut Random(seed));
        let profile = Profile::parse(&case.text).unwrap_or_else(|e| panic!("{e}\n{}", case.text));
        let id = SpiffeId::parse(&format!("spiffe://{}{}", case.domain, case.path)).unwrap();
        let csr = csr(&case, &keys);
        let plan = profile.prepare(&Request {
            csr: &csr,
            names: &case.asked,
            identity: &Identity::new(&id, "acme"),
            ttl_seconds: case.ttl,
            now: NOW,
            serial: Serial::from_random([7; 17]),
            issuer: &case.issuer,
        });
        let oracle = Oracle {
            profile: case.text.parse().unwrap(),
            case: &case,
        };
        match plan {
            Ok(plan) => {
                issued += 1;
                with_names += u64::from(!plan.sans.is_empty());
                assert_eq!(
                    oracle.compare(&plan),
                    Ok(()),
                    "seed {seed}: {plan:?}\n{}",
                    case.text
                );
            }
            Err(refusal) => {
                let against = oracle
                    .rest()
                    .and_then(|()| oracle.first_and_last())
                    .and_then(|_| {
                        let names = oracle.names()?;
                        oracle.common_name(&names)
                    });
                let Err(what) = against else {
                    panic!(
                        "seed {seed}: refused for no reason: {refusal}\n{}",
                        case.text
                    );
                };
                *refused.entry(what).or_default() += 1;
            }
        }
    }
    println!("{cases} cases, {issued} issued, {with_names} with names, refused: {refused:?}");
    // Enough on both sides, or the test says nothing.
    assert!(
        issued * 20 > cases && with_names * 25 > cases,
        "{issued} of {cases} issued"
    );
    assert!(refused.len() >= 8, "{refused:?}");
}
