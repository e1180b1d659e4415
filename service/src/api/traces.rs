//! Traces to an OpenTelemetry collector: OTLP over gRPC, in clear, so to one beside the
//! daemon. Only spans of this program leave it, and of those only what `trace` writes
//! into them: no event, no line of the log.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::{Builder, Runtime};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// For one parcel of spans.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the last one.
const LAST: Duration = Duration::from_secs(2);

/// The way to the collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    /// Its own: a slow collector takes nothing from requests, and the last spans are sent
    /// when their runtime has ended.
    runtime: Runtime,
}

impl Traces {
    /// To `endpoint`, which need not be there yet.
    ///
    /// # Errors
    /// When it is no address in clear.
    pub fn start(endpoint: &str) -> Result<Self, String> {
        if !endpoint.starts_with("http://") {
            return Err(format!(
                "{endpoint:?} is not http://HOST:PORT; for TLS put a collector beside the daemon"
            ));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let within = runtime.enter();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|e| e.to_string())?;
        drop(within);
        let resource = Resource::builder()
            .with_service_name("keywrightd")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider, runtime })
    }

    /// Takes the spans of this program and nothing else.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let ours = |m: &Metadata<'_>| m.is_span() && m.target().starts_with("keywright");
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("keywright"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false)
            .with_filter(filter_fn(ours))
    }

    /// Sends what waits.
    pub fn stop(self) {
        let Self { provider, runtime } = self;
        if let Err(e) = provider.shutdown_with_timeout(LAST) {
            tracing::warn!(error = %e, "the last traces were not sent");
        }
        runtime.shutdown_background();
    }
}
