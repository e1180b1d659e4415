//! Who signed an approval: judged as at the door, by the CAs of the configuration alone.
//! Issuers that stand in the store do not count here: the store is what is in doubt.

use std::{sync::Arc, time::Duration};

use keywright_pki::{CertificateInfo, client_id};
use rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::danger::ClientCertVerifier,
};

use super::{TlsError, identity::TenantVerifier, tls::tenants};
use crate::{
    config::Config,
    recovery::{Approval, Approver},
};

/// Checks approvals.
#[derive(Debug)]
pub struct Approvers {
    provider: Arc<CryptoProvider>,
    verifier: TenantVerifier,
}

impl Approvers {
    /// With the client CAs of all tenants.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = tenants(config, &provider, &Arc::default())?;
        Ok(Self { provider, verifier })
    }

    /// Whose signature over this plan it is.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn judge(&self, approval: &Approval, plan: &str, now_ms: i64) -> Result<Approver, String> {
        approval.is_of(plan)?;
        let chain = CertificateDer::pem_slice_iter(approval.certificates.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("its certificates are not PEM: {e}"))?;
        let (leaf, between) = chain
            .split_first()
            .ok_or_else(|| "it has no certificate".to_owned())?;
        let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
        self.verifier
            .verify_client_cert(leaf, between, UnixTime::since_unix_epoch(now))
            .map_err(|e| format!("its certificate is not one of this appliance's users: {e}"))?;
        self.signed(approval, plan, leaf)?;
        let id = client_id(leaf).map_err(|e| e.to_string())?;
        let info = CertificateInfo::from_der(leaf).map_err(|e| e.to_string())?;
        Ok(Approver {
            id,
            spki: info.spki_sha256,
        })
    }

    fn signed(
        &self,
        approval: &Approval,
        plan: &str,
        leaf: &CertificateDer<'_>,
    ) -> Result<(), String> {
        let signature = hex::decode(&approval.signature)
            .map_err(|_| "its signature is not hexadecimal".to_owned())?;
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
        let scheme = SignatureScheme::from(approval.scheme);
        let known = self.provider.signature_verification_algorithms.mapping;
        let mut algorithms = known
            .iter()
            .filter(|(known, _)| *known == scheme)
            .flat_map(|(_, algorithms)| algorithms.iter());
        let message = Approval::message(plan);
        let good = algorithms.any(|a| leaf.verify_signature(*a, &message, &signature).is_ok());
        good.then_some(())
            .ok_or_else(|| "its signature is not by its certificate over this plan".to_owned())
    }
}
