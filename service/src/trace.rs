//! The span of a request: its number and what it asks for, so that every line of the log
//! that comes of it can be told from the others. With the feature `otel` it is what a
//! collector is shown, together with the outcome.
//!
//! What never happens here: names of keys, callers, contexts or anything else of what a
//! request holds. Whoever reads traces sees when something happened and for how long.

use tracing::{Span, error_span};

/// The span of a request. At the level of errors: it is there whenever a line could need
/// it. `traceparent`: the caller's own place in a trace (W3C Trace Context).
pub(crate) fn request(rpc: &'static str, request_id: &str, traceparent: Option<&str>) -> Span {
    let span = error_span!("request", rpc, request_id);
    follow(&span, traceparent);
    span
}

/// The span of one batch of a stream.
pub(crate) fn batch(stream: &Span, rpc: &'static str, request_id: &str) -> Span {
    error_span!(parent: stream, "batch", rpc, request_id)
}

/// How it ended. Not a field: the writer of the log would put its line together anew.
#[cfg_attr(
    not(feature = "otel"),
    expect(unused_variables, reason = "only traces tell the outcome")
)]
pub(crate) fn outcome(span: &Span, outcome: &'static str) {
    #[cfg(feature = "otel")]
    tracing_opentelemetry::OpenTelemetrySpanExt::set_attribute(span, "outcome", outcome);
}

#[cfg(feature = "otel")]
fn follow(span: &Span, traceparent: Option<&str>) {
    use opentelemetry::propagation::{Extractor, TextMapPropagator};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    /// The one header; `tracestate` is anybody's free text and is not passed on.
    struct Parent<'a>(&'a str);

    impl Extractor for Parent<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }

    if let Some(text) = traceparent {
        let parent = TraceContextPropagator::new().extract(&Parent(text));
        // Refused when nobody collects this span.
        let _ = span.set_parent(parent);
    }
}

#[cfg(not(feature = "otel"))]
fn follow(_: &Span, _: Option<&str>) {}
