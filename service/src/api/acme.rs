//! The ACME door (RFC 8555): HTTPS without client certificates, because requests are
//! signed one by one. A fresh nonce goes with every answer, also with every refusal.

mod answer;
mod listener;
mod routes;

use std::sync::Arc;

use crate::ops::acme::Acme;
use listener::ClientAddr;

pub use listener::{Conns, client_conns};

/// Serves until `stop` ends.
pub async fn serve(acme: Arc<Acme>, conns: Conns, stop: impl Future<Output = ()> + Send + 'static) {
    let routes = routes::router(acme).into_make_service_with_connect_info::<ClientAddr>();
    let served = axum::serve(conns, routes).with_graceful_shutdown(stop);
    if let Err(e) = served.await {
        tracing::error!(error = %e, "ACME is not served any more");
    }
}
