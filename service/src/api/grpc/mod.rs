//! The gRPC door: `keywright.v1`, health and reflection. Every limit of HTTP/2 is set
//! on purpose; tonic's defaults leave several of them open.

mod batch;
mod checksum;
mod convert;
mod crypto;
mod door;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod jobs;
mod keys;
mod lease;
mod pki;
mod pki_admin;
mod rpcs;
mod status;
mod stream;

use std::{io, sync::Arc, time::Duration};

use keywright_hsm::State;
use keywright_proto::{
    DESCRIPTORS,
    v1::{
        crypto_server::CryptoServer, jobs_server::JobsServer, keys_server::KeysServer,
        pki_admin_server::PkiAdminServer, pki_server::PkiServer,
    },
};
use tokio::time::interval;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Server, server::Router};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::layer::util::{Identity, Stack};

pub use rpcs::{AUDITED_RPCS, rpc_name};
pub use status::status;

use self::{
    crypto::CryptoDoor, guard::GuardLayer, jobs::JobsDoor, keys::KeysDoor, pki::PkiDoor,
    pki_admin::PkiAdminDoor,
};
use super::Conn;
use crate::{config::Limits, ops::App};

/// Serves until `stop` ends; then open requests may finish.
///
/// # Errors
/// When the server cannot be built or a part of it fails for good.
pub async fn serve(
    app: Arc<App>,
    conns: ReceiverStream<io::Result<Conn>>,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let watcher = tokio::spawn(watch_health(Arc::clone(&app), health.clone()));
    // Both versions of the protocol: many clients still ask for the older one.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let result = router(&app)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(conns, async {
            stop.await;
            watcher.abort();
            for service in SERVICES {
                health
                    .set_service_status(service, ServingStatus::NotServing)
                    .await;
            }
        })
        .await;
    result.map_err(Into::into)
}

/// "" stands for the server as a whole.
const SERVICES: [&str; 6] = [
    "",
    "keywright.v1.Crypto",
    "keywright.v1.Jobs",
    "keywright.v1.Keys",
    "keywright.v1.Pki",
    "keywright.v1.PkiAdmin",
];

fn router(app: &Arc<App>) -> Router<Stack<GuardLayer, Identity>> {
    let bytes = app.limits.message_bytes;
    let crypto = CryptoServer::new(CryptoDoor::new(Arc::clone(app)));
    let keys = KeysServer::new(KeysDoor::new(Arc::clone(app)));
    let jobs = JobsServer::new(JobsDoor::new(Arc::clone(app)));
    let pki = PkiServer::new(PkiDoor::new(Arc::clone(app)));
    let admin = PkiAdminServer::new(PkiAdminDoor::new(Arc::clone(app)));
    server(&app.limits)
        .layer(GuardLayer::new(Arc::clone(app)))
        .add_service(crypto.max_decoding_message_size(bytes))
        .add_service(jobs.max_decoding_message_size(bytes))
        .add_service(keys.max_decoding_message_size(bytes))
        .add_service(pki.max_decoding_message_size(bytes))
        .add_service(admin.max_decoding_message_size(bytes))
}

/// HTTP/2 with every limit set. Public, so that benchmarks can echo on the same stack.
#[must_use]
pub fn server(limits: &Limits) -> Server {
    let ms = Duration::from_millis;
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_pending_accept_reset_streams(Some(limits.pending_resets))
        .http2_max_local_error_reset_streams(Some(limits.local_resets))
        .http2_max_header_list_size(limits.header_list_bytes)
        .max_frame_size(limits.frame_bytes)
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .http2_keepalive_interval(Some(ms(limits.keepalive_ms)))
        .http2_keepalive_timeout(Some(ms(limits.keepalive_ms)))
        // No grace: with one, tonic cuts the connection instead of asking (GOAWAY).
        .max_connection_age(ms(limits.connection_age_ms))
}

/// Tells load balancers when the HSM or the audit log is gone.
async fn watch_health(app: Arc<App>, health: HealthReporter) {
    let mut tick = interval(Duration::from_millis(250));
    let mut told = None;
    loop {
        tick.tick().await;
        let serving =
            app.hsm.state() == State::Ready && app.audit.healthy() && app.membership.serves();
        if told != Some(serving) {
            let status = if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            for service in SERVICES {
                health.set_service_status(service, status).await;
            }
            told = Some(serving);
        }
    }
}
