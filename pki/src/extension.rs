//! The extensions of a certificate, always in this order (RFC 5280 §4.2, rule C19).

use std::net::IpAddr;

use crate::{
    Kind, NameConstraints, Plan, San, Subtree, Urls, oid,
    wire::{Writer, tag},
};

/// Bits of `KeyUsage` (RFC 5280 §4.2.1.3), the first bit being the highest.
pub(crate) mod key_usage {
    pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
    pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
    pub(crate) const KEY_AGREEMENT: u8 = 0x08;
    pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
    pub(crate) const CRL_SIGN: u8 = 0x02;
}

/// One `Extension`; `critical` is written only when true (DEFAULT FALSE).
pub(crate) fn put(w: &mut Writer, oid: &[u8], critical: bool, value: impl FnOnce(&mut Writer)) {
    w.nest(tag::SEQUENCE, |w| {
        w.put(tag::OID, oid);
        if critical {
            w.put(tag::BOOLEAN, &[0xff]);
        }
        w.nest(tag::OCTET_STRING, value);
    });
}

/// Writes the extensions of a certificate, one behind the other.
pub(crate) fn certificate(w: &mut Writer, plan: &Plan, issuer_ski: &[u8]) {
    authority_key_id(w, issuer_ski);
    if plan.ski {
        put(w, &oid::SUBJECT_KEY_ID, false, |w| {
            w.put(tag::OCTET_STRING, &plan.key.key_id())
        });
    }
    put(w, &oid::KEY_USAGE, true, |w| {
        named_bits(w, key_usage_bits(&plan.kind))
    });
    policies(w, &plan.kind);
    if !plan.sans.is_empty() {
        put(w, &oid::SUBJECT_ALT_NAME, plan.subject.is_empty(), |w| {
            w.nest(tag::SEQUENCE, |w| {
                plan.sans.iter().for_each(|san| general_name(w, san))
            });
        });
    }
    basic_constraints(w, &plan.kind);
    if let Kind::Ca { constraints, .. } = &plan.kind
        && !constraints.is_empty()
    {
        put(w, &oid::NAME_CONSTRAINTS, true, |w| {
            name_constraints(w, constraints)
        });
    }
    ext_key_usage(w, &plan.kind);
    crl_distribution_points(w, &plan.urls);
    authority_info_access(w, &plan.urls);
    if plan.kind.no_rev_avail() {
        put(w, &oid::NO_REV_AVAIL, false, |w| w.put(tag::NULL, &[]));
    }
    if plan.kind == Kind::OcspResponder {
        put(w, &oid::OCSP_NO_CHECK, false, |w| w.put(tag::NULL, &[]));
    }
}

/// What a CA asks another for: cA, keyCertSign and cRLSign.
pub(crate) fn ca_request(w: &mut Writer) {
    let kind = Kind::Ca {
        path_len: None,
        constraints: NameConstraints::default(),
    };
    put(w, &oid::KEY_USAGE, true, |w| {
        named_bits(w, key_usage_bits(&kind))
    });
    basic_constraints(w, &kind);
}

/// The issuer's SKI as it stands in the issuer's certificate (rule C11).
pub(crate) fn authority_key_id(w: &mut Writer, issuer_ski: &[u8]) {
    put(w, &oid::AUTHORITY_KEY_ID, false, |w| {
        w.nest(tag::SEQUENCE, |w| w.put(tag::primitive(0), issuer_ski));
    });
}

/// Rule C13.
pub(crate) fn key_usage_bits(kind: &Kind) -> u8 {
    use self::key_usage::{
        CRL_SIGN, DIGITAL_SIGNATURE, KEY_AGREEMENT, KEY_CERT_SIGN, KEY_ENCIPHERMENT,
    };
    match kind {
        Kind::Leaf { key_usage, .. } => {
            DIGITAL_SIGNATURE
                | if key_usage.key_encipherment {
                    KEY_ENCIPHERMENT
                } else {
                    0
                }
                | if key_usage.key_agreement {
                    KEY_AGREEMENT
                } else {
                    0
                }
        }
        Kind::Ca { .. } => KEY_CERT_SIGN | CRL_SIGN,
        Kind::OcspResponder => DIGITAL_SIGNATURE,
    }
}

/// A named bit list has no zero bits at its end (X.690 §11.2.2).
fn named_bits(w: &mut Writer, bits: u8) {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap_or(0);
    w.put(tag::BIT_STRING, &[unused, bits]);
}

