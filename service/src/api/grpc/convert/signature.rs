//! Signatures, MACs, data keys and public keys: wire words to domain words and back.

use bytes::Bytes;
use keywright_hsm::{Hash, KeySpec, KeyUse, Oaep, PssSalt};
use keywright_pki::{spki_to_jwk, spki_to_pem};
use keywright_proto::v1 as proto;

use super::{batch, context, counted, key_name, optional_key, strings, wire_spec, wire_use};
use crate::{
    config::Limits,
    envelope::DataKeyId,
    error::{Error, Reason, Result},
    ops::{self, Shelf, Strings, Verdict, Which},
    signature::{Asked, Scheme},
};

fn unknown(field: &'static str, value: i32) -> Error {
    Error::field(
        Reason::InvalidArgument,
        field,
        format!("unknown {field}: {value}"),
    )
}

fn asked(algorithm: Option<proto::SignatureAlgorithm>) -> Result<Asked> {
    use proto::{
        InputKind as Input, PssSalt as Salt, SignatureEncoding as Encoding, SignatureScheme as S,
    };
    let a = algorithm.unwrap_or_default();
    let scheme = match S::try_from(a.scheme).map_err(|_| unknown("algorithm.scheme", a.scheme))? {
        S::Unspecified => None,
        S::EcdsaSha256 => Some(Scheme::Ecdsa(Hash::Sha256)),
        S::EcdsaSha384 => Some(Scheme::Ecdsa(Hash::Sha384)),
        S::Ed25519 => Some(Scheme::Ed25519),
        S::RsaPssSha256 => Some(Scheme::RsaPss(Hash::Sha256)),
        S::RsaPssSha384 => Some(Scheme::RsaPss(Hash::Sha384)),
        S::RsaPssSha512 => Some(Scheme::RsaPss(Hash::Sha512)),
        S::RsaPkcs1Sha256 => Some(Scheme::RsaPkcs1(Hash::Sha256)),
        S::RsaPkcs1Sha384 => Some(Scheme::RsaPkcs1(Hash::Sha384)),
        S::RsaPkcs1Sha512 => Some(Scheme::RsaPkcs1(Hash::Sha512)),
    };
    let raw = match Encoding::try_from(a.encoding)
        .map_err(|_| unknown("algorithm.encoding", a.encoding))?
    {
        Encoding::Unspecified => None,
        Encoding::Der => Some(false),
        Encoding::Raw => Some(true),
    };
    let salt =
        match Salt::try_from(a.pss_salt).map_err(|_| unknown("algorithm.pss_salt", a.pss_salt))? {
            Salt::Unspecified => None,
            Salt::Hash => Some(PssSalt::Hash),
            Salt::Empty => Some(PssSalt::Empty),
            Salt::Max => Some(PssSalt::Max),
        };
    let digests = match Input::try_from(a.input).map_err(|_| unknown("algorithm.input", a.input))? {
        Input::Unspecified | Input::Message => false,
        Input::Digest => true,
    };
    Ok(Asked {
        scheme,
        raw,
        salt,
        digests,
    })
}

fn wire_scheme(scheme: Scheme) -> proto::SignatureScheme {
    use proto::SignatureScheme as S;
    match scheme {
        Scheme::Ecdsa(Hash::Sha384) => S::EcdsaSha384,
        Scheme::Ecdsa(_) => S::EcdsaSha256,
        Scheme::Ed25519 => S::Ed25519,
        Scheme::RsaPss(Hash::Sha256) => S::RsaPssSha256,
        Scheme::RsaPss(Hash::Sha384) => S::RsaPssSha384,
        Scheme::RsaPss(Hash::Sha512) => S::RsaPssSha512,
        Scheme::RsaPkcs1(Hash::Sha256) => S::RsaPkcs1Sha256,
        Scheme::RsaPkcs1(Hash::Sha384) => S::RsaPkcs1Sha384,
        Scheme::RsaPkcs1(Hash::Sha512) => S::RsaPkcs1Sha512,
    }
}

fn inputs(separate: Vec<Bytes>, packed: Option<proto::Packed>, limits: &Limits) -> Result<Strings> {
    batch(separate, packed, "inputs", limits.batch_bytes, limits)
}

