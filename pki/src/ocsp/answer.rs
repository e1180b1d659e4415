//! Writing an answer (RFC 6960 §4.2) and reading it again before it is signed.

mod lint;

use super::{CertId, Nonce, OcspResponder};
use crate::{
    Findings, Reason, Unsigned, extension, oid,
    unsigned::{Document, Sealed},
    wire::{Cursor, Writer, tag},
};

/// What is known of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertStatus {
    /// Issued, stored and not revoked (R8).
    Good,
    /// Revoked.
    Revoked {
        /// Unix seconds.
        at: u64,
        /// `None` is unspecified, which is not written.
        reason: Option<Reason>,
    },
    /// Never issued here.
    Unknown,
}

/// The status of one certificate of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// From the request.
    pub cert_id: CertId,
    /// What is known.
    pub status: CertStatus,
}

/// Everything an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspPlan {
    /// Unix seconds.
    pub produced_at: u64,
    /// Since when the statuses are known to be so, in Unix seconds.
    pub this_update: u64,
    /// The last second at which the answer is to be used, in Unix seconds.
    pub next_update: u64,
    /// At least one, in the order of the request.
    pub answers: Vec<Answer>,
    /// From the request; an answer without may be cached (RFC 5019).
    pub nonce: Option<Nonce>,
}

/// The bytes of an answer, not signed and not linted.
#[derive(Debug)]
pub struct OcspDraft<'a> {
    plan: OcspPlan,
    responder: &'a OcspResponder,
    tbs: Vec<u8>,
}

/// A signed answer, read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponse {
    der: Vec<u8>,
}

impl<'a> OcspDraft<'a> {
    /// Writes the answer.
    #[must_use]
    pub fn new(plan: OcspPlan, responder: &'a OcspResponder) -> Self {
        let tbs = tbs(&plan, responder);
        Self {
            plan,
            responder,
            tbs,
        }
    }

    /// Reads the bytes again and compares them with the plan and the rules. `now` is in
    /// Unix seconds.
    ///
    /// # Errors
    /// Everything that was found.
    pub fn lint(self, now: u64) -> Result<Unsigned<OcspResponse>, Findings> {
        lint::answer(&self.tbs, &self.plan, self.responder, now)?;
        let responder = self.responder;
        let certificate = responder.der().to_vec();
        Ok(Unsigned::new(
            self.tbs,
            responder.algorithm(),
            responder.key().clone(),
            certificate,
        ))
    }
}

/// `ResponseData`; the version is DEFAULT v1.
fn tbs(plan: &OcspPlan, responder: &OcspResponder) -> Vec<u8> {
    let mut writer = Writer::with_capacity(512);
    writer.nest(tag::SEQUENCE, |w| {
        w.nest(tag::constructed(2), |w| {
            w.put(tag::OCTET_STRING, &responder.key_hash())
        });
        w.generalized_time(plan.produced_at);
        w.nest(tag::SEQUENCE, |w| {
            plan.answers.iter().for_each(|a| single(w, a, plan))
        });
        if let Some(nonce) = &plan.nonce {
            w.nest(tag::constructed(1), |w| {
                w.nest(tag::SEQUENCE, |w| {
                    extension::put(w, &oid::OCSP_NONCE, false, |w| {
                        w.put(tag::OCTET_STRING, nonce.as_bytes());
                    });
                });
            });
        }
    });
    writer.finish()
}

/// `SingleResponse`.
fn single(w: &mut Writer, answer: &Answer, plan: &OcspPlan) {
    w.nest(tag::SEQUENCE, |w| {
        w.raw(answer.cert_id.as_der());
        match answer.status {
            CertStatus::Good => w.put(tag::primitive(0), &[]),
            CertStatus::Unknown => w.put(tag::primitive(2), &[]),
            CertStatus::Revoked { at, reason } => w.nest(tag::constructed(1), |w| {
                w.generalized_time(at);
                if let Some(reason) = reason {
                    w.nest(tag::constructed(0), |w| {
                        w.put(tag::ENUMERATED, &[reason as u8])
                    });
                }
            }),
        }
        w.generalized_time(plan.this_update);
        w.nest(tag::constructed(0), |w| {
            w.generalized_time(plan.next_update)
        });
    });
}

impl OcspResponse {
    /// The DER, as it goes to the client.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl Sealed for OcspResponse {}

impl Document for OcspResponse {
    /// The responder's certificate.
    type Rest = Vec<u8>;

