//! Lines of the log and, with the feature `otel`, spans for a collector.

#[cfg(feature = "otel")]
use keywright_service::api::Traces;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(not(feature = "otel"))]
pub(crate) type Traces = std::convert::Infallible;

#[cfg(feature = "otel")]
pub(crate) fn stop(traces: Traces) {
    traces.stop();
}

#[cfg(not(feature = "otel"))]
pub(crate) fn stop(never: Traces) {
    match never {}
}

/// Lines for people and their tools; with the feature `otel` spans for a collector, when
/// the environment names one.
pub(crate) fn log_to_stderr() -> Option<Traces> {
    let filter =
        EnvFilter::try_from_env("KEYWRIGHT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The list of spans begins with the request, whatever is at work for it.
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_current_span(false)
        .with_span_list(true)
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(not(feature = "otel"))]
    {
        registry.init();
        None
    }
    #[cfg(feature = "otel")]
    {
        let started = collector().map(|endpoint| Traces::start(&endpoint));
        let traces = started.as_ref().and_then(|t| t.as_ref().ok());
        registry.with(traces.map(Traces::layer)).init();
        match started.transpose() {
            Ok(traces) => traces,
            Err(why) => {
                tracing::error!(why, "no traces: OTEL_EXPORTER_OTLP_ENDPOINT");
                None
            }
        }
    }
}

#[cfg(feature = "otel")]
#[expect(
    clippy::disallowed_methods,
    reason = "before there is a configuration, as for the level of the log"
)]
fn collector() -> Option<String> {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok();
    endpoint.filter(|e| !e.is_empty())
}