/// One for each input.
fn beside(
    separate: Vec<Bytes>,
    packed: Option<proto::Packed>,
    field: &'static str,
    inputs: &Strings,
) -> Result<Strings> {
    let strings = strings(separate, packed, field)?;
    if strings.len() == inputs.len() {
        return Ok(strings);
    }
    Err(Error::field(
        Reason::InvalidArgument,
        field,
        format!(
            "{} {field} for {} inputs; give exactly one for each",
            strings.len(),
            inputs.len()
        ),
    ))
}

fn version(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

pub(in super::super) fn sign(request: proto::SignRequest, limits: &Limits) -> Result<ops::Sign> {
    Ok(ops::Sign {
        key: key_name("key", &request.key)?,
        asked: asked(request.algorithm)?,
        inputs: inputs(request.inputs, request.packed_inputs, limits)?,
    })
}

pub(in super::super) fn signed(
    mut signed: ops::Signed,
    packed: bool,
    crc32c: Option<u32>,
) -> proto::SignResponse {
    let data = std::mem::take(&mut *signed.output.data);
    let (signatures, packed_signatures) = super::results(data, &signed.output.ends, packed);
    proto::SignResponse {
        signatures,
        packed_signatures,
        errors: super::errors(&signed.output.failures),
        key_version: signed.version,
        scheme: wire_scheme(signed.scheme).into(),
        crc32c,
    }
}

pub(in super::super) fn verify(
    request: proto::VerifyRequest,
    limits: &Limits,
) -> Result<ops::Verify> {
    let inputs = inputs(request.inputs, request.packed_inputs, limits)?;
    Ok(ops::Verify {
        key: key_name("key", &request.key)?,
        asked: asked(request.algorithm)?,
        signatures: beside(
            request.signatures,
            request.packed_signatures,
            "signatures",
            &inputs,
        )?,
        inputs,
        version: version(request.key_version),
    })
}

pub(in super::super) fn verdicts(verdicts: &[Verdict]) -> Vec<proto::Verdict> {
    let wire = |v: &Verdict| proto::Verdict {
        valid: v.version.is_some(),
        key_version: v.version.unwrap_or(0),
    };
    verdicts.iter().map(wire).collect()
}

pub(in super::super) fn mac(request: proto::MacRequest, limits: &Limits) -> Result<ops::Mac> {
    Ok(ops::Mac {
        key: key_name("key", &request.key)?,
        inputs: inputs(request.inputs, request.packed_inputs, limits)?,
    })
}

pub(in super::super) fn verify_mac(
    request: proto::VerifyMacRequest,
    limits: &Limits,
) -> Result<ops::VerifyMac> {
    let inputs = inputs(request.inputs, request.packed_inputs, limits)?;
    Ok(ops::VerifyMac {
        key: key_name("key", &request.key)?,
        macs: beside(request.macs, request.packed_macs, "macs", &inputs)?,
        inputs,
        version: version(request.key_version),
    })
}

pub(in super::super) fn asymmetric_decrypt(
    request: proto::AsymmetricDecryptRequest,
    limits: &Limits,
) -> Result<ops::AsymmetricDecrypt> {
    let hash =
        proto::OaepHash::try_from(request.hash).map_err(|_| unknown("hash", request.hash))?;
    Ok(ops::AsymmetricDecrypt {
        key: key_name("key", &request.key)?,
        version: version(request.key_version),
        how: match hash {
            proto::OaepHash::Unspecified | proto::OaepHash::Sha256 => Oaep::Sha256,
            proto::OaepHash::Sha384 => Oaep::Sha384,
            proto::OaepHash::Sha512 => Oaep::Sha512,
            proto::OaepHash::Sha1 => Oaep::Sha1,
        },
        ciphertexts: batch(
            request.ciphertexts,
            request.packed_ciphertexts,
            "ciphertexts",
            limits.batch_bytes,
            limits,
        )?,
    })
}

/// What a data key may be long (`docs/envelope.md`).
const DATA_KEY_BYTES: [u32; 3] = [16, 32, 64];

fn data_key_lengths(lengths: &[u32]) -> Result<()> {
    match lengths.iter().find(|n| !DATA_KEY_BYTES.contains(n)) {
        None => Ok(()),
        Some(n) => Err(Error::field(
            Reason::InvalidArgument,
            "lengths",
            format!("a data key of {n} bytes; choose 16, 32 or 64"),
        )),
    }
}

/// The request, and whether plaintext and wrapped form go back.
pub(in super::super) fn generate_data_keys(
    request: proto::GenerateDataKeysRequest,
    limits: &Limits,
) -> Result<(ops::GenerateDataKeys, bool, bool)> {
    use proto::DataKeyForm as Form;
    counted("lengths", request.lengths.len(), limits)?;
    data_key_lengths(&request.lengths)?;
    let (plaintext, wrapped) =
        match Form::try_from(request.form).map_err(|_| unknown("form", request.form))? {
            Form::Unspecified | Form::Both => (true, true),
            Form::Wrapped => (false, true),
            Form::Plaintext => (true, false),
        };
    let request = ops::GenerateDataKeys {
        key: key_name("key", &request.key)?,
        context: context("context", &request.context)?,
        lengths: request.lengths,
        keep: request.keep,
    };
    Ok((request, plaintext, wrapped))
}

pub(in super::super) fn data_key(
    mut key: ops::DataKey,
    plaintext: bool,
    wrapped: bool,
) -> proto::DataKey {
    proto::DataKey {
        plaintext: if plaintext {
            Bytes::from(std::mem::take(&mut *key.plaintext))
        } else {
            Bytes::new()
        },
        wrapped: match &key.wrapped {
            Shelf::Here(header) if wrapped => Bytes::copy_from_slice(header.as_bytes()),
            _ => Bytes::new(),
        },
        id: match &key.wrapped {
            Shelf::Kept(id) => Bytes::copy_from_slice(&id.0),
            Shelf::Here(_) => Bytes::new(),
        },
    }
}

pub(in super::super) fn decrypt_data_keys(
    request: proto::DecryptDataKeysRequest,
    limits: &Limits,
) -> Result<ops::DecryptDataKeys> {
    let which = match (request.wrapped.is_empty(), request.ids.is_empty()) {
        (false, false) => {
            return Err(Error::field(
                Reason::InvalidArgument,
                "ids",
                "give wrapped data keys or ids, not both",
            ));
        }
        (true, false) => Which::Kept(data_key_ids(&request.ids, limits)?),
        _ => Which::Here(batch(
            request.wrapped,
            None,
            "wrapped",
            limits.message_bytes,
            limits,
        )?),
    };
    data_key_lengths(&request.lengths)?;
    if !request.lengths.is_empty() && request.lengths.len() != which.len() {
        return Err(Error::field(
            Reason::InvalidArgument,
            "lengths",
            format!(
                "{} lengths for {} data keys; give none, or one for each",
                request.lengths.len(),
                which.len()
            ),
        ));
    }
    Ok(ops::DecryptDataKeys {
        context: context("context", &request.context)?,
        which,
        lengths: request.lengths,
        only_key: optional_key(&request.key)?,
    })
}

fn data_key_ids(ids: &[Bytes], limits: &Limits) -> Result<Vec<DataKeyId>> {
    counted("ids", ids.len(), limits)?;
    let id = |id: &Bytes| (**id).try_into().ok().map(DataKeyId);
    let read: Option<Vec<DataKeyId>> = ids.iter().map(id).collect();
    read.ok_or_else(|| {
        Error::field(
            Reason::InvalidArgument,
            "ids",
            "an id of a data key has 16 bytes",
        )
    })
}

pub(in super::super) fn forget_data_keys(
    request: &proto::ForgetDataKeysRequest,
    limits: &Limits,
) -> Result<ops::ForgetDataKeys> {
    Ok(ops::ForgetDataKeys {
        key: key_name("key", &request.key)?,
        ids: data_key_ids(&request.ids, limits)?,
    })
}

pub(in super::super) fn public_key(public: &ops::Public) -> Result<proto::GetPublicKeyResponse> {
    let spki = public.key.spki();
    let key_use = public.spec.key_use();
    let (jwk_use, alg) = match (key_use, public.spec) {
        (KeyUse::Decrypt, _) => ("enc", ""),
        (_, KeySpec::Ec(curve)) => (
            "sig",
            match curve.hash() {
                Hash::Sha256 => "ES256",
                _ => "ES384",
            },
        ),
        (_, KeySpec::Ed25519) => ("sig", "EdDSA"),
        // PS256, RS256 and their longer brothers all fit: the key does not choose.
        _ => ("sig", ""),
    };
    let jwk = spki_to_jwk(spki, &public.kid, jwk_use, alg)
        .ok_or_else(|| Error::internal("a public key that is no JWK"))?;
    Ok(proto::GetPublicKeyResponse {
        der: Bytes::copy_from_slice(spki),
        pem: spki_to_pem(spki),
        jwk,
        version: public.version,
        spec: wire_spec(public.spec).into(),
        r#use: wire_use(key_use).into(),
    })
}
