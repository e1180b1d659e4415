//! The calls of `Pki`: certificates for services. What makes a certificate is tried again
//! like a read: its idempotency key makes the second try the same as the first.

use bytes::Bytes;

use crate::{Attempts, Client, Failure, proto, repeat};

/// The roots of a tenant and what stands below them, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What verifiers trust.
    pub roots: Vec<Bytes>,
    /// What lies between a root and a certificate.
    pub intermediates: Vec<Bytes>,
}

impl Client {
    /// One certificate for one CSR.
    ///
    /// # Errors
    /// What the server says; [`FailureKind::Data`](crate::FailureKind::Data) when the
    /// profile or a lint refuses it.
    pub async fn sign_csr(
        &self,
        request: proto::SignCsrRequest,
    ) -> Result<proto::IssuedCertificate, Failure> {
        let call = async || self.pki().sign_csr(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        response.certificate.ok_or_else(Failure::nonsense)
    }

    /// Many at once, each issued or refused by itself, in the order of the requests.
    ///
    /// # Errors
    /// What the server says of the call as a whole.
    pub async fn sign_csr_batch(
        &self,
        requests: Vec<proto::SignCsrRequest>,
    ) -> Result<Vec<Result<proto::IssuedCertificate, Failure>>, Failure> {
        let asked = requests.len();
        let request = proto::SignCsrBatchRequest { requests };
        let call = async || self.pki().sign_csr_batch(request.clone()).await;
        each(repeat(Attempts::default(), call).await?, asked)
    }

    /// What [`sign_csr`](Self::sign_csr) would do. Nothing is signed or stored.
    ///
    /// # Errors
    /// What the server says; what a profile refuses is part of the answer.
    pub async fn dry_run(
        &self,
        request: proto::SignCsrRequest,
    ) -> Result<proto::DryRunResponse, Failure> {
        let request = proto::DryRunRequest {
            request: Some(request),
        };
        let call = async || self.pki().dry_run(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// A new certificate for the one this connection was made with, and which one that was.
    ///
    /// # Errors
    /// What the server says.
    pub async fn renew(
        &self,
        request: proto::RenewRequest,
    ) -> Result<(proto::IssuedCertificate, proto::CertificateRef), Failure> {
        let call = async || self.pki().renew(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        response
            .certificate
            .zip(response.renewed)
            .ok_or_else(Failure::nonsense)
    }

    /// What is on record about a certificate, and its chain without the root, DER.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`](crate::FailureKind::NotFound) when there is none.
    pub async fn certificate(
        &self,
        issuer: &str,
        serial: &[u8],
    ) -> Result<(proto::CertificateRecord, Vec<Bytes>), Failure> {
        let request = proto::GetCertificateRequest {
            r#ref: Some(proto::CertificateRef {
                issuer: issuer.to_owned(),
                serial: Bytes::copy_from_slice(serial),
            }),
        };
        let call = async || self.pki().get_certificate(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        let record = response.certificate.ok_or_else(Failure::nonsense)?;
        Ok((record, response.chain_der))
    }

    /// One page of certificates on record, and the token of the next; empty: no more.
    ///
    /// # Errors
    /// What the server says.
    pub async fn search(
        &self,
        request: proto::SearchRequest,
    ) -> Result<(Vec<proto::CertificateRecord>, String), Failure> {
        let call = async || self.pki().search(request.clone()).await;
        let response = repeat(Attempts::default(), call).await?;
        Ok((response.certificates, response.next_page_token))
    }

    /// Takes a certificate back. It is tried again, because a revocation must get through:
    /// when the first answer got lost, the second says `already` and lists nothing.
    ///
    /// # Errors
    /// What the server says.
    pub async fn revoke(
        &self,
        request: proto::RevokeRequest,
    ) -> Result<proto::RevokeResponse, Failure> {
        let call = async || self.pki().revoke(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// The newest CRL of an issuer; `shard` 0 is the full one.
    ///
    /// # Errors
    /// What the server says.
    pub async fn crl(&self, issuer: &str, shard: u32) -> Result<proto::GetCrlResponse, Failure> {
        let request = proto::GetCrlRequest {
            issuer: issuer.to_owned(),
            shard,
        };
        let call = async || self.pki().get_crl(request.clone()).await;
        repeat(Attempts::default(), call).await
    }

    /// The roots and intermediates of our tenant.
    ///
    /// # Errors
    /// What the server says.
    pub async fn bundle(&self) -> Result<Bundle, Failure> {
        let call = async || self.pki().get_bundle(proto::GetBundleRequest {}).await;
        let response = repeat(Attempts::default(), call).await?;
        Ok(Bundle {
            roots: response.roots_der,
            intermediates: response.intermediates_der,
        })
    }
}

/// Certificates and failures of a batch, put together.
fn each(
    response: proto::SignCsrBatchResponse,
    asked: usize,
) -> Result<Vec<Result<proto::IssuedCertificate, Failure>>, Failure> {
    if response.certificates.len() != asked {
        return Err(Failure::nonsense());
    }
    let mut outcomes: Vec<_> = response.certificates.into_iter().map(Ok).collect();
    for error in &response.errors {
        let index = usize::try_from(error.index).unwrap_or(usize::MAX);
        *outcomes.get_mut(index).ok_or_else(Failure::nonsense)? = Err(Failure::csr(error));
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    #[test]
    fn a_batch_has_an_outcome_for_each_request() {
        let refused = |index| proto::CsrError {
            index,
            code: tonic::Code::PermissionDenied.into(),
            reason: "PERMISSION_DENIED".into(),
            message: "no".into(),
        };
        let answer = |index| proto::SignCsrBatchResponse {
            certificates: vec![proto::IssuedCertificate::default(); 2],
            errors: vec![refused(index)],
        };
        let outcomes = each(answer(1), 2).unwrap();
        assert!(outcomes.first().is_some_and(Result::is_ok));
        let failure = outcomes.into_iter().nth(1).unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Denied);
        assert_eq!(failure.reason(), Some("PERMISSION_DENIED"));
        assert!(each(answer(2), 2).is_err(), "an index that is not there");
        assert!(each(answer(1), 3).is_err(), "an answer is missing");
    }
}
