//! One batch of each kind: from the wire to the operation and back. Unary calls and
//! streams both come through here.

use std::sync::Arc;

use bytes::Bytes;
use keywright_proto::v1 as proto;

use super::{checksum::Checksum, convert};
use crate::{
    envelope::Header,
    error::Result,
    ops::{self, App, Call, Strings},
};

pub(super) async fn encrypt(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::EncryptRequest,
) -> Result<proto::EncryptResponse> {
    let given = request.crc32c;
    let batch = convert::encrypt(request, &app.limits)?;
    let sum = Checksum::check(given, batch.plaintexts.iter().chain(all(&batch.aads)))?;
    let (packed, attached) = (batch.plaintexts.is_packed(), batch.attached);
    let mut sealed = ops::encrypt(app, call, batch).await?;
    let data = std::mem::take(&mut *sealed.output.data);
    let header = detached_header(attached, &sealed.header);
    let crc32c = sum.of([&header[..], &data]);
    let (items, packed_items) = convert::results(data, &sealed.output.ends, packed);
    Ok(proto::EncryptResponse {
        header,
        items,
        packed_items,
        errors: convert::errors(&sealed.output.failures),
        key_version: sealed.version,
        crc32c,
    })
}

pub(super) async fn decrypt(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::DecryptRequest,
) -> Result<proto::DecryptResponse> {
    let given = request.crc32c;
    let batch = convert::decrypt(request, &app.limits)?;
    let sum = Checksum::check(given, envelope_parts(&batch))?;
    let packed = batch.items.is_packed();
    let mut opened = ops::decrypt(app, call, batch).await?;
    let data = std::mem::take(&mut *opened.output.data);
    let crc32c = sum.of([&data[..]]);
    let (plaintexts, packed_plaintexts) = convert::results(data, &opened.output.ends, packed);
    Ok(proto::DecryptResponse {
        plaintexts,
        packed_plaintexts,
        errors: convert::errors(&opened.output.failures),
        crc32c,
        rewrap_due: opened.rewrap_due.into_iter().map(convert::count).collect(),
    })
}

pub(super) async fn rewrap(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::RewrapRequest,
) -> Result<proto::RewrapResponse> {
    let given = request.crc32c;
    let batch = convert::rewrap(request, &app.limits)?;
    let sum = Checksum::check(given, batch.envelopes.iter())?;
    let packed = batch.envelopes.is_packed();
    let out = ops::rewrap(app, call, batch).await?;
    let crc32c = sum.of([&out.data[..]]);
    let (envelopes, packed_envelopes) = convert::results(out.data, &out.ends, packed);
    Ok(proto::RewrapResponse {
        envelopes,
        packed_envelopes,
        errors: convert::errors(&out.failures),
        rewrapped: convert::count(out.rewrapped),
        already_current: convert::count(out.already_current),
        crc32c,
    })
}

pub(super) async fn reencrypt(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::ReencryptRequest,
) -> Result<proto::ReencryptResponse> {
    let given = request.crc32c;
    let batch = convert::reencrypt(request, &app.limits)?;
    let sum = Checksum::check(given, envelope_parts(&batch.from))?;
    let (packed, attached) = (batch.from.items.is_packed(), batch.from.header.is_none());
    let mut sealed = ops::reencrypt(app, call, batch).await?;
    let data = std::mem::take(&mut *sealed.output.data);
    let header = detached_header(attached, &sealed.header);
    let crc32c = sum.of([&header[..], &data]);
    let (items, packed_items) = convert::results(data, &sealed.output.ends, packed);
    Ok(proto::ReencryptResponse {
        header,
        items,
        packed_items,
        errors: convert::errors(&sealed.output.failures),
        key_version: sealed.version,
        crc32c,
    })
}

pub(super) async fn random(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::GenerateRandomRequest,
) -> Result<proto::GenerateRandomResponse> {
    convert::lengths(&request, &app.limits)?;
    let sum = Checksum::wanted(request.want_crc32c);
    let values = ops::random(app, call, &request.lengths).await?;
    let crc32c = sum.of(values.iter().map(Vec::as_slice));
    Ok(proto::GenerateRandomResponse {
        values: values.into_iter().map(Bytes::from).collect(),
        crc32c,
    })
}

pub(super) async fn sign(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::SignRequest,
) -> Result<proto::SignResponse> {
    let given = request.crc32c;
    let batch = convert::sign(request, &app.limits)?;
    let sum = Checksum::check(given, batch.inputs.iter())?;
    let packed = batch.inputs.is_packed();
    let signed = ops::sign(app, call, batch).await?;
    let crc32c = sum.of([&signed.output.data[..]]);
    Ok(convert::signed(signed, packed, crc32c))
}

pub(super) async fn verify(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::VerifyRequest,
) -> Result<proto::VerifyResponse> {
    let given = request.crc32c;
    let batch = convert::verify(request, &app.limits)?;
    Checksum::check(given, batch.inputs.iter().chain(batch.signatures.iter()))?;
    let checked = ops::verify(app, call, batch).await?;
    Ok(proto::VerifyResponse {
        verdicts: convert::verdicts(&checked.verdicts),
        errors: convert::errors(&checked.failures),
    })
}

