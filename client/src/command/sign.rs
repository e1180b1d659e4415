//! `keywright sign` and `verify`: a file and its signature.

use std::io::{Read, Write};

use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{
        self, GetPublicKeyRequest, InputKind, KeySpec, SignRequest, SignatureAlgorithm,
        SignatureScheme as S, VerifyRequest,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    args::{Hash, How, Output, Padding, Salt, SignatureForm},
    output::{self, Sink, input, print},
};

/// Inputs at most this long travel as they are: below the message limit of any server
/// with default limits. (Its limit of an item is lower still; it says so itself.)
pub(super) const INPUT_BYTES: u64 = 15 << 20;
/// No signature is longer.
const SIGNATURE_BYTES: u64 = 4 << 10;

pub(crate) async fn sign(
    client: &Client,
    key: String,
    how: &How,
    from: Option<&std::path::Path>,
    to: Option<&std::path::Path>,
    output: Output,
) -> Result<(), Failure> {
    let (algorithm, subject) = prepare(client, &key, how, from).await?;
    let request = SignRequest {
        key: key.clone(),
        algorithm: Some(algorithm),
        inputs: vec![subject],
        ..Default::default()
    };
    let response = client.crypto().sign(request).await?.into_inner();
    let signature = response.signatures.into_iter().next().unwrap_or_default();
    let mut sink = Sink::open(to, false)?;
    sink.write_all(&signature)
        .map_err(|e| Failure::io("output", &e))?;
    sink.finish()?;
    let version = response.key_version;
    match output {
        Output::Table => anstream::eprintln!("signed with version {version} of {key}"),
        Output::Json => {
            anstream::eprintln!("{}", json!({ "key": key, "key_version": version }));
        }
    }
    Ok(())
}

pub(crate) async fn verify(
    client: &Client,
    key: String,
    how: &How,
    from: Option<&std::path::Path>,
    (signature, version): (&std::path::Path, Option<u32>),
    output: Output,
) -> Result<(), Failure> {
    let file = std::fs::File::open(signature).map_err(|e| Failure::io(signature.display(), &e))?;
    let signature = whole(file, SIGNATURE_BYTES).map_err(|e| e.at(signature.display()))?;
    let (algorithm, subject) = prepare(client, &key, how, from).await?;
    let request = VerifyRequest {
        key: key.clone(),
        algorithm: Some(algorithm),
        inputs: vec![subject],
        signatures: vec![signature],
        key_version: version.unwrap_or(0),
        ..Default::default()
    };
    let verdicts = client.crypto().verify(request).await?.into_inner().verdicts;
    said(&key, verdicts.first(), "signature", output)
}

/// Says what came of a check; not valid is exit code 6.
pub(super) fn said(
    key: &str,
    verdict: Option<&proto::Verdict>,
    what: &str,
    output: Output,
) -> Result<(), Failure> {
    let version = verdict.filter(|v| v.valid).map(|v| v.key_version);
    if output == Output::Json {
        output::json(&json!({ "valid": version.is_some(), "key": key, "key_version": version }))?;
    } else if let Some(version) = version {
        print(&format!("valid: made with version {version} of {key}\n"))?;
    }
    match version {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            FailureKind::Data,
            format!(
                "not valid: no version of {key} that may verify made this {what} of this input this way"
            ),
        )),
    }
}

/// The algorithm for this key, and what to send: the digest where there is one, so that
/// files of any size can be signed.
async fn prepare(
    client: &Client,
    key: &str,
    how: &How,
    from: Option<&std::path::Path>,
) -> Result<(SignatureAlgorithm, Bytes), Failure> {
    let request = GetPublicKeyRequest {
        name: key.to_owned(),
        version: 0,
    };
    let spec = client.keys().get_public_key(request).await?.into_inner();
    let (scheme, hash) = scheme(spec.spec(), how)?;
    let (mut from, _) = input(from)?;
    let (kind, subject) = match hash {
        None => (InputKind::Message, whole(from, INPUT_BYTES)?),
        Some(Hash::Sha256) => (InputKind::Digest, digest::<Sha256>(&mut from)?),
        Some(Hash::Sha384) => (InputKind::Digest, digest::<Sha384>(&mut from)?),
        Some(Hash::Sha512) => (InputKind::Digest, digest::<Sha512>(&mut from)?),
    };
    let algorithm = SignatureAlgorithm {
        scheme: scheme.into(),
        encoding: how.encoding.map_or(0, |encoding| match encoding {
            SignatureForm::Der => proto::SignatureEncoding::Der.into(),
            SignatureForm::Raw => proto::SignatureEncoding::Raw.into(),
        }),
        pss_salt: how.salt.map_or(0, |salt| match salt {
            Salt::Hash => proto::PssSalt::Hash.into(),
            Salt::Empty => proto::PssSalt::Empty.into(),
            Salt::Max => proto::PssSalt::Max.into(),
        }),
        input: kind.into(),
    };
    Ok((algorithm, subject))
}

fn scheme(spec: KeySpec, how: &How) -> Result<(S, Option<Hash>), Failure> {
    let rsa = how.hash.unwrap_or(Hash::Sha256);
    let useless = |text: &str| Err(Failure::new(FailureKind::Usage, text));
    let ecdsa = matches!(spec, KeySpec::EcP256 | KeySpec::EcP384);
    if how.encoding.is_some() && !ecdsa {
        return useless("--encoding is for ECDSA keys; signatures of this key have one form");
    }
    let pss = how.scheme != Some(Padding::Pkcs1);
    let only = |scheme, hash: Option<Hash>| {
        let other_hash = how.hash.is_some_and(|h| Some(h) != hash);
        if how.scheme.is_some() || how.salt.is_some() || other_hash {
            return useless(
                "--scheme, --hash and --salt are for RSA keys; this key has one way to sign",
            );
        }
        Ok((scheme, hash))
    };
    match spec {
        KeySpec::EcP256 => only(S::EcdsaSha256, Some(Hash::Sha256)),
        KeySpec::EcP384 => only(S::EcdsaSha384, Some(Hash::Sha384)),
        KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096 if how.salt.is_some() && !pss => {
            useless("--salt is for PSS; PKCS#1 v1.5 has none")
        }
        KeySpec::Ed25519 => only(S::Ed25519, None),
        _ => Ok((
            match (how.scheme.unwrap_or(Padding::Pss), rsa) {
                (Padding::Pss, Hash::Sha256) => S::RsaPssSha256,
                (Padding::Pss, Hash::Sha384) => S::RsaPssSha384,
                (Padding::Pss, Hash::Sha512) => S::RsaPssSha512,
                (Padding::Pkcs1, Hash::Sha256) => S::RsaPkcs1Sha256,
                (Padding::Pkcs1, Hash::Sha384) => S::RsaPkcs1Sha384,
                (Padding::Pkcs1, Hash::Sha512) => S::RsaPkcs1Sha512,
            },
            Some(rsa),
        )),
    }
}

fn digest<D: Digest>(from: &mut impl Read) -> Result<Bytes, Failure> {
    let mut hash = D::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(Bytes::copy_from_slice(&hash.finalize())),
            Ok(n) => hash.update(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failure::io("input", &e)),
        }
    }
}

/// An input that travels as it is.
pub(super) fn whole(from: impl Read, limit: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("input", &e))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(
            FailureKind::Data,
            format!("more than {limit} bytes; nothing here may be so long"),
        ));
    }
    Ok(bytes.into())
}
