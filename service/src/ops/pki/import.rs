//! An authority under an external root: our CSR went out, its certificate comes back.

use std::sync::Arc;

use keywright_pki::{IssuerCert, SubjectKey, check_import};

use super::{
    ceremony::{changed, on_record},
    seconds,
};
use crate::{
    authorities::Authority,
    authority::{IssuerId, Stage, Usage},
    error::{Error, Reason, Result},
    key::Revision,
    ops::{App, Call},
    policy::act,
};

/// The certificate that an external root made.
#[derive(Debug)]
pub struct ImportIssuer {
    /// Of which ceremony.
    pub id: IssuerId,
    /// DER.
    pub certificate: Vec<u8>,
    /// From the one above up to and with the root.
    pub chain: Vec<Vec<u8>>,
}

/// Takes the certificate that an external root made for our CSR.
///
/// # Errors
/// [`Reason::InvalidArgument`] when it is not for this key, not a CA's, or does not
/// follow from the chain that came with it, permission, store.
pub async fn import_issuer(
    app: &Arc<App>,
    call: &mut Call,
    request: ImportIssuer,
) -> Result<Arc<Authority>> {
    let grant = call.grant::<act::CommitCeremony>(app, None)?;
    let change = app.authorities.begin_change().await;
    let waiting = on_record(app, grant.tenant(), request.id)?;
    if waiting.issuer.stage != Stage::Waiting {
        return Err(Error::new(
            Reason::IssuerState,
            "this ceremony does not wait for a certificate",
        ));
    }
    call.entry
        .detail
        .insert("issuer", waiting.issuer.name.to_string());
    let refused = |text: String| Error::field(Reason::InvalidArgument, "certificate_der", text);
    let all: Vec<&[u8]> = std::iter::once(&request.certificate)
        .chain(&request.chain)
        .map(Vec::as_slice)
        .collect();
    if request.chain.is_empty() {
        return Err(refused(
            "its chain up to and with the root is missing".into(),
        ));
    }
    IssuerCert::from_chain(&all).map_err(|e| refused(e.to_string()))?;
    let public = waiting.issuer.key.public();
    let key = SubjectKey::from_spki(public.map_or(&[][..], |key| key.spki()))
        .map_err(|e| Error::internal(format!("the public key on record: {e}")))?;
    // By itself: constraints of those above are not its own.
    let own = check_import(&request.certificate, &key, seconds(call.now_ms))
        .map_err(|e| refused(e.to_string()))?;
    if let Some(why) = waiting.spec.misfit(&own) {
        return Err(refused(format!(
            "it is not what was approved: {why}; ask the external root for another, or plan anew"
        )));
    }
    let mut next = waiting.issuer.clone();
    next.certificate = request.certificate;
    next.chain = request.chain;
    next.stage = Stage::Active;
    next.usage = Usage {
        issue: true,
        crl: true,
    };
    next.revision = Revision(next.revision.0 + 1);
    app.store.change_issuer(&next).await.map_err(changed)?;
    change.publish_issuer(next)
}
