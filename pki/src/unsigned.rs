//! Bytes that were linted and may be signed, once; and what they become (rule C22).

use crate::{
    Algorithm, SubjectKey,
    wire::{Cursor, Writer, tag},
};

/// Linted bytes of a certificate, a CRL, an OCSP response or a request. There is no other
/// way to one than a lint without findings; it cannot be copied, stored or restored.
///
/// ```compile_fail
/// fn twice(u: keywright_pki::Unsigned<keywright_pki::Certificate>) {
///     let _ = u.attach(&[]);
///     let _ = u.attach(&[]);
/// }
/// ```
#[derive(Debug)]
#[must_use = "it is to be signed, and the signature attached"]
pub struct Unsigned<T: Document> {
    tbs: Vec<u8>,
    algorithm: Algorithm,
    key: SubjectKey,
    rest: T::Rest,
}

/// What is made of signed bytes. Only this crate implements it.
pub trait Document: Sized + Sealed {
    /// What belongs to the document beside the signed bytes.
    type Rest: std::fmt::Debug;

    /// Takes `SEQUENCE { tbs, algorithm, signature }`, one level complete.
    #[doc(hidden)]
    fn finish(signed: Vec<u8>, rest: Self::Rest) -> Option<Self>;

    /// `SEQUENCE { tbs, algorithm, signature }` as it stands in the finished document.
    #[doc(hidden)]
    fn signed(&self) -> Option<&[u8]>;

    /// What stands behind the signature within the sequence.
    #[doc(hidden)]
    fn behind(_rest: &Self::Rest) -> Vec<u8> {
        Vec::new()
    }
}

/// Keeps others from implementing [`Document`].
#[doc(hidden)]
pub trait Sealed {}

/// What came back from the signer is not the document that was linted. Nothing may leave:
/// stop this issuer and find out why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelfCheckFailed {
    /// Wrong key, wrong algorithm, or another message was signed.
    #[error(
        "the signature from the HSM does not verify with the issuer's public key over the linted bytes; stop this issuer and check which key it uses"
    )]
    Signature,
    /// Read again, the document is not made of the linted bytes.
    #[error("the assembled document, read again, does not hold the linted bytes; stop this issuer")]
    Assembly,
}

impl<T: Document> Unsigned<T> {
    pub(crate) fn new(tbs: Vec<u8>, algorithm: Algorithm, key: SubjectKey, rest: T::Rest) -> Self {
        Self {
            tbs,
            algorithm,
            key,
            rest,
        }
    }

    /// The bytes to sign.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// How to sign them.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key whose private half must sign.
    #[must_use]
    pub fn signer(&self) -> &SubjectKey {
        &self.key
    }

    /// Puts the signature to the bytes. ECDSA signatures come in DER, RSA and Ed25519
    /// raw, as they stand in the document.
    ///
    /// # Errors
    /// [`SelfCheckFailed`]: the signature is not the issuer's over these bytes, or the
    /// document read again is another.
    pub fn attach(self, signature: &[u8]) -> Result<T, SelfCheckFailed> {
        self.algorithm
            .verify(self.key.spki(), &self.tbs, signature)
            .map_err(|_| SelfCheckFailed::Signature)?;
        let mut writer = Writer::with_capacity(self.tbs.len() + signature.len() + 128);
        writer.nest(tag::SEQUENCE, |w| {
            w.raw(&self.tbs);
            w.raw(self.algorithm.der());
            w.bits(signature);
            w.raw(&T::behind(&self.rest));
        });
        let behind = T::behind(&self.rest);
        let document = T::finish(writer.finish(), self.rest).ok_or(SelfCheckFailed::Assembly)?;
        let read = document
            .signed()
            .and_then(Parts::read)
            .ok_or(SelfCheckFailed::Assembly)?;
        let same = read.tbs == self.tbs
            && read.algorithm == self.algorithm.der()
            && read.signature == signature
            && read.behind == behind;
        if same {
            Ok(document)
        } else {
            Err(SelfCheckFailed::Assembly)
        }
    }
}

/// `SEQUENCE { tbs, algorithm, signature, … }` taken apart, each part with its header but
/// the signature, which is the octets of the BIT STRING.
pub(crate) struct Parts<'a> {
    pub(crate) tbs: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) behind: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(crate) fn read(signed: &'a [u8]) -> Option<Self> {
        let mut parts = Cursor::within(tag::SEQUENCE, signed)?;
        let (tbs, algorithm) = (parts.element()?, parts.element()?);
        let (0, signature) = parts.take(tag::BIT_STRING)?.split_first()? else {
            return None;
        };
        let behind = parts.rest()?;
        Some(Self {
            tbs,
            algorithm,
            signature,
            behind,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Algorithm, Draft, KeyKind, SelfCheckFailed,
        testing::{NOW, TestKey, ca_plan, leaf_plan, root},
    };

    #[test]
    fn only_the_issuers_signature_over_these_bytes_is_attached() {
        let key = TestKey::new(KeyKind::EcP256);
        let (_, issuer) = root(&key);
        let subject = TestKey::new(KeyKind::EcP256);
        let draft = || {
            let plan = leaf_plan(subject.public());
            Draft::new(plan, &issuer).unwrap().lint(NOW).unwrap()
        };
        let good = key.signature(&draft());
        let refused = |signature: &[u8]| draft().attach(signature).unwrap_err();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(refused(&bad), SelfCheckFailed::Signature);
        }
        assert_eq!(refused(&[]), SelfCheckFailed::Signature);
        let foreign = subject.signature(&draft());
        assert_eq!(refused(&foreign), SelfCheckFailed::Signature);
        let other = Draft::self_signed(ca_plan(key.public(), None), Algorithm::EcdsaP256Sha256);
        let other = key.signature(&other.unwrap().lint(NOW).unwrap());
        assert_eq!(refused(&other), SelfCheckFailed::Signature);
        let certificate = draft().attach(&good).unwrap();
        assert_eq!(certificate.serial(), leaf_plan(subject.public()).serial);
    }
}
