//! Reading a request (RFC 6960 §4.1): foreign bytes, bounded in size and number.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use crate::{
    IssuerCert, Serial, oid,
    wire::{Cursor, tag},
};

/// What a client asks. A signature of the client is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspRequest {
    /// At least one, in the order of the request.
    pub cert_ids: Vec<CertId>,
    /// To be sent back.
    pub nonce: Option<Nonce>,
}

/// One certificate, named by hashes of its issuer and by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertId {
    der: Vec<u8>,
    hash: Hash,
    name_hash: Vec<u8>,
    key_hash: Vec<u8>,
    serial: Option<Serial>,
}

/// Chosen by the client, 1 to 128 octets (RFC 9654 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

/// How the issuer is named. SHA-1 is no signature here, and clients still send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
}

/// Answer with [`OcspError::MalformedRequest`](super::OcspError::MalformedRequest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Over [`OcspRequest::MAX_LEN`] bytes.
    #[error("the request is longer than {} bytes", OcspRequest::MAX_LEN)]
    TooLong,
    /// Not the DER of an OCSPRequest.
    #[error("the request is not an OCSPRequest in DER")]
    Structure,
    /// None, or over [`OcspRequest::MAX_CERT_IDS`].
    #[error(
        "the request asks for no certificate, or for more than {}",
        OcspRequest::MAX_CERT_IDS
    )]
    Count,
    /// Neither SHA-1 nor SHA-256, or a hash of another length.
    #[error("the request names an issuer by another hash than SHA-1 or SHA-256")]
    Hash,
    /// Not 1 to 128 octets, or there twice.
    #[error("the nonce of the request has not 1 to 128 octets")]
    Nonce,
    /// A critical extension that is not known here.
    #[error("the request has a critical extension that is not known here")]
    Critical,
}

/// Content octets of id-sha1 and id-sha256.
const ID_SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const ID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

impl OcspRequest {
    /// The longest request that is read, in bytes.
    pub const MAX_LEN: usize = 4096;
    /// The most certificates in one request.
    pub const MAX_CERT_IDS: usize = 16;

    /// Reads one request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        if der.len() > Self::MAX_LEN {
            return Err(Malformed::TooLong);
        }
        let (mut list, extensions) = frame(der).ok_or(Malformed::Structure)?;
        let mut cert_ids = Vec::new();
        while !list.is_empty() {
            if cert_ids.len() == Self::MAX_CERT_IDS {
                return Err(Malformed::Count);
            }
            cert_ids.push(single(&mut list)?);
        }
        if cert_ids.is_empty() {
            return Err(Malformed::Count);
        }
        let nonce = nonce(extensions)?;
        Ok(Self { cert_ids, nonce })
    }
}

/// The list of requests, and the extensions if there are any.
fn frame(der: &[u8]) -> Option<(Cursor<'_>, Option<Cursor<'_>>)> {
    let mut outer = Cursor::within(tag::SEQUENCE, der)?;
    let mut tbs = outer.enter(tag::SEQUENCE)?;
    if outer.at(tag::constructed(0)) {
        outer.element()?;
    }
    outer.end()?;
    if tbs.at(tag::constructed(0)) {
        // v1 is DEFAULT, but some clients write it.
        let mut version = tbs.enter(tag::constructed(0))?;
        if version.take(tag::INTEGER)? != [0] {
            return None;
        }
        version.end()?;
    }
    if tbs.at(tag::constructed(1)) {
        tbs.element()?;
    }
    let list = tbs.enter(tag::SEQUENCE)?;
    let extensions = if tbs.at(tag::constructed(2)) {
        Some(explicit_sequence(&mut tbs, 2)?)
    } else {
        None
    };
    tbs.end()?;
    Some((list, extensions))
}

/// The elements of `[n] EXPLICIT SEQUENCE`.
fn explicit_sequence<'a>(from: &mut Cursor<'a>, n: u8) -> Option<Cursor<'a>> {
    let mut wrapped = from.enter(tag::constructed(n))?;
    let inner = wrapped.enter(tag::SEQUENCE)?;
    wrapped.end()?;
    Some(inner)
}