fn policies(w: &mut Writer, kind: &Kind) {
    if let Kind::Leaf { policies, .. } = kind
        && !policies.is_empty()
    {
        put(w, &oid::CERTIFICATE_POLICIES, false, |w| {
            w.nest(tag::SEQUENCE, |w| {
                for policy in policies {
                    w.nest(tag::SEQUENCE, |w| w.put(tag::OID, policy.as_bytes()));
                }
            });
        });
    }
}

fn general_name(w: &mut Writer, san: &San) {
    match san {
        San::Dns(name) => w.put(tag::primitive(2), name.as_str().as_bytes()),
        San::Uri(uri) => w.put(tag::primitive(6), uri.as_str().as_bytes()),
        San::Ip(address) => w.put(tag::primitive(7), &octets(*address)),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Rule C14: in every certificate; `cA` is DEFAULT FALSE, so a leaf's is empty.
fn basic_constraints(w: &mut Writer, kind: &Kind) {
    put(w, &oid::BASIC_CONSTRAINTS, true, |w| {
        w.nest(tag::SEQUENCE, |w| {
            if let Kind::Ca { path_len, .. } = kind {
                w.put(tag::BOOLEAN, &[0xff]);
                match path_len {
                    Some(n @ 0x80..) => w.put(tag::INTEGER, &[0, *n]),
                    Some(n) => w.put(tag::INTEGER, &[*n]),
                    None => {}
                }
            }
        });
    });
}

/// RFC 5280 §4.2.1.10; `minimum` is DEFAULT 0.
fn name_constraints(w: &mut Writer, constraints: &NameConstraints) {
    w.nest(tag::SEQUENCE, |w| {
        for (n, list) in [(0, &constraints.permitted), (1, &constraints.excluded)] {
            if list.is_empty() {
                continue;
            }
            w.nest(tag::constructed(n), |w| {
                for base in list {
                    w.nest(tag::SEQUENCE, |w| subtree(w, base));
                }
            });
        }
    });
}

fn subtree(w: &mut Writer, base: &Subtree) {
    match base {
        Subtree::Dns(name) => w.put(tag::primitive(2), name.as_bytes()),
        Subtree::UriHost(host) => w.put(tag::primitive(6), host.as_bytes()),
        Subtree::Ip { address, prefix } => {
            let mut content = octets(*address);
            let bits = content.len() * 8;
            let mask = |bit: usize| u8::from(bit < usize::from(*prefix));
            let octet = |first: usize| (first..first + 8).fold(0, |sum, bit| sum << 1 | mask(bit));
            content.extend((0..bits).step_by(8).map(octet));
            w.put(tag::primitive(7), &content);
        }
    }
}

/// Rule C17: a CA has none.
fn ext_key_usage(w: &mut Writer, kind: &Kind) {
    let arcs = match kind {
        Kind::Ca { .. } => return,
        Kind::OcspResponder => vec![oid::KP_OCSP_SIGNING],
        Kind::Leaf { ext_key_usage, .. } => ext_key_usage.iter().map(|eku| eku.arc()).collect(),
    };
    put(w, &oid::EXT_KEY_USAGE, false, |w| {
        w.nest(tag::SEQUENCE, |w| {
            arcs.iter().for_each(|arc| w.put(tag::OID, &oid::kp(*arc)))
        });
    });
}

fn crl_distribution_points(w: &mut Writer, urls: &Urls) {
    if let Some(url) = &urls.crl_dp {
        put(w, &oid::CRL_DISTRIBUTION_POINTS, false, |w| {
            w.nest(tag::SEQUENCE, |w| {
                w.nest(tag::SEQUENCE, |w| distribution_point_name(w, url));
            });
        });
    }
}

/// `distributionPoint [0] EXPLICIT { fullName [0] { URI } }`, the same in a certificate
/// and in a CRL (RFC 5280 §4.2.1.13, §5.2.5).
pub(crate) fn distribution_point_name(w: &mut Writer, url: &str) {
    w.nest(tag::constructed(0), |w| {
        w.nest(tag::constructed(0), |w| {
            w.put(tag::primitive(6), url.as_bytes())
        });
    });
}

/// RFC 5280 §4.2.2.1.
fn authority_info_access(w: &mut Writer, urls: &Urls) {
    let access = [
        (&oid::AD_OCSP, &urls.ocsp),
        (&oid::AD_CA_ISSUERS, &urls.ca_issuers),
    ];
    if access.iter().all(|(_, url)| url.is_none()) {
        return;
    }
    put(w, &oid::AUTHORITY_INFO_ACCESS, false, |w| {
        w.nest(tag::SEQUENCE, |w| {
            for (method, url) in access {
                let Some(url) = url else { continue };
                w.nest(tag::SEQUENCE, |w| {
                    w.put(tag::OID, method);
                    w.put(tag::primitive(6), url.as_bytes());
                });
            }
        });
    });
}
