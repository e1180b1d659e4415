//! What the doors of the PKI have in common: every request runs in a task of its own. A
//! caller that leaves does not leave a half-done certificate behind.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{guard::begin, status::status};
use crate::{
    error::{Error, Result},
    ops::{App, Call},
};

/// Takes a request over, runs it to its end, and puts the result or the error on the wire.
pub(super) async fn detached<Q, R, F>(
    app: &Arc<App>,
    request: Request<Q>,
    run: fn(Arc<App>, Call, Q) -> F,
) -> Result<Response<R>, Status>
where
    R: Send + 'static,
    F: Future<Output = Result<R>> + Send + 'static,
{
    let (call, request) = begin(request)?;
    let id = call.entry.request_id.clone();
    let task = tokio::spawn(run(Arc::clone(app), call, request));
    let result = task
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("a request ended early: {e}"))));
    result.map(Response::new).map_err(|e| status(&e, &id))
}

/// A service of the wire: `rpc(Request) -> Response = |app, call, message| operation`. One
/// function for each RPC, with its audit record, and the handler that runs it. What stands
/// under `also` is taken as it is.
macro_rules! door {
    (
        $(#[$doc:meta])*
        $door:ident: $service:ident {
            $($rpc:ident($request:ident) -> $response:ident
                = |$app:ident, $call:ident, $message:ident| $run:expr;)*
        }
        $(also { $($also:tt)* })?
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $door {
            app: std::sync::Arc<$crate::ops::App>,
        }

        impl $door {
            pub(super) fn new(app: std::sync::Arc<$crate::ops::App>) -> Self {
                Self { app }
            }
        }

        mod rpcs {
            use super::*;

            $(pub(super) async fn $rpc(
                app: std::sync::Arc<$crate::ops::App>,
                call: $crate::ops::Call,
                $message: $request,
            ) -> $crate::error::Result<$response> {
                $crate::ops::accounted(&app, call, async |$app, $call| $run).await
            })*
        }

        #[tonic::async_trait]
        impl $service for $door {
            $(async fn $rpc(
                &self,
                request: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, tonic::Status> {
                $crate::api::grpc::door::detached(&self.app, request, rpcs::$rpc).await
            })*
            $($($also)*)?
        }
    };
}
pub(super) use door;
