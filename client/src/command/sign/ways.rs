//! What to send so that a file of any size is signed, without asking for the key: who may
//! sign need not be allowed to read the public half.
//!
//! A short input travels as it is, and the server takes the scheme the key has. Of a long
//! one only the digest travels; which hash the key takes is learnt from the answer, since
//! a digest of another length is refused before anything is signed.

use std::io::Read;

use bytes::Bytes;
use keywright_client::{
    Failure, FailureKind,
    proto::{InputKind, PssSalt, SignatureAlgorithm, SignatureEncoding, SignatureScheme as S},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::INPUT_BYTES;
use crate::args::{Hash, How, Padding, Salt, SignatureForm};

/// A server takes items up to this long by default.
const MESSAGE_BYTES: u64 = 1 << 20;

/// One way to ask for a signature.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Way {
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) subject: Bytes,
}

/// How lines are signed: they are messages.
pub(crate) fn message(how: &How) -> Result<SignatureAlgorithm, Failure> {
    let scheme = schemes(how)?.first().map_or(S::Unspecified, |s| s.0);
    Ok(algorithm(how, scheme, InputKind::Message))
}

/// The ways to sign an input, the best first.
pub(super) fn ways(how: &How, from: impl Read) -> Result<Vec<Way>, Failure> {
    let schemes = schemes(how)?;
    let input = Input::read(from)?;
    // A message needs no guess: the server knows which scheme the key has.
    let sure = if how.hash.is_some() { schemes.len() } else { 1 };
    let messages = input.message.iter().flat_map(|message| {
        schemes.iter().take(sure).map(|(scheme, _)| Way {
            algorithm: algorithm(how, *scheme, InputKind::Message),
            subject: message.clone(),
        })
    });
    let digests = schemes.iter().map(|(scheme, hash)| Way {
        algorithm: algorithm(how, *scheme, InputKind::Digest),
        subject: match hash {
            Hash::Sha256 => input.sha256.clone(),
            Hash::Sha384 => input.sha384.clone(),
            Hash::Sha512 => input.sha512.clone(),
        },
    });
    Ok(if input.bytes <= MESSAGE_BYTES {
        messages.chain(digests).collect()
    } else {
        digests.chain(messages).collect()
    })
}

/// Takes the first way the key and the limits of the server allow. The failure is that of
/// the way that came nearest: an input that is too long, else the first one.
pub(super) async fn first<T>(
    ways: Vec<Way>,
    call: impl AsyncFn(Way) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (mut kept, mut useless) = (None::<Failure>, None);
    for way in ways {
        let input = way.algorithm.input();
        if useless == Some(input) {
            continue;
        }
        let failure = match call(way).await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        match (failure.reason(), input) {
            (Some("ITEM_TOO_LARGE"), _) => {
                useless = Some(InputKind::Message);
                kept = Some(failure);
            }
            (Some("INVALID_ARGUMENT"), input) => {
                // What was asked does not fit the key, digest or not.
                useless = useless.or((input == InputKind::Message).then_some(InputKind::Digest));
                kept = Some(kept.unwrap_or(failure));
            }
            _ => return Err(failure),
        }
    }
    Err(kept.unwrap_or_else(|| Failure::new(FailureKind::Usage, "this cannot be signed")))
}

/// The schemes that may be meant, and the hash of each.
fn schemes(how: &How) -> Result<Vec<(S, Hash)>, Failure> {
    let useless = |text: &str| Err(Failure::new(FailureKind::Usage, text));
    let rsa = how.scheme.is_some() || how.salt.is_some();
    if rsa && how.encoding.is_some() {
        return useless("--scheme and --salt are for RSA keys, --encoding for ECDSA keys");
    }
    if how.scheme == Some(Padding::Pkcs1) && how.salt.is_some() {
        return useless("--salt is for PSS; PKCS#1 v1.5 has none");
    }
    let hash = how.hash.unwrap_or(Hash::Sha256);
    let of_rsa = match (how.scheme.unwrap_or(Padding::Pss), hash) {
        (Padding::Pss, Hash::Sha256) => S::RsaPssSha256,
        (Padding::Pss, Hash::Sha384) => S::RsaPssSha384,
        (Padding::Pss, Hash::Sha512) => S::RsaPssSha512,
        (Padding::Pkcs1, Hash::Sha256) => S::RsaPkcs1Sha256,
        (Padding::Pkcs1, Hash::Sha384) => S::RsaPkcs1Sha384,
        (Padding::Pkcs1, Hash::Sha512) => S::RsaPkcs1Sha512,
    };
    if rsa {
        return Ok(vec![(of_rsa, hash)]);
    }
    let Some(hash) = how.hash else {
        // The scheme the key has: with SHA-256 for all but these.
        return Ok(vec![
            (S::Unspecified, Hash::Sha256),
            (S::EcdsaSha384, Hash::Sha384),
        ]);
    };
    let mut schemes = vec![(of_rsa, hash)];
    match hash {
        Hash::Sha256 => schemes.push((S::EcdsaSha256, hash)),
        Hash::Sha384 => schemes.push((S::EcdsaSha384, hash)),
        Hash::Sha512 => {}
    }
    if how.encoding.is_some() {
        // Only ECDSA has encodings.
        schemes.retain(|s| matches!(s.0, S::EcdsaSha256 | S::EcdsaSha384));
        if schemes.is_empty() {
            return useless("--encoding is for ECDSA keys, and those take sha256 or sha384");
        }
    }
    Ok(schemes)
}

