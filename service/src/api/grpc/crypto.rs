//! `keywright.v1.Crypto`: convert, operation, convert.

use std::sync::Arc;

use bytes::Bytes;
use keywright_proto::v1::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, GenerateRandomRequest,
    GenerateRandomResponse, ReencryptRequest, ReencryptResponse, RewrapRequest, RewrapResponse,
    crypto_server::Crypto,
};
use tonic::{Request, Response, Status};

use super::{convert, guard::begin, status::status};
use crate::ops::{self, App, accounted};

/// The handlers.
#[derive(Debug)]
pub(super) struct CryptoDoor {
    app: Arc<App>,
}

impl CryptoDoor {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl Crypto for CryptoDoor {
    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let response = accounted(&self.app, call, async |app, call| {
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
        .await;
        response.map(Response::new).map_err(|e| status(&e, &id))
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let response = accounted(&self.app, call, async |app, call| {
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
        .await;
        response.map(Response::new).map_err(|e| status(&e, &id))
    }

    async fn rewrap(
        &self,
        request: Request<RewrapRequest>,
    ) -> Result<Response<RewrapResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let response = accounted(&self.app, call, async |app, call| {
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
        .await;
        response.map(Response::new).map_err(|e| status(&e, &id))
    }

    async fn reencrypt(
        &self,
        request: Request<ReencryptRequest>,
    ) -> Result<Response<ReencryptResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let response = accounted(&self.app, call, async |app, call| {
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
        .await;
        response.map(Response::new).map_err(|e| status(&e, &id))
    }

    async fn generate_random(
        &self,
        request: Request<GenerateRandomRequest>,
    ) -> Result<Response<GenerateRandomResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let response = accounted(&self.app, call, async |app, call| {
            convert::lengths(&request, &app.limits)?;
            let values = ops::random(app, call, &request.lengths).await?;
            Ok(GenerateRandomResponse {
                values: values.into_iter().map(Bytes::from).collect(),
            })
        })
        .await;
        response.map(Response::new).map_err(|e| status(&e, &id))
    }
}