/// `Request`: a CertID, and extensions of which none may be critical.
fn single(list: &mut Cursor<'_>) -> Result<CertId, Malformed> {
    let mut request = list.enter(tag::SEQUENCE).ok_or(Malformed::Structure)?;
    let id = request.element().ok_or(Malformed::Structure)?;
    if request.at(tag::constructed(0)) {
        let own = explicit_sequence(&mut request, 0).ok_or(Malformed::Structure)?;
        for_each_extension(own, |_, _, critical| {
            if critical {
                Err(Malformed::Critical)
            } else {
                Ok(())
            }
        })?;
    }
    request.end().ok_or(Malformed::Structure)?;
    CertId::from_der(id)
}

fn nonce(extensions: Option<Cursor<'_>>) -> Result<Option<Nonce>, Malformed> {
    let mut nonce = None;
    let Some(extensions) = extensions else {
        return Ok(None);
    };
    for_each_extension(extensions, |oid, value, critical| {
        if oid == oid::OCSP_NONCE {
            let octets = Cursor::over(value).and_then(|mut value| {
                let octets = value.take(tag::OCTET_STRING)?;
                value.end()?;
                Some(octets)
            });
            let read = Nonce::new(octets.unwrap_or_default()).ok_or(Malformed::Nonce)?;
            return if nonce.replace(read).is_none() {
                Ok(())
            } else {
                Err(Malformed::Nonce)
            };
        }
        if critical {
            Err(Malformed::Critical)
        } else {
            Ok(())
        }
    })?;
    Ok(nonce)
}

/// Calls `with` with the identifier, the value and whether it is critical.
fn for_each_extension<'a>(
    mut list: Cursor<'a>,
    mut with: impl FnMut(&'a [u8], &'a [u8], bool) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !list.is_empty() {
        let (oid, value, critical) = extension(&mut list).ok_or(Malformed::Structure)?;
        with(oid, value, critical)?;
    }
    Ok(())
}

fn extension<'a>(list: &mut Cursor<'a>) -> Option<(&'a [u8], &'a [u8], bool)> {
    let mut extension = list.enter(tag::SEQUENCE)?;
    let oid = extension.take(tag::OID)?;
    let critical = extension.at(tag::BOOLEAN) && extension.take(tag::BOOLEAN)? != [0];
    let value = extension.take(tag::OCTET_STRING)?;
    extension.end()?;
    Some((oid, value, critical))
}

impl CertId {
    /// Reads one `CertID`.
    fn from_der(der: &[u8]) -> Result<Self, Malformed> {
        let [algorithm, name_hash, key_hash, serial] =
            Self::fields(der).ok_or(Malformed::Structure)?;
        let (hash, len) = match algorithm {
            ID_SHA1 => (Hash::Sha1, 20),
            ID_SHA256 => (Hash::Sha256, 32),
            _ => return Err(Malformed::Hash),
        };
        if name_hash.len() != len || key_hash.len() != len {
            return Err(Malformed::Hash);
        }
        Ok(Self {
            der: der.to_vec(),
            hash,
            name_hash: name_hash.to_vec(),
            key_hash: key_hash.to_vec(),
            serial: Serial::from_bytes(serial).ok(),
        })
    }

    fn fields(der: &[u8]) -> Option<[&[u8]; 4]> {
        let mut id = Cursor::within(tag::SEQUENCE, der)?;
        let mut algorithm = id.enter(tag::SEQUENCE)?;
        let hash = algorithm.take(tag::OID)?;
        if algorithm.at(tag::NULL) && !algorithm.take(tag::NULL)?.is_empty() {
            return None;
        }
        algorithm.end()?;
        let (name, key) = (id.take(tag::OCTET_STRING)?, id.take(tag::OCTET_STRING)?);
        let serial = id.take(tag::INTEGER)?;
        id.end()?;
        Some([hash, name, key, serial])
    }

