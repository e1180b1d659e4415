//! Certificate revocation lists (RFC 5280 §5), written directly: a hundred thousand
//! entries are made, read again and signed in less than a second.

mod lint;

use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::{
    Findings, IssuerCert, Serial, Unsigned, extension, oid, pem,
    unsigned::{Document, Sealed},
    wire::{Writer, tag},
};

/// What a list says beside its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlPlan {
    /// Rises with every list of the issuer, also after a restore: derive it from time.
    pub number: u64,
    /// Unix seconds.
    pub this_update: u64,
    /// Unix seconds; the last second at which the list is to be used (R7).
    pub next_update: u64,
    /// Which certificates it is about.
    pub scope: Scope,
}

/// Which certificates a list is about (R4, R5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the issuer, without an issuing distribution point: some verifiers refuse it.
    Full,
    /// End entities whose certificates name this URL.
    Shard {
        /// Equal to their CRL distribution point; `http`.
        url: String,
    },
}

/// One certificate that is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Its number.
    pub serial: Serial,
    /// Unix seconds.
    pub revoked_at: u64,
    /// `None` is unspecified, which is not written (R3).
    pub reason: Option<Reason>,
    /// Since when the key is suspect, in Unix seconds.
    pub invalidity_date: Option<u64>,
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). Unspecified is left out; 7 is not
/// used; hold (6) and removeFromCRL (8) would take a revocation back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Somebody else has the key, or may have it.
    KeyCompromise = 1,
    /// The same of a CA's key.
    CaCompromise = 2,
    /// The subject's name or place has changed.
    AffiliationChanged = 3,
    /// Another certificate takes its place.
    Superseded = 4,
    /// No longer needed.
    CessationOfOperation = 5,
    /// The subject may no longer have it.
    PrivilegeWithdrawn = 9,
}

impl Reason {
    /// The content of the ENUMERATED; `None` for a reason that is never written.
    pub(crate) fn from_code(code: &[u8]) -> Option<Self> {
        Some(match code {
            [1] => Self::KeyCompromise,
            [2] => Self::CaCompromise,
            [3] => Self::AffiliationChanged,
            [4] => Self::Superseded,
            [5] => Self::CessationOfOperation,
            [9] => Self::PrivilegeWithdrawn,
            _ => return None,
        })
    }
}

/// The bytes of a list, not signed and not linted.
#[derive(Debug)]
pub struct CrlDraft<'a> {
    plan: CrlPlan,
    entries: Vec<Revoked>,
    issuer: &'a IssuerCert,
    tbs: Vec<u8>,
}

/// A signed list, read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    der: Vec<u8>,
    number: u64,
}

/// Not one certificate list in DER with serials that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not one X.509 certificate revocation list in DER")]
pub struct NotACrl;

/// The serials on a list, in its order. Nothing is verified.
///
/// # Errors
/// [`NotACrl`].
pub fn revoked_serials(der: &[u8]) -> Result<Vec<Serial>, NotACrl> {
    let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| NotACrl)?;
    if !rest.is_empty() {
        return Err(NotACrl);
    }
    list.iter_revoked_certificates()
        .map(|entry| Serial::from_bytes(entry.raw_serial()).map_err(|_| NotACrl))
        .collect()
}

/// About what one entry takes, in bytes.
const ENTRY_LEN: usize = 56;

impl<'a> CrlDraft<'a> {
    /// Writes the list; the entries keep their order, and each serial may come once.
    #[must_use]
    pub fn new(
        plan: CrlPlan,
        issuer: &'a IssuerCert,
        entries: impl IntoIterator<Item = Revoked>,
    ) -> Self {
        let entries: Vec<Revoked> = entries.into_iter().collect();
        let tbs = tbs(&plan, issuer, &entries);
        Self {
            plan,
            entries,
            issuer,
            tbs,
        }
    }

    /// Reads the bytes again and compares them with the plan and the rules. `now` is in
    /// Unix seconds.
    ///
    /// # Errors
    /// Everything that was found.
    pub fn lint(self, now: u64) -> Result<Unsigned<Crl>, Findings> {
        lint::crl(&self.tbs, &self.plan, self.issuer, &self.entries, now)?;
        let (algorithm, key) = (self.issuer.algorithm(), self.issuer.key().clone());
        Ok(Unsigned::new(self.tbs, algorithm, key, self.plan.number))
    }
}

/// `TBSCertList` (RFC 5280 §5.1.2).
fn tbs(plan: &CrlPlan, issuer: &IssuerCert, entries: &[Revoked]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(1024 + ENTRY_LEN * entries.len());
    writer.nest(tag::SEQUENCE, |w| {
        w.put(tag::INTEGER, &[V2]);
        w.raw(issuer.algorithm().der());
        w.raw(issuer.subject_der());
        w.time(plan.this_update);
        w.time(plan.next_update);
        if !entries.is_empty() {
            w.nest(tag::SEQUENCE, |w| entries.iter().for_each(|e| entry(w, e)));
        }
        w.nest(tag::constructed(0), |w| {
            w.nest(tag::SEQUENCE, |w| {
                extension::authority_key_id(w, issuer.ski());
                extension::put(w, &oid::CRL_NUMBER, false, |w| w.unsigned(plan.number));
                if let Scope::Shard { url } = &plan.scope {
                    IssuingDistributionPoint { url }.write(w);
                }
            });
        });
    });
    writer.finish()
}

/// `Version ::= v2(1)`.
const V2: u8 = 1;

