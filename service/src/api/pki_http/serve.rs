//! Connections of the public HTTP door: bounded in number, in the size of a head, and in
//! every time somebody could take.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::config::Limits;

/// After an accept error (out of file descriptors, say) a short pause, then on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Header lines of a request; clients send a dozen.
const MAX_HEADERS: usize = 64;

/// Serves `routes` until `stop` ends, then lets open requests finish.
pub async fn serve_http(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let patience = Duration::from_millis(limits.http_request_ms);
    let routes = routes.layer(from_fn(move |request, next| {
        in_time(patience, request, next)
    }));
    let slots = Arc::new(Semaphore::new(limits.http_connections));
    let (stopping, stopped) = watch::channel(());
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(stream, routes.clone(), limits, stopped.clone(), slot);
                    tokio::spawn(served);
                }
                Err(e) => {
                    warn!(error = %e, "an HTTP connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = accepting => {}
    }
    drop(stopped);
    let _ = stopping.send(());
    // Every connection has its own end.
    stopping.closed().await;
}

async fn connection(
    stream: TcpStream,
    routes: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
    _slot: OwnedSemaphorePermit,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.http_head_ms))
        .max_buf_size(limits.http_head_bytes)
        .max_headers(MAX_HEADERS);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(served);
    let age = sleep(Duration::from_millis(limits.http_connection_ms));
    tokio::select! {
        ended = &mut served => {
            if let Err(e) = ended {
                debug!(error = %e, "an HTTP connection ended");
            }
            return;
        }
        () = age => {}
        _ = stopped.changed() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(Duration::from_millis(limits.http_request_ms), served).await;
}

/// Also for a body that trickles in.
async fn in_time(patience: Duration, request: Request, next: Next) -> Response {
    timeout(patience, next.run(request))
        .await
        .unwrap_or_else(|_| {
            let text = "this took too long\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        })
}