fn algorithm(how: &How, scheme: S, input: InputKind) -> SignatureAlgorithm {
    SignatureAlgorithm {
        scheme: scheme.into(),
        encoding: how.encoding.map_or(0, |encoding| match encoding {
            SignatureForm::Der => SignatureEncoding::Der.into(),
            SignatureForm::Raw => SignatureEncoding::Raw.into(),
        }),
        pss_salt: how.salt.map_or(0, |salt| match salt {
            Salt::Hash => PssSalt::Hash.into(),
            Salt::Empty => PssSalt::Empty.into(),
            Salt::Max => PssSalt::Max.into(),
        }),
        input: input.into(),
    }
}

/// An input read once.
struct Input {
    bytes: u64,
    /// When it may travel at all.
    message: Option<Bytes>,
    sha256: Bytes,
    sha384: Bytes,
    sha512: Bytes,
}

impl Input {
    fn read(mut from: impl Read) -> Result<Self, Failure> {
        let (mut sha256, mut sha384, mut sha512) = (Sha256::new(), Sha384::new(), Sha512::new());
        let mut message = Some(Vec::new());
        let mut bytes = 0u64;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::io("input", &e)),
            };
            sha256.update(piece);
            sha384.update(piece);
            sha512.update(piece);
            bytes += piece.len() as u64;
            message = message.filter(|_| bytes <= INPUT_BYTES);
            if let Some(message) = &mut message {
                message.extend_from_slice(piece);
            }
        }
        Ok(Self {
            bytes,
            message: message.map(Bytes::from),
            sha256: Bytes::copy_from_slice(&sha256.finalize()),
            sha384: Bytes::copy_from_slice(&sha384.finalize()),
            sha512: Bytes::copy_from_slice(&sha512.finalize()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_SAID: How = How {
        scheme: None,
        hash: None,
        salt: None,
        encoding: None,
    };

    fn asked(how: &How, len: usize) -> Vec<(S, InputKind, usize)> {
        ways(how, vec![7; len].as_slice())
            .unwrap()
            .iter()
            .map(|w| (w.algorithm.scheme(), w.algorithm.input(), w.subject.len()))
            .collect()
    }

    #[test]
    fn short_inputs_travel_and_of_long_ones_the_digest() {
        use InputKind::{Digest, Message};
        assert_eq!(
            asked(&NOTHING_SAID, 5),
            [
                (S::Unspecified, Message, 5),
                (S::Unspecified, Digest, 32),
                (S::EcdsaSha384, Digest, 48)
            ]
        );
        let long = MESSAGE_BYTES as usize + 1;
        assert_eq!(
            asked(&NOTHING_SAID, long),
            [
                (S::Unspecified, Digest, 32),
                (S::EcdsaSha384, Digest, 48),
                (S::Unspecified, Message, long)
            ]
        );
        let longer = INPUT_BYTES as usize + 1;
        assert_eq!(asked(&NOTHING_SAID, longer).len(), 2);
        let pkcs1 = How {
            scheme: Some(Padding::Pkcs1),
            hash: Some(Hash::Sha512),
            ..NOTHING_SAID
        };
        assert_eq!(asked(&pkcs1, longer), [(S::RsaPkcs1Sha512, Digest, 64)]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for how in [
            How {
                scheme: Some(Padding::Pkcs1),
                salt: Some(Salt::Max),
                ..NOTHING_SAID
            },
            How {
                salt: Some(Salt::Max),
                encoding: Some(SignatureForm::Raw),
                ..NOTHING_SAID
            },
            How {
                hash: Some(Hash::Sha512),
                encoding: Some(SignatureForm::Raw),
                ..NOTHING_SAID
            },
        ] {
            assert_eq!(schemes(&how).unwrap_err().kind(), FailureKind::Usage);
        }
    }

    #[tokio::test]
    async fn only_what_another_way_may_mend_is_asked_again() {
        let try_all = async |reasons: &[&str]| {
            let ways = ways(&NOTHING_SAID, &b"x"[..]).unwrap();
            let asked = std::cell::Cell::new(0);
            let result: Result<(), Failure> = first(ways, async |_| {
                let n = asked.replace(asked.get() + 1);
                let reason = reasons.get(n).copied().unwrap_or("INVALID_ARGUMENT");
                Err(Failure::new(FailureKind::Data, format!("{n}")).because(reason))
            })
            .await;
            (asked.get(), result.unwrap_err().to_string())
        };
        assert_eq!(try_all(&["PERMISSION_DENIED"]).await, (1, "0".into()));
        // Refused as a message: a digest would be refused as well.
        assert_eq!(try_all(&[]).await, (1, "0".into()));
        // Too long for this server: the digests may do, whichever fits.
        assert_eq!(try_all(&["ITEM_TOO_LARGE"]).await, (3, "0".into()));
    }
}
