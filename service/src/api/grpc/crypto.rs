//! `keywright.v1.Crypto`: convert, operation, convert.

use std::sync::Arc;

use bytes::Bytes;
use keywright_proto::v1::{
    AsymmetricDecryptRequest, AsymmetricDecryptResponse, DecryptDataKeysRequest,
    DecryptDataKeysResponse, DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse,
    GenerateDataKeysRequest, GenerateDataKeysResponse, GenerateRandomRequest,
    GenerateRandomResponse, MacRequest, MacResponse, ReencryptRequest, ReencryptResponse,
    RewrapRequest, RewrapResponse, SignRequest, SignResponse, VerifyMacRequest, VerifyMacResponse,
    VerifyRequest, VerifyResponse, crypto_server::Crypto,
};
use tonic::{Request, Response, Status};

use super::{convert, guard::begin, status::status};
use crate::{
    error,
    ops::{self, App, Call, accounted},
};

/// The handlers.
#[derive(Debug)]
pub(super) struct CryptoDoor {
    app: Arc<App>,
}

impl CryptoDoor {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Takes a request over, runs the operation with its record, and puts the result or
    /// the error on the wire.
    async fn answer<Q, R>(
        &self,
        request: Request<Q>,
        run: impl AsyncFnOnce(&Arc<App>, &mut Call, Q) -> error::Result<R>,
    ) -> Result<Response<R>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        accounted(&self.app, call, async |app, call| {
            run(app, call, request).await
        })
        .await
        .map(Response::new)
        .map_err(|e| status(&e, &id))
    }
}

#[tonic::async_trait]
impl Crypto for CryptoDoor {
    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::encrypt(request, &app.limits)?;
            let (packed, attached) = (batch.plaintexts.is_packed(), batch.attached);
            let mut sealed = ops::encrypt(app, call, batch).await?;
            let data = std::mem::take(&mut *sealed.output.data);
            let (items, packed_items) = convert::results(data, &sealed.output.ends, packed);
            Ok(EncryptResponse {
                header: if attached {
                    Bytes::new()
                } else {
                    Bytes::copy_from_slice(sealed.header.as_bytes())
                },
                items,
                packed_items,
                errors: convert::errors(&sealed.output.failures),
                key_version: sealed.version,
            })
        })
        .await
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::decrypt(request, &app.limits)?;
            let packed = batch.items.is_packed();
            let mut output = ops::decrypt(app, call, batch).await?;
            let data = std::mem::take(&mut *output.data);
            let (plaintexts, packed_plaintexts) = convert::results(data, &output.ends, packed);
            Ok(DecryptResponse {
                plaintexts,
                packed_plaintexts,
                errors: convert::errors(&output.failures),
            })
        })
        .await
    }

    async fn rewrap(
        &self,
        request: Request<RewrapRequest>,
    ) -> Result<Response<RewrapResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::rewrap(request, &app.limits)?;
            let packed = batch.envelopes.is_packed();
            let out = ops::rewrap(app, call, batch).await?;
            let (envelopes, packed_envelopes) = convert::results(out.data, &out.ends, packed);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Ok(RewrapResponse {
                envelopes,
                packed_envelopes,
                errors: convert::errors(&out.failures),
                rewrapped: count(out.rewrapped),
                already_current: count(out.already_current),
            })
        })
        .await
    }

    async fn reencrypt(
        &self,
        request: Request<ReencryptRequest>,
    ) -> Result<Response<ReencryptResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::reencrypt(request, &app.limits)?;
            let (packed, attached) = (batch.from.items.is_packed(), batch.from.header.is_none());
            let mut sealed = ops::reencrypt(app, call, batch).await?;
            let data = std::mem::take(&mut *sealed.output.data);
            let (items, packed_items) = convert::results(data, &sealed.output.ends, packed);
            Ok(ReencryptResponse {
                header: if attached {
                    Bytes::new()
                } else {
                    Bytes::copy_from_slice(sealed.header.as_bytes())
                },
                items,
                packed_items,
                errors: convert::errors(&sealed.output.failures),
                key_version: sealed.version,
            })
        })
        .await
    }

    async fn generate_random(
        &self,
        request: Request<GenerateRandomRequest>,
    ) -> Result<Response<GenerateRandomResponse>, Status> {
        self.answer(request, async |app, call, request| {
            convert::lengths(&request, &app.limits)?;
            let values = ops::random(app, call, &request.lengths).await?;
            Ok(GenerateRandomResponse {
                values: values.into_iter().map(Bytes::from).collect(),
            })
        })
        .await
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::sign(request, &app.limits)?;
            let packed = batch.inputs.is_packed();
            let signed = ops::sign(app, call, batch).await?;
            Ok(convert::signed(signed, packed))
        })
        .await
    }

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::verify(request, &app.limits)?;
            let verdicts = ops::verify(app, call, batch).await?;
            Ok(VerifyResponse {
                verdicts: convert::verdicts(&verdicts),
            })
        })
        .await
    }

    async fn mac(&self, request: Request<MacRequest>) -> Result<Response<MacResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::mac(request, &app.limits)?;
            let packed = batch.inputs.is_packed();
            let (mut output, key_version) = ops::mac(app, call, batch).await?;
            let data = std::mem::take(&mut *output.data);
            let (macs, packed_macs) = convert::results(data, &output.ends, packed);
            Ok(MacResponse {
                macs,
                packed_macs,
                errors: convert::errors(&output.failures),
                key_version,
            })
        })
        .await
    }

    async fn verify_mac(
        &self,
        request: Request<VerifyMacRequest>,
    ) -> Result<Response<VerifyMacResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::verify_mac(request, &app.limits)?;
            let verdicts = ops::verify_mac(app, call, batch).await?;
            Ok(VerifyMacResponse {
                verdicts: convert::verdicts(&verdicts),
            })
        })
        .await
    }

    async fn asymmetric_decrypt(
        &self,
        request: Request<AsymmetricDecryptRequest>,
    ) -> Result<Response<AsymmetricDecryptResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::asymmetric_decrypt(request, &app.limits)?;
            let packed = batch.ciphertexts.is_packed();
            let (mut output, key_version) = ops::asymmetric_decrypt(app, call, batch).await?;
            let data = std::mem::take(&mut *output.data);
            let (plaintexts, packed_plaintexts) = convert::results(data, &output.ends, packed);
            Ok(AsymmetricDecryptResponse {
                plaintexts,
                packed_plaintexts,
                errors: convert::errors(&output.failures),
                key_version,
            })
        })
        .await
    }

    async fn generate_data_keys(
        &self,
        request: Request<GenerateDataKeysRequest>,
    ) -> Result<Response<GenerateDataKeysResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let (batch, plaintext, wrapped) = convert::generate_data_keys(request, &app.limits)?;
            let (keys, key_version) = ops::generate_data_keys(app, call, batch).await?;
            let wire = |key| convert::data_key(key, plaintext, wrapped);
            Ok(GenerateDataKeysResponse {
                data_keys: keys.into_iter().map(wire).collect(),
                key_version,
            })
        })
        .await
    }

    async fn decrypt_data_keys(
        &self,
        request: Request<DecryptDataKeysRequest>,
    ) -> Result<Response<DecryptDataKeysResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let batch = convert::decrypt_data_keys(request, &app.limits)?;
            let mut output = ops::decrypt_data_keys(app, call, batch).await?;
            let data = std::mem::take(&mut *output.data);
            let (plaintexts, _) = convert::results(data, &output.ends, false);
            Ok(DecryptDataKeysResponse {
                plaintexts,
                errors: convert::errors(&output.failures),
            })
        })
        .await
    }
}