fn entry(w: &mut Writer, revoked: &Revoked) {
    w.nest(tag::SEQUENCE, |w| {
        w.put(tag::INTEGER, revoked.serial.as_bytes());
        w.time(revoked.revoked_at);
        if revoked.reason.is_none() && revoked.invalidity_date.is_none() {
            return;
        }
        w.nest(tag::SEQUENCE, |w| {
            if let Some(reason) = revoked.reason {
                extension::put(w, &oid::REASON_CODE, false, |w| {
                    w.put(tag::ENUMERATED, &[reason as u8]);
                });
            }
            if let Some(date) = revoked.invalidity_date {
                extension::put(w, &oid::INVALIDITY_DATE, false, |w| {
                    w.generalized_time(date)
                });
            }
        });
    });
}

/// RFC 5280 §5.2.5: this URL, end entities only. Critical.
struct IssuingDistributionPoint<'a> {
    url: &'a str,
}

impl IssuingDistributionPoint<'_> {
    fn write(&self, w: &mut Writer) {
        extension::put(w, &oid::ISSUING_DISTRIBUTION_POINT, true, |w| {
            w.nest(tag::SEQUENCE, |w| {
                extension::distribution_point_name(w, self.url);
                // onlyContainsUserCerts
                w.put(tag::primitive(1), &[0xff]);
            });
        });
    }
}

impl Crl {
    /// The DER, as a `.crl` file holds it.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `-----BEGIN X509 CRL-----` (RFC 7468 §6).
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("X509 CRL", &self.der)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Sealed for Crl {}

impl Document for Crl {
    type Rest = u64;

    fn finish(der: Vec<u8>, number: u64) -> Option<Self> {
        Some(Self { der, number })
    }

    fn signed(&self) -> Option<&[u8]> {
        Some(&self.der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        KeyKind,
        testing::{DAY, NOW, TestKey, root, serial},
    };

    fn plan(scope: Scope) -> CrlPlan {
        CrlPlan {
            number: NOW,
            this_update: NOW - 10,
            next_update: NOW + DAY - 11,
            scope,
        }
    }

    fn shard() -> Scope {
        Scope::Shard {
            url: "http://crl.example.com/1.crl".into(),
        }
    }

    fn revoked(n: u8) -> Revoked {
        Revoked {
            serial: serial(n),
            revoked_at: NOW - 5,
            reason: n.is_multiple_of(2).then_some(Reason::KeyCompromise),
            invalidity_date: n.is_multiple_of(3).then_some(NOW - DAY),
        }
    }

    /// 2.5.29.28 and not subjectInfoAccess, critical, [0][0][6] and [1] TRUE.
    #[test]
    fn the_distribution_point_is_these_bytes() {
        let mut writer = Writer::default();
        IssuingDistributionPoint { url: "http://c/1" }.write(&mut writer);
        assert_eq!(
            writer.finish(),
            b"\x30\x1f\x06\x03\x55\x1d\x1c\x01\x01\xff\x04\x15\
              \x30\x13\xa0\x0e\xa0\x0c\x86\x0ahttp://c/1\x81\x01\xff"
                .as_slice()
        );
    }

    #[test]
    fn every_bit_counts() {
        let (_, issuer) = root(&TestKey::new(KeyKind::EcP256));
        for (scope, count) in [(Scope::Full, 0), (shard(), 7)] {
            let draft = CrlDraft::new(plan(scope), &issuer, (1..=count).map(revoked));
            let lint =
                |tbs: &[u8]| lint::crl(tbs, &draft.plan, &issuer, &draft.entries, NOW).is_ok();
            assert!(lint(&draft.tbs));
            for at in 0..draft.tbs.len() {
                for bit in 0..8 {
                    let mut tbs = draft.tbs.clone();
                    tbs[at] ^= 1 << bit;
                    assert!(!lint(&tbs), "octet {at} bit {bit}");
                }
                assert!(!lint(&draft.tbs[..at]));
            }
        }
    }

    #[test]
    fn a_bad_plan_is_found() {
        let (_, issuer) = root(&TestKey::new(KeyKind::EcP256));
        let rules = |plan: CrlPlan, entries: &[Revoked]| {
            let lint = CrlDraft::new(plan, &issuer, entries.iter().copied()).lint(NOW);
            lint.err()
                .map(|found| found.iter().map(|f| f.rule).collect::<Vec<_>>())
        };
        let good = || plan(Scope::Full);
        assert_eq!(rules(good(), &[revoked(2), revoked(1)]), None);
        assert_eq!(
            rules(good(), &[revoked(2), revoked(1), revoked(2)]),
            Some(vec!["R2"])
        );
        assert_eq!(
            rules(
                CrlPlan {
                    number: 0,
                    ..good()
                },
                &[]
            ),
            Some(vec!["R1"])
        );
        for (this_update, next_update) in [(NOW + 1, NOW + 2), (NOW - 2, NOW - 1), (NOW, NOW)] {
            let plan = CrlPlan {
                this_update,
                next_update,
                ..good()
            };
            assert_eq!(rules(plan, &[]), Some(vec!["R7"]));
        }
        let https = Scope::Shard {
            url: "https://crl.example.com/".into(),
        };
        assert_eq!(rules(plan(https), &[]), Some(vec!["R4"]));
        let future = Revoked {
            revoked_at: NOW + 1,
            ..revoked(1)
        };
        assert_eq!(rules(good(), &[future]), Some(vec!["R3"]));
    }

    #[test]
    fn a_list_is_signed_and_read_again() {
        let key = TestKey::new(KeyKind::EcP256);
        let (_, issuer) = root(&key);
        let draft = || {
            CrlDraft::new(plan(shard()), &issuer, [revoked(1)])
                .lint(NOW)
                .unwrap()
        };
        let crl = key.sign(draft());
        assert_eq!(crl.number(), NOW);
        assert!(crl.pem().starts_with("-----BEGIN X509 CRL-----\n"));
        let other = TestKey::new(KeyKind::EcP256).signature(&draft());
        assert!(draft().attach(&other).is_err());
    }
}
