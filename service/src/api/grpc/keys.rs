//! `keywright.v1.Keys`: convert, operation, convert.
//!
//! What changes a key runs in a task of its own: a caller that leaves does not leave a
//! half-done change behind.

use std::sync::Arc;

use keywright_proto::v1::{
    ChangeStateRequest, ChangeStateResponse, CreateKeyRequest, CreateKeyResponse,
    GetKeyEvidenceRequest, GetKeyEvidenceResponse, GetKeyRequest, GetKeyResponse,
    GetPublicKeyRequest, GetPublicKeyResponse, ListKeysRequest, ListKeysResponse, RotateKeyRequest,
    RotateKeyResponse, keys_server::Keys,
};
use tonic::{Request, Response, Status};

use super::{convert, guard::begin, status::status};
use crate::{
    error::{Error, Result},
    ops::{self, App, accounted},
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
}

/// Runs to its end even if nobody waits for it any more.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|e| {
        Err(Error::internal(format!(
            "a change of a key ended early: {e}"
        )))
    })
}

#[tonic::async_trait]
impl Keys for KeysDoor {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let app = Arc::clone(&self.app);
        let key = detached(async move {
            accounted(&app, call, async |app, call| {
                ops::create_key(app, call, convert::proposal(request)?).await
            })
            .await
        })
        .await;
        key.map(|k| {
            Response::new(CreateKeyResponse {
                key: Some(convert::key(&k)),
            })
        })
        .map_err(|e| status(&e, &id))
    }

    async fn get_key(
        &self,
        request: Request<GetKeyRequest>,
    ) -> Result<Response<GetKeyResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let key = accounted(&self.app, call, async |app, call| {
            ops::get_key(app, call, &convert::key_name("name", &request.name)?)
        })
        .await;
        key.map(|k| {
            Response::new(GetKeyResponse {
                key: Some(convert::key(&k)),
            })
        })
        .map_err(|e| status(&e, &id))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let page = accounted(&self.app, call, async |app, call| {
            ops::list_keys(app, call, &convert::list(request)?)
        })
        .await;
        page.map(|p| Response::new(convert::page(&p)))
            .map_err(|e| status(&e, &id))
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let app = Arc::clone(&self.app);
        let key = detached(async move {
            accounted(&app, call, async |app, call| {
                ops::rotate_key(app, call, &convert::key_name("name", &request.name)?).await
            })
            .await
        })
        .await;
        key.map(|k| {
            Response::new(RotateKeyResponse {
                key: Some(convert::key(&k)),
            })
        })
        .map_err(|e| status(&e, &id))
    }

    async fn get_key_evidence(
        &self,
        request: Request<GetKeyEvidenceRequest>,
    ) -> Result<Response<GetKeyEvidenceResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let evidence = accounted(&self.app, call, async |app, call| {
            let name = convert::key_name("name", &request.name)?;
            let only = (request.version != 0).then_some(request.version);
            ops::get_key_evidence(app, call, &name, only).await
        })
        .await;
        evidence
            .map(|e| Response::new(convert::evidence(e)))
            .map_err(|e| status(&e, &id))
    }

    async fn get_public_key(
        &self,
        request: Request<GetPublicKeyRequest>,
    ) -> Result<Response<GetPublicKeyResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let public = accounted(&self.app, call, async |app, call| {
            let name = convert::key_name("name", &request.name)?;
            let version = (request.version != 0).then_some(request.version);
            convert::public_key(&ops::get_public_key(app, call, &name, version)?)
        })
        .await;
        public.map(Response::new).map_err(|e| status(&e, &id))
    }

    async fn change_state(
        &self,
        request: Request<ChangeStateRequest>,
    ) -> Result<Response<ChangeStateResponse>, Status> {
        let (call, request) = begin(request)?;
        let id = call.entry.request_id.clone();
        let app = Arc::clone(&self.app);
        let key = detached(async move {
            accounted(&app, call, async |app, call| {
                ops::change_state(app, call, &convert::change_state(&request)?).await
            })
            .await
        })
        .await;
        key.map(|k| {
            Response::new(ChangeStateResponse {
                key: Some(convert::key(&k)),
            })
        })
        .map_err(|e| status(&e, &id))
    }
}
