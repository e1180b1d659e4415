//! rustls-webpki: what most callers in Rust verify with.

use keywright_client::proto;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error, ExpirationPolicy,
    KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert, aws_lc_rs,
};

const ALGORITHMS: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = &[
    aws_lc_rs::ECDSA_P256_SHA256,
    aws_lc_rs::ECDSA_P384_SHA384,
    aws_lc_rs::ED25519,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
];

/// Is the certificate good under this root, for a server of this name, and, with a CRL,
/// not revoked?
pub(crate) fn verify(
    root: &[u8],
    issued: &proto::IssuedCertificate,
    name: &str,
    crl: Option<&[u8]>,
) -> Result<(), Error> {
    let root = CertificateDer::from(root);
    let leaf = CertificateDer::from(issued.certificate_der.as_ref());
    let chain: Vec<_> = issued
        .chain_der
        .iter()
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    let anchors = [anchor_from_trusted_cert(&root)?];
    let leaf = EndEntityCert::try_from(&leaf)?;
    let lists: Vec<CertRevocationList<'_>> = crl
        .map(|der| BorrowedCertRevocationList::from_der(der).unwrap().into())
        .into_iter()
        .collect();
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
    let revocation = crl.map(|_| {
        RevocationOptionsBuilder::new(&lists)
            .unwrap()
            .with_depth(RevocationCheckDepth::EndEntity)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    leaf.verify_for_usage(
        ALGORITHMS,
        &anchors,
        &chain,
        UnixTime::now(),
        KeyUsage::server_auth(),
        revocation,
        None,
    )?;
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).unwrap())
}