    fn finish(signed: Vec<u8>, _certificate: Vec<u8>) -> Option<Self> {
        let mut writer = Writer::with_capacity(signed.len() + 64);
        writer.nest(tag::SEQUENCE, |w| {
            w.put(tag::ENUMERATED, &[0]);
            w.nest(tag::constructed(0), |w| {
                w.nest(tag::SEQUENCE, |w| {
                    w.put(tag::OID, &oid::OCSP_BASIC);
                    w.put(tag::OCTET_STRING, &signed);
                });
            });
        });
        Some(Self {
            der: writer.finish(),
        })
    }

    fn signed(&self) -> Option<&[u8]> {
        let mut response = Cursor::within(tag::SEQUENCE, &self.der)?;
        let successful = response.take(tag::ENUMERATED)? == [0];
        let mut wrapped = response.enter(tag::constructed(0))?;
        let mut bytes = wrapped.enter(tag::SEQUENCE)?;
        let basic = bytes.take(tag::OID)? == oid::OCSP_BASIC;
        let signed = bytes.take(tag::OCTET_STRING)?;
        bytes.end()?;
        wrapped.end()?;
        response.end()?;
        (successful && basic).then_some(signed)
    }

    fn behind(certificate: &Vec<u8>) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.nest(tag::constructed(0), |w| {
            w.nest(tag::SEQUENCE, |w| w.raw(certificate))
        });
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Draft, KeyKind, Kind, OcspRequest,
        testing::{NOW, TestKey, leaf_plan, root, subject},
    };

    fn responder() -> OcspResponder {
        let key = TestKey::new(KeyKind::EcP256);
        let (_, issuer) = root(&key);
        let leaf = leaf_plan(TestKey::new(KeyKind::EcP256).public());
        let leaf = key.sign(Draft::new(leaf, &issuer).unwrap().lint(NOW).unwrap());
        assert!(OcspResponder::from_der(leaf.der(), &issuer).is_err());
        let mut plan = leaf_plan(TestKey::new(KeyKind::EcP256).public());
        plan.kind = Kind::OcspResponder;
        (plan.subject, plan.sans) = (subject("OCSP"), vec![]);
        let certificate = key.sign(Draft::new(plan, &issuer).unwrap().lint(NOW).unwrap());
        let (_, stranger) = root(&TestKey::new(KeyKind::EcP256));
        assert!(OcspResponder::from_der(certificate.der(), &stranger).is_err());
        OcspResponder::from_der(certificate.der(), &issuer).unwrap()
    }

    fn plan() -> OcspPlan {
        let ids = super::super::request::tests::request(3, Some(b"nonce"), 20);
        let request = OcspRequest::from_der(&ids).unwrap();
        let revoked = CertStatus::Revoked {
            at: NOW - 9,
            reason: Some(Reason::Superseded),
        };
        let statuses = [CertStatus::Good, CertStatus::Unknown, revoked];
        let answers = request.cert_ids.into_iter().zip(statuses);
        OcspPlan {
            produced_at: NOW - 1,
            this_update: NOW - 2,
            next_update: NOW + 3600,
            answers: answers
                .map(|(cert_id, status)| Answer { cert_id, status })
                .collect(),
            nonce: request.nonce,
        }
    }

    #[test]
    fn every_bit_counts() {
        let (responder, plan) = (responder(), plan());
        let tbs = tbs(&plan, &responder);
        assert_eq!(lint::answer(&tbs, &plan, &responder, NOW), Ok(()));
        for at in 0..tbs.len() {
            assert!(lint::answer(&tbs[..at], &plan, &responder, NOW).is_err());
            for bit in 0..8 {
                let mut bad = tbs.clone();
                bad[at] ^= 1 << bit;
                assert!(
                    lint::answer(&bad, &plan, &responder, NOW).is_err(),
                    "octet {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn a_bad_plan_is_found() {
        type Change = (&'static str, fn(&mut OcspPlan));
        let changes: [Change; 6] = [
            ("R8", |p| p.answers.clear()),
            ("R8", |p| {
                p.answers[0].status = CertStatus::Revoked {
                    at: NOW + 1,
                    reason: None,
                }
            }),
            ("R9", |p| p.next_update = NOW + 15 * 86_400),
            ("R12", |p| p.this_update = NOW + 1),
            ("R12", |p| p.next_update = NOW),
            ("R12", |p| p.produced_at = NOW - 3),
        ];
        let responder = responder();
        for (rule, change) in changes {
            let mut plan = plan();
            change(&mut plan);
            let found = OcspDraft::new(plan, &responder).lint(NOW).unwrap_err();
            assert!(found.iter().any(|f| f.rule == rule), "{rule}: {found}");
        }
    }
}