    /// Is it about a certificate of this issuer? If not, the answer is `unauthorized`.
    #[must_use]
    pub fn is_of(&self, issuer: &IssuerCert) -> bool {
        let with = match self.hash {
            Hash::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &SHA256,
        };
        digest(with, issuer.subject_der()).as_ref() == self.name_hash
            && key_bits(issuer.key().spki())
                .is_some_and(|bits| digest(with, bits).as_ref() == self.key_hash)
    }

    /// The number; `None` is one that no certificate of ours can have: `unknown`.
    #[must_use]
    pub fn serial(&self) -> Option<Serial> {
        self.serial
    }

    /// As the client wrote it.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }
}

/// The octets of `subjectPublicKey`, without the count of unused bits (RFC 6960 §4.1.1).
pub(super) fn key_bits(spki: &[u8]) -> Option<&[u8]> {
    let mut info = Cursor::within(tag::SEQUENCE, spki)?;
    info.take(tag::SEQUENCE)?;
    let (0, bits) = info.take(tag::BIT_STRING)?.split_first()? else {
        return None;
    };
    Some(bits)
}

impl Nonce {
    /// `None` unless 1 to 128 octets.
    #[must_use]
    pub fn new(octets: &[u8]) -> Option<Self> {
        (1..=128)
            .contains(&octets.len())
            .then(|| Self(octets.to_vec()))
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Writer;

    /// A request of `count` ids, with these octets as nonce.
    pub(in crate::ocsp) fn request(count: usize, nonce: Option<&[u8]>, hash_len: usize) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.nest(tag::SEQUENCE, |w| {
            w.nest(tag::SEQUENCE, |w| {
                w.nest(tag::SEQUENCE, |w| (0..count).for_each(|_| one(w, hash_len)));
                if let Some(nonce) = nonce {
                    w.nest(tag::constructed(2), |w| {
                        w.nest(tag::SEQUENCE, |w| {
                            crate::extension::put(w, &oid::OCSP_NONCE, false, |w| {
                                w.put(tag::OCTET_STRING, nonce);
                            });
                        });
                    });
                }
            });
        });
        writer.finish()
    }

    fn one(w: &mut Writer, hash_len: usize) {
        w.nest(tag::SEQUENCE, |w| {
            w.nest(tag::SEQUENCE, |w| {
                w.nest(tag::SEQUENCE, |w| {
                    w.put(tag::OID, ID_SHA1);
                    w.put(tag::NULL, &[]);
                });
                w.put(tag::OCTET_STRING, &vec![1; hash_len]);
                w.put(tag::OCTET_STRING, &vec![2; hash_len]);
                w.put(tag::INTEGER, &[5]);
            });
        });
    }

    #[test]
    fn limits_are_kept() {
        let read =
            |count, nonce: Option<&[u8]>, len| OcspRequest::from_der(&request(count, nonce, len));
        let good = read(16, Some(&[7; 128]), 20).unwrap();
        assert_eq!(good.cert_ids.len(), 16);
        assert_eq!(good.cert_ids[0].serial(), Serial::from_bytes(&[5]).ok());
        assert_eq!(good.nonce.unwrap().as_bytes(), [7; 128]);
        assert_eq!(read(17, None, 20), Err(Malformed::Count));
        assert_eq!(read(0, None, 20), Err(Malformed::Count));
        assert_eq!(read(1, Some(&[]), 20), Err(Malformed::Nonce));
        assert_eq!(read(1, Some(&[7; 129]), 20), Err(Malformed::Nonce));
        assert_eq!(read(1, None, 21), Err(Malformed::Hash));
        assert_eq!(OcspRequest::from_der(&[0; 4097]), Err(Malformed::TooLong));
    }

    #[test]
    fn cut_and_changed_requests_do_not_panic() {
        let good = request(2, Some(b"nonce"), 20);
        for at in 0..good.len() {
            assert!(OcspRequest::from_der(&good[..at]).is_err());
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let _ = OcspRequest::from_der(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = OcspRequest::from_der(&bytes);
        }
    }
}
