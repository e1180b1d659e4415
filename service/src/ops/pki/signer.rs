//! The one place where a document of the PKI is signed: linted bytes in, the finished
//! document out, checked with the issuer's public key before anybody sees it.

use std::time::Instant;

use keywright_hsm::{self as hsm, Hash, KeyRef, KeySpec, Signing};
use keywright_pki::{Algorithm, Document, SelfCheckFailed, Unsigned, ecdsa_to_der};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tracing::error;

use crate::{
    error::{Error, Reason, Result},
    ops::App,
};

/// Why there is no document.
#[derive(Debug)]
pub(super) enum NotSigned {
    /// The HSM refused before it did anything.
    Refused(Error),
    /// The HSM did not answer, or not well: it may have signed.
    Unknown(Error),
    /// What came back is not what was linted: nobody may go on with this issuer.
    SelfCheck(SelfCheckFailed),
}

/// Signs, once.
pub(super) async fn sign<T: Document>(
    app: &App,
    key: &KeyRef,
    unsigned: Unsigned<T>,
    deadline: Instant,
) -> Result<T, NotSigned> {
    let (how, input) = input(unsigned.algorithm(), unsigned.tbs()).map_err(NotSigned::Refused)?;
    let job = hsm::Sign {
        key: key.clone(),
        how,
        input: input.into(),
    };
    // Verified with the document it belongs to, in `attach`.
    let signature = app.hsm.sign_unverified(vec![job], deadline).await.pop();
    let signature = signature
        .unwrap_or_else(|| {
            let text = "the HSM answered nothing";
            Err(hsm::Error::new(hsm::Kind::Fault, text))
        })
        .map_err(|e| match e.kind() {
            hsm::Kind::NoSuchKey => {
                error!(object = %key.object, "the HSM does not have an issuer's key");
                let text = "the issuer's key is not in the HSM: nothing was signed; the operator must bring the token with it back, or make another issuer";
                NotSigned::Refused(Error::new(Reason::IssuerState, text).because(e.to_string()))
            }
            hsm::Kind::Busy | hsm::Kind::Unsupported | hsm::Kind::Blocked => {
                NotSigned::Refused(e.into())
            }
            _ => NotSigned::Unknown(e.into()),
        })?;
    let attached = signature.checked(|bytes| match key.spec {
        KeySpec::Ec(_) => unsigned.attach(&ecdsa_to_der(bytes).unwrap_or_default()),
        _ => unsigned.attach(bytes),
    });
    attached.map_err(|e| {
        error!(error = %e, "a signature failed its self-check");
        NotSigned::SelfCheck(e)
    })
}

/// What the token is told, and over which bytes.
fn input(algorithm: Algorithm, tbs: &[u8]) -> Result<(Signing, Vec<u8>)> {
    let sha256 = || Sha256::digest(tbs).to_vec();
    let sha384 = || Sha384::digest(tbs).to_vec();
    let sha512 = || Sha512::digest(tbs).to_vec();
    Ok(match algorithm {
        Algorithm::EcdsaP256Sha256 => (Signing::Ecdsa, sha256()),
        Algorithm::EcdsaP384Sha384 => (Signing::Ecdsa, sha384()),
        Algorithm::RsaPkcs1Sha256 => (Signing::RsaPkcs1(Hash::Sha256), sha256()),
        Algorithm::RsaPkcs1Sha384 => (Signing::RsaPkcs1(Hash::Sha384), sha384()),
        Algorithm::RsaPkcs1Sha512 => (Signing::RsaPkcs1(Hash::Sha512), sha512()),
        Algorithm::Ed25519 => (Signing::Ed25519, tbs.to_vec()),
        Algorithm::EcdsaP521Sha512
        | Algorithm::RsaPssSha256
        | Algorithm::RsaPssSha384
        | Algorithm::RsaPssSha512 => {
            return Err(Error::new(
                Reason::TokenCannot,
                "no issuer signs with this algorithm here",
            ));
        }
    })
}

impl NotSigned {
    /// For the caller.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Refused(e) | Self::Unknown(e) => e,
            Self::SelfCheck(e) => Error::new(
                Reason::IssuerState,
                "the issuer failed its self-check and was stopped; the operator has been told",
            )
            .because(e.to_string()),
        }
    }
}