pub(super) async fn mac(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::MacRequest,
) -> Result<proto::MacResponse> {
    let given = request.crc32c;
    let batch = convert::mac(request, &app.limits)?;
    let sum = Checksum::check(given, batch.inputs.iter())?;
    let packed = batch.inputs.is_packed();
    let (mut output, key_version) = ops::mac(app, call, batch).await?;
    let data = std::mem::take(&mut *output.data);
    let crc32c = sum.of([&data[..]]);
    let (macs, packed_macs) = convert::results(data, &output.ends, packed);
    Ok(proto::MacResponse {
        macs,
        packed_macs,
        errors: convert::errors(&output.failures),
        key_version,
        crc32c,
    })
}

pub(super) async fn verify_mac(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::VerifyMacRequest,
) -> Result<proto::VerifyMacResponse> {
    let given = request.crc32c;
    let batch = convert::verify_mac(request, &app.limits)?;
    Checksum::check(given, batch.inputs.iter().chain(batch.macs.iter()))?;
    let checked = ops::verify_mac(app, call, batch).await?;
    Ok(proto::VerifyMacResponse {
        verdicts: convert::verdicts(&checked.verdicts),
        errors: convert::errors(&checked.failures),
    })
}

pub(super) async fn asymmetric_decrypt(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::AsymmetricDecryptRequest,
) -> Result<proto::AsymmetricDecryptResponse> {
    let given = request.crc32c;
    let batch = convert::asymmetric_decrypt(request, &app.limits)?;
    let sum = Checksum::check(given, batch.ciphertexts.iter())?;
    let packed = batch.ciphertexts.is_packed();
    let (mut output, key_version) = ops::asymmetric_decrypt(app, call, batch).await?;
    let data = std::mem::take(&mut *output.data);
    let crc32c = sum.of([&data[..]]);
    let (plaintexts, packed_plaintexts) = convert::results(data, &output.ends, packed);
    Ok(proto::AsymmetricDecryptResponse {
        plaintexts,
        packed_plaintexts,
        errors: convert::errors(&output.failures),
        key_version,
        crc32c,
    })
}

pub(super) async fn generate_data_keys(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::GenerateDataKeysRequest,
) -> Result<proto::GenerateDataKeysResponse> {
    let sum = Checksum::wanted(request.want_crc32c);
    let (batch, plaintext, wrapped) = convert::generate_data_keys(request, &app.limits)?;
    let (keys, key_version) = ops::generate_data_keys(app, call, batch).await?;
    let data_keys: Vec<proto::DataKey> = keys
        .into_iter()
        .map(|key| convert::data_key(key, plaintext, wrapped))
        .collect();
    let parts = data_keys
        .iter()
        .flat_map(|k| [&k.plaintext, &k.wrapped, &k.id]);
    Ok(proto::GenerateDataKeysResponse {
        crc32c: sum.of(parts.map(|b| &b[..])),
        data_keys,
        key_version,
    })
}

pub(super) async fn decrypt_data_keys(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::DecryptDataKeysRequest,
) -> Result<proto::DecryptDataKeysResponse> {
    let given = request.crc32c;
    let batch = convert::decrypt_data_keys(request, &app.limits)?;
    let sum = Checksum::check(given, batch.which.iter())?;
    let mut opened = ops::decrypt_data_keys(app, call, batch).await?;
    let data = std::mem::take(&mut *opened.output.data);
    let crc32c = sum.of([&data[..]]);
    let (plaintexts, _) = convert::results(data, &opened.output.ends, false);
    Ok(proto::DecryptDataKeysResponse {
        plaintexts,
        errors: convert::errors(&opened.output.failures),
        crc32c,
        rewrap_due: opened.rewrap_due.into_iter().map(convert::count).collect(),
    })
}

fn detached_header(attached: bool, header: &Header) -> Bytes {
    if attached {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(header.as_bytes())
    }
}

fn all(strings: &Option<Strings>) -> impl Iterator<Item = &[u8]> {
    strings.iter().flat_map(Strings::iter)
}

fn envelope_parts(envelopes: &ops::Envelopes) -> impl Iterator<Item = &[u8]> {
    let header = envelopes.header.iter().map(Vec::as_slice);
    header
        .chain(envelopes.items.iter())
        .chain(all(&envelopes.aads))
}

pub(super) async fn forget_data_keys(
    app: &Arc<App>,
    call: &mut Call,
    request: proto::ForgetDataKeysRequest,
) -> Result<proto::ForgetDataKeysResponse> {
    let which = convert::forget_data_keys(&request, &app.limits)?;
    let forgotten = ops::forget_data_keys(app, call, which).await?;
    Ok(proto::ForgetDataKeysResponse {
        forgotten: convert::count(forgotten),
    })
}
