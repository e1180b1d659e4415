//! `keywright.v1.Pki`: certificates for services.

use keywright_proto::v1::{
    DryRunRequest, DryRunResponse, GetBundleRequest, GetBundleResponse, GetCertificateRequest,
    GetCertificateResponse, GetCrlRequest, GetCrlResponse, RenewRequest, RenewResponse,
    RevokeRequest, RevokeResponse, SearchRequest, SearchResponse, SignCsrBatchRequest,
    SignCsrBatchResponse, SignCsrRequest, SignCsrResponse, pki_server::Pki,
};

use super::{convert, door::door};
use crate::ops::pki;

door! {
    /// The handlers.
    PkiDoor: Pki {
        sign_csr(SignCsrRequest) -> SignCsrResponse = |app, call, m| {
            let issued = pki::sign_csr(app, call, convert::sign_csr(m)?).await?;
            Ok(SignCsrResponse { certificate: Some(convert::issued(app, issued)?) })
        };
        sign_csr_batch(SignCsrBatchRequest) -> SignCsrBatchResponse = |app, call, m| {
            let requests = convert::sign_csr_batch(m, &app.limits)?;
            let outcomes = pki::sign_csr_batch(app, call, requests).await?;
            convert::issued_batch(app, outcomes)
        };
        dry_run(DryRunRequest) -> DryRunResponse = |app, call, m| {
            let request = convert::sign_csr(m.request.unwrap_or_default())?;
            Ok(convert::dry(pki::dry_run(app, call, request).await?))
        };
        renew(RenewRequest) -> RenewResponse = |app, call, m| {
            let renewed = pki::renew(app, call, convert::renew(m)?).await?;
            convert::renewed(app, renewed)
        };
        get_certificate(GetCertificateRequest) -> GetCertificateResponse = |app, call, m| {
            let (issuer, serial) = convert::certificate_ref(m.r#ref)?;
            let (found, chain) = pki::get_certificate(app, call, &issuer, serial).await?;
            Ok(GetCertificateResponse {
                certificate: Some(convert::record(&found)),
                chain_der: convert::ders(chain),
            })
        };
        search(SearchRequest) -> SearchResponse = |app, call, m| {
            let find = convert::find(m)?;
            Ok(convert::certificates(&pki::search(app, call, find).await?))
        };
        revoke(RevokeRequest) -> RevokeResponse = |app, call, m| {
            Ok(convert::revoked(pki::revoke(app, call, convert::revoke(m)?).await?))
        };
        get_crl(GetCrlRequest) -> GetCrlResponse = |app, call, m| {
            let issuer = convert::authority_name("issuer", &m.issuer)?;
            Ok(convert::crl(pki::get_crl(app, call, &issuer, m.shard).await?))
        };
        get_bundle(GetBundleRequest) -> GetBundleResponse = |app, call, _m| {
            let (roots, between) = pki::bundle(app, call).await?;
            Ok(GetBundleResponse {
                roots_der: convert::ders(roots),
                intermediates_der: convert::ders(between),
            })
        };
    }
}
