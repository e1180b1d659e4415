//! `/metrics`, `/healthz` and `/readyz`, in clear, on a loopback address: for the
//! scraper and the supervisor beside the daemon, not for callers.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use keywright_hsm as hsm;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tracing::error;

use crate::{metrics, ops::App};

#[derive(Clone)]
struct Admin {
    app: Arc<App>,
    prometheus: PrometheusHandle,
}

/// Serves until `stop` ends.
pub async fn admin(
    listener: TcpListener,
    app: Arc<App>,
    prometheus: PrometheusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let routes = Router::new()
        // Alive: the event loop answers. Restarting helps only when it does not.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Admin { app, prometheus });
    if let Err(e) = axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await
    {
        error!(error = %e, "metrics and health are not served any more");
    }
}

/// Ready: a request could be answered now.
async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let hsm = match admin.app.hsm.state() {
        hsm::State::Ready => "ready",
        hsm::State::Down => "down",
        hsm::State::Blocked => "blocked: the PIN was refused",
        hsm::State::Diverged => "diverged: it does not hold the appliance's own key",
    };
    let audit = if admin.app.audit.healthy() {
        "ready"
    } else {
        "down"
    };
    let node = if admin.app.membership.serves() {
        "ready"
    } else {
        "fenced: it has lost touch with the other nodes"
    };
    let ready = [hsm, audit, node] == ["ready"; 3];
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let tokens: serde_json::Map<_, _> = admin
        .app
        .hsm
        .tokens()
        .into_iter()
        .map(|t| (t.name, t.state.name().into()))
        .collect();
    let body = serde_json::json!({
        "ready": ready, "hsm": hsm, "audit": audit, "node": node, "tokens": tokens,
    });
    (
        status,
        [("content-type", "application/json")],
        format!("{body}\n"),
    )
}

async fn scrape(State(admin): State<Admin>) -> impl IntoResponse {
    let Admin { app, prometheus } = admin;
    metrics::refresh(&app.picture());
    (
        [("content-type", "text/plain; version=0.0.4")],
        prometheus.render(),
    )
}
