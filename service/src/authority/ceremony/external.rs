//! What an external root may make of our CSR: what was approved, or less.

use keywright_pki::IssuerCert;

use super::{Ceremony, DAY_SECONDS};

impl Ceremony {
    /// Why this certificate is not what was approved; nothing: it is, or is narrower.
    #[must_use]
    pub fn misfit(&self, certificate: &IssuerCert) -> Option<String> {
        if certificate.subject_der() != self.subject.as_der() {
            return Some("its subject is not the planned one".into());
        }
        if let Some(planned) = self.path_len {
            let deeper = |n: Option<u8>| n.is_none_or(|n| n > planned);
            if deeper(certificate.path_len()) {
                return Some(format!(
                    "its path length is {}, and the plan says {planned}",
                    certificate
                        .path_len()
                        .map_or("not limited".into(), |n| n.to_string())
                ));
            }
        }
        let lasts = certificate
            .not_after()
            .saturating_sub(certificate.not_before());
        if lasts > u64::from(self.validity_days) * DAY_SECONDS {
            return Some(format!(
                "it lasts {} days, and the plan says {}",
                lasts / DAY_SECONDS,
                self.validity_days
            ));
        }
        let planned = &self.constraints;
        let binds = certificate.constraints().iter().any(|c| c == planned);
        (!planned.is_empty() && !binds)
            .then(|| "its name constraints are not the planned ones".into())
    }
}
