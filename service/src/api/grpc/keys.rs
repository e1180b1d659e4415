//! `keywright.v1.Keys`: convert, operation, convert.
//!
//! What changes a key runs in a task of its own: a caller that leaves does not leave a
//! half-done change behind.

use std::sync::Arc;

use keywright_proto::v1::{
    self as proto, CancelDestructionRequest, CancelDestructionResponse, ChangeStateRequest,
    ChangeStateResponse, CreateKeyRequest, CreateKeyResponse, ExplainRequest, ExplainResponse,
    GetKeyEvidenceRequest, GetKeyEvidenceResponse, GetKeyRequest, GetKeyResponse,
    GetPublicKeyRequest, GetPublicKeyResponse, ListKeysRequest, ListKeysResponse, RotateKeyRequest,
    RotateKeyResponse, ScheduleDestructionRequest, ScheduleDestructionResponse, UpdateKeyRequest,
    UpdateKeyResponse, keys_server::Keys,
};
use tonic::{Request, Response, Status};

use super::{convert, guard::begin, status::status};
use crate::{
    error::{Error, Result},
    key::Key,
    ops::{self, App, Call, accounted},
};

/// The handlers.
#[derive(Debug)]
pub(super) struct KeysDoor {
    app: Arc<App>,
}

impl KeysDoor {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Takes a request over, runs the operation with its record, and puts the result or
    /// the error on the wire.
    async fn answer<Q, R>(
        &self,
        request: Request<Q>,
        run: impl AsyncFnOnce(&Arc<App>, &mut Call, Q) -> Result<R>,
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

    /// The same for a change of a key: it runs to its end even if nobody waits for it any
    /// more.
    async fn change<Q, F>(
        &self,
        request: Request<Q>,
        run: fn(Arc<App>, Call, Q) -> F,
    ) -> Result<proto::Key, Status>
    where
        F: Future<Output = Result<Arc<Key>>> + Send + 'static,
    {
        let (call, request) = begin(request)?;
        let (id, now_ms) = (call.entry.request_id.clone(), call.now_ms);
        let task = tokio::spawn(run(Arc::clone(&self.app), call, request));
        let key = task.await.unwrap_or_else(|e| {
            Err(Error::internal(format!(
                "a change of a key ended early: {e}"
            )))
        });
        key.map(|key| convert::key(&key, now_ms))
            .map_err(|e| status(&e, &id))
    }
}

/// Changes of keys: `rpc(Request) -> Response = |app, call, request| operation`.
macro_rules! changes {
    ($($rpc:ident($request:ident) = |$app:ident, $call:ident, $message:ident| $run:expr;)*) => {
        /// One function for each change, with its record.
        mod changes {
            use super::*;

            $(pub(super) async fn $rpc(
                app: Arc<App>,
                call: Call,
                $message: $request,
            ) -> Result<Arc<Key>> {
                accounted(&app, call, async |$app, $call| $run.await).await
            })*
        }
    };
}

changes! {
    create(CreateKeyRequest) = |app, call, m| ops::create_key(app, call, convert::proposal(m)?);
    rotate(RotateKeyRequest) = |app, call, m| ops::rotate_key(app, call, &convert::key_name("name", &m.name)?);
    state(ChangeStateRequest) = |app, call, m| ops::change_state(app, call, &convert::change_state(&m)?);
    update(UpdateKeyRequest) = |app, call, m| ops::update_key(app, call, convert::update_key(m)?);
    schedule(ScheduleDestructionRequest) = |app, call, m| ops::schedule_destruction(app, call, &convert::schedule_destruction(&m)?);
    cancel(CancelDestructionRequest) = |app, call, m| ops::cancel_destruction(app, call, &convert::cancel_destruction(&m)?);
}

#[tonic::async_trait]
impl Keys for KeysDoor {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let key = Some(self.change(request, changes::create).await?);
        Ok(Response::new(CreateKeyResponse { key }))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let key = Some(self.change(request, changes::rotate).await?);
        Ok(Response::new(RotateKeyResponse { key }))
    }

    async fn change_state(
        &self,
        request: Request<ChangeStateRequest>,
    ) -> Result<Response<ChangeStateResponse>, Status> {
        let key = Some(self.change(request, changes::state).await?);
        Ok(Response::new(ChangeStateResponse { key }))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let key = Some(self.change(request, changes::update).await?);
        Ok(Response::new(UpdateKeyResponse { key }))
    }

    async fn schedule_destruction(
        &self,
        request: Request<ScheduleDestructionRequest>,
    ) -> Result<Response<ScheduleDestructionResponse>, Status> {
        let key = Some(self.change(request, changes::schedule).await?);
        Ok(Response::new(ScheduleDestructionResponse { key }))
    }

    async fn cancel_destruction(
        &self,
        request: Request<CancelDestructionRequest>,
    ) -> Result<Response<CancelDestructionResponse>, Status> {
        let key = Some(self.change(request, changes::cancel).await?);
        Ok(Response::new(CancelDestructionResponse { key }))
    }

    async fn get_key(
        &self,
        request: Request<GetKeyRequest>,
    ) -> Result<Response<GetKeyResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let key = ops::get_key(app, call, &convert::key_name("name", &request.name)?)?;
            Ok(GetKeyResponse {
                key: Some(convert::key(&key, call.now_ms)),
            })
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let page = ops::list_keys(app, call, &convert::list(request)?)?;
            Ok(convert::page(&page, call.now_ms))
        })
        .await
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let explained = ops::explain(app, call, &convert::explain(&request)?)?;
            Ok(convert::explained(explained))
        })
        .await
    }

    async fn get_key_evidence(
        &self,
        request: Request<GetKeyEvidenceRequest>,
    ) -> Result<Response<GetKeyEvidenceResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let name = convert::key_name("name", &request.name)?;
            let only = (request.version != 0).then_some(request.version);
            let evidence = ops::get_key_evidence(app, call, &name, only).await?;
            Ok(convert::evidence(evidence))
        })
        .await
    }

    async fn get_public_key(
        &self,
        request: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        self.answer(request, async |app, call, request| {
            let name = convert::key_name("name", &request.name)?;
            let version = (request.version != 0).then_some(request.version);
            convert::public_key(&ops::get_public_key(app, call, &name, version)?)
        })
        .await
    }
}
