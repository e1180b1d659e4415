//! rustls-webpki: what most callers in Rust verify with.

use std::time::{Duration, SystemTime};

use keywright_client::proto;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error,
    ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

/// Any purpose: profiles differ.
pub(super) struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Is the certificate good under the root, the last of the chain, for this use and at this
/// time; and, with a CRL that must speak for it, not revoked?
pub(super) fn judge(
    leaf: &[u8],
    chain: &[&[u8]],
    crl: Option<&[u8]>,
    usage: impl ExtendedKeyUsageValidator,
    at: Duration,
) -> Result<(), Error> {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(*der)).collect();
    let (root, between) = chain.split_last().unwrap();
    let anchors = [anchor_from_trusted_cert(root)?];
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf)?;
    let list = crl.map(BorrowedCertRevocationList::from_der).transpose()?;
    let list = list.map(CertRevocationList::from);
    let lists: Vec<_> = list.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::EndEntity)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let at = UnixTime::since_unix_epoch(at);
    let verified = leaf.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        between,
        at,
        usage,
        revocation,
        None,
    );
    verified.map(drop)
}

/// Is the certificate good under this root now, for a server of this name, and, with a CRL,
/// not revoked?
pub(crate) fn verify(
    root: &[u8],
    issued: &proto::IssuedCertificate,
    name: &str,
    crl: Option<&[u8]>,
) -> Result<(), Error> {
    let mut chain: Vec<&[u8]> = issued.chain_der.iter().map(AsRef::as_ref).collect();
    chain.push(root);
    let leaf = &issued.certificate_der;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    judge(leaf, &chain, crl, KeyUsage::server_auth(), now.unwrap())?;
    let leaf = CertificateDer::from(leaf.as_ref());
    let name = ServerName::try_from(name).unwrap();
    EndEntityCert::try_from(&leaf)?.verify_is_valid_for_subject_name(&name)
}
