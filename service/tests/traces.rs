//! With the feature `otel`: a collector is shown when something happened and for how long,
//! and nothing of what was in it. The collector here is a tiny one of our own, and so are
//! the few fields of its messages.
#![cfg(feature = "otel")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

mod common;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use common::Appliance;
use keywright_client::proto;
use keywright_service::api::Traces;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_prost::ProstCodec;
use tower::Service;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`, as far as needed.
#[derive(Clone, PartialEq, prost::Message)]
struct Parcel {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Empty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

impl Span {
    fn text(&self, key: &str) -> &str {
        let found = self.attributes.iter().find(|a| a.key == key);
        let value = found.and_then(|a| a.value.as_ref()?.text.as_deref());
        value.unwrap_or_default()
    }
}

#[derive(Clone)]
struct Collector(mpsc::UnboundedSender<Parcel>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

type Later<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl UnaryService<Parcel> for Collector {
    type Response = Empty;
    type Future = Later<Response<Empty>, Status>;

    fn call(&mut self, request: Request<Parcel>) -> Self::Future {
        let _ = self.0.send(request.into_inner());
        Box::pin(async { Ok(Response::new(Empty {})) })
    }
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Empty, Parcel>::default());
            Ok(grpc.unary(this, request).await)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_and_hold_nothing_but_what_they_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (parcels, mut received) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(Collector(parcels));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    assert!(Traces::start("https://collector.example:4317").is_err());
    let traces = Traces::start(&endpoint).unwrap();
    tracing_subscriber::registry().with(traces.layer()).init();

    let it = Appliance::start().await;
    it.create("red", "payments/canary-key").await;
    let client = it.client("red", "user").await;
    let mut encrypt = Request::new(proto::EncryptRequest {
        key: "payments/canary-key".into(),
        context: [("CANARY-name".to_owned(), "CANARY-value".to_owned())].into(),
        ..common::encrypt("payments/canary-key", &[b"CANARY-plaintext"])
    });
    let headers = encrypt.metadata_mut();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", parent.parse().unwrap());
    headers.insert("tracestate", "a=CANARY-state".parse().unwrap());
    headers.insert("x-request-id", "mine-1".parse().unwrap());
    let _ = client.crypto().encrypt(encrypt).await.unwrap();
    let none = common::encrypt("no/canary-such", &[b"x"]);
    let _ = client.crypto().encrypt(none).await.unwrap_err();
    tokio::task::spawn_blocking(|| traces.stop()).await.unwrap();

    let mut spans = Vec::new();
    while let Ok(Parcel { resources }) = received.try_recv() {
        let scopes = resources.into_iter().flat_map(|r| r.scopes);
        spans.extend(scopes.flat_map(|s| s.spans));
    }
    let request = spans.iter().find(|s| s.text("request_id") == "mine-1");
    let request = request.expect("the request has a span");
    assert_eq!(request.name, "request");
    assert_eq!(request.text("rpc"), "Encrypt");
    assert_eq!(request.text("outcome"), "OK");
    assert_eq!(
        hex::encode(&request.trace),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(hex::encode(&request.parent), "b7ad6b7169203331");
    for name in ["hsm queue", "hsm job", "audit"] {
        let below = |s: &&Span| s.name == name && s.parent == request.id;
        let part = spans.iter().find(below).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(part.trace, request.trace, "{name}");
        assert!(
            part.start >= request.start && part.end >= part.start,
            "{name}"
        );
    }
    let refused = spans.iter().find(|s| s.text("outcome") == "NOT_FOUND");
    assert_eq!(refused.expect("the refused one too").text("rpc"), "Encrypt");

    // Whatever else is in a span, it is one of these.
    for span in &spans {
        assert!(span.events.is_empty() && span.state.is_empty(), "{span:?}");
        for attribute in &span.attributes {
            let key = attribute.key.as_str();
            assert!(
                ["rpc", "request_id", "outcome", "op"].contains(&key),
                "{key} in {span:?}"
            );
        }
        let text = format!("{span:?}");
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
}
