//! What stands in front of every request: identity, a number for it, a place in line,
//! and the certainty that it is written down.
//!
//! An operation writes its own record. The guard writes one for every request that
//! never came to an operation: no identity, a message that cannot be decoded, an
//! unknown method, a panic. Health alone is open and not recorded.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span};

use super::{rpcs::rpc_name, status::status};
use crate::{
    api::Peer,
    audit::{Entry, Event},
    error::{Error, Reason},
    metrics,
    ops::{App, Call, micros, pki},
    policy::Caller,
    trace,
};

const REQUEST_ID: &str = "x-request-id";
/// Records per second for requests without identity; the rest is counted.
const ANONYMOUS_PER_SECOND: u64 = 10;

/// What the guard hands to a handler.
#[derive(Clone)]
struct Arrival {
    request_id: String,
    caller: Arc<Caller>,
    peer: Arc<Peer>,
    rpc: &'static str,
    deadline: Instant,
    now_ms: i64,
    slots: Arc<Semaphore>,
    /// Set when an operation takes the record over.
    accounted: Arc<AtomicBool>,
}

/// Takes a request over from the guard: from here on the operation accounts for it.
pub(super) fn begin<T>(mut request: tonic::Request<T>) -> Result<(Call, T), Status> {
    let arrival = request
        .extensions_mut()
        .remove::<Arrival>()
        .ok_or_else(|| Status::internal("a request came past the guard"))?;
    arrival.accounted.store(true, Ordering::Release);
    let entry = entry(&arrival.request_id, &arrival.peer);
    let call = Call::new(
        arrival.caller,
        arrival.rpc,
        arrival.deadline,
        arrival.now_ms,
        entry,
    );
    Ok((call, request.into_inner()))
}

/// Takes a stream over. The guard makes the record of the stream itself; each batch on it
/// is a request of its own, numbered.
pub(super) fn visit<T>(mut request: tonic::Request<T>) -> Result<(Visit, T), Status> {
    let arrival = request
        .extensions_mut()
        .remove::<Arrival>()
        .ok_or_else(|| Status::internal("a request came past the guard"))?;
    Ok((Visit(arrival, Span::current()), request.into_inner()))
}

/// A caller who stays for many batches, and the span of the stream.
pub(super) struct Visit(Arrival, Span);

impl Visit {
    /// The batch with this number, arriving now.
    pub(super) fn call(&self, app: &App, number: u64) -> Call {
        let Self(arrival, stream) = self;
        let request_id = format!("{}.{number}", arrival.request_id);
        let patience = Duration::from_millis(app.limits.request_ms);
        Call::new(
            Arc::clone(&arrival.caller),
            arrival.rpc,
            Instant::now() + patience,
            app.clock.now_ms(),
            entry(&request_id, &arrival.peer),
        )
        .on_stream(trace::batch(stream, arrival.rpc, &request_id))
    }

    /// Places in line, the same as for requests.
    pub(super) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.slots)
    }
}

fn entry(request_id: &str, peer: &Peer) -> Entry {
    Entry {
        request_id: request_id.to_owned(),
        peer: Some(peer.address.ip().to_string()),
        ..Entry::default()
    }
}

/// Puts the guard in front of all services.
#[derive(Clone, Debug)]
pub(super) struct GuardLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    app: Arc<App>,
    in_flight: Arc<Semaphore>,
    boot: String,
    count: AtomicU64,
    anonymous: Anonymous,
}

impl GuardLayer {
    pub(super) fn new(app: Arc<App>) -> Self {
        let mut boot = [0; 6];
        // Only to tell one run from another; all zero would do.
        let _ = app.entropy.fill(&mut boot);
        Self {
            shared: Arc::new(Shared {
                in_flight: Arc::new(Semaphore::new(app.limits.requests_in_flight)),
                boot: hex::encode(boot),
                count: AtomicU64::new(0),
                anonymous: Anonymous::default(),
                app,
            }),
        }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The guard in front of a service.
#[derive(Clone, Debug)]
pub(super) struct Guard<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was asked whether it is ready is the one to be called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.pass(inner, request).await) })
    }
}

impl Shared {
    async fn pass<S>(&self, mut inner: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let rpc = rpc_name(request.uri().path());
        if rpc == "Health" {
            return inner.call(request).await.unwrap_or_else(|e| match e {});
        }
        let timer = metrics::request_timer(rpc);
        let request_id = self.request_id(request.headers());
        let traceparent = request.headers().get("traceparent");
        let traceparent = traceparent.and_then(|v| v.to_str().ok());
        let span = trace::request(rpc, &request_id, traceparent);
        let answer = self
            .handle(inner, request, rpc, &request_id, &timer)
            .instrument(span.clone())
            .await;
        let outcome = outcome(&answer);
        trace::outcome(&span, outcome);
        timer.done(outcome);
        with_id(answer, &request_id)
    }

    /// Lets it in, and sees that there is a record of it.
    async fn handle<S>(
        &self,
        mut inner: S,
        mut request: Request<Body>,
        rpc: &'static str,
        request_id: &str,
        timer: &metrics::RequestTimer,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        let patience = timeout(request.headers());
        match self.admit(peer, patience, rpc, request_id).await {
            Ok((arrival, slot)) => {
                let accounted = Arc::clone(&arrival.accounted);
                let (caller, peer) = (Arc::clone(&arrival.caller), Arc::clone(&arrival.peer));
                request.extensions_mut().insert(arrival);
                let answer = AssertUnwindSafe(inner.call(request)).catch_unwind().await;
                drop(slot);
                let answer = match answer {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => refuse(&Error::internal("a handler panicked"), request_id),
                };
                if accounted.load(Ordering::Acquire) {
                    answer
                } else {
                    let answer = self.explain(answer, request_id);
                    let call = Call::new(caller, rpc, Instant::now(), 0, entry(request_id, &peer));
                    self.account_for(call, answer, timer.elapsed()).await
                }
            }
            Err(refusal) => *refusal,
        }
    }

    /// What tonic answered by itself, in our words for a message over the limit.
    fn explain(&self, answer: Response<Body>, request_id: &str) -> Response<Body> {
        match Status::from_header_map(answer.headers()) {
            Some(status) if status.code() == Code::OutOfRange => {
                let limit = self.app.limits.message_bytes;
                refuse(&Error::too_long(limit), request_id)
            }
            _ => answer,
        }
    }

    /// Identity, then a place in line.
    async fn admit(
        &self,
        peer: Option<Arc<Peer>>,
        patience: Option<Duration>,
        rpc: &'static str,
        request_id: &str,
    ) -> Result<(Arrival, tokio::sync::SemaphorePermit<'_>), Box<Response<Body>>> {
        let Some(peer) = peer else {
            let error = Error::internal("a connection without a peer");
            return Err(Box::new(refuse(&error, request_id)));
        };
        let caller = match &peer.caller {
            Ok(caller) => Arc::clone(caller),
            Err(why) => {
                let error = Error::new(Reason::Unauthenticated, why.clone());
                return Err(Box::new(
                    self.stranger(rpc, request_id, &peer, &error).await,
                ));
            }
        };
        if let Err(error) = self.stands(&peer, &caller).await {
            let call = Call::new(caller, rpc, Instant::now(), 0, entry(request_id, &peer));
            let refusal = refuse(&error, request_id);
            return Err(Box::new(
                self.account_for(call, refusal, Duration::ZERO).await,
            ));
        }
        let limit = Duration::from_millis(self.app.limits.request_ms);
        let time = patience.map_or(limit, |t| t.min(limit));
        let arrival = Arrival {
            request_id: request_id.to_owned(),
            caller,
            peer,
            rpc,
            deadline: Instant::now() + time,
            now_ms: self.app.clock.now_ms(),
            slots: Arc::clone(&self.in_flight),
            accounted: Arc::default(),
        };
        match self.in_flight.try_acquire() {
            Ok(slot) => Ok((arrival, slot)),
            Err(_) => {
                let error = Error::new(Reason::Busy, "too many requests at once; try again")
                    .retry_after(Duration::from_millis(100));
                let entry = entry(request_id, &arrival.peer);
                let call = Call::new(arrival.caller, rpc, Instant::now(), 0, entry);
                let refusal = refuse(&error, request_id);
                Err(Box::new(
                    self.account_for(call, refusal, Duration::ZERO).await,
                ))
            }
        }
    }

    /// A certificate that was issued here must still be good.
    async fn stands(&self, peer: &Peer, caller: &Caller) -> Result<(), Error> {
        let Some(certificate) = &peer.certificate else {
            return Ok(());
        };
        let look_up = || pki::standing(&self.app, caller, certificate);
        match peer.standing.get_or_try_init(look_up).await? {
            Some(standing) => standing.check(&self.app, self.app.clock.now_ms()),
            None => Ok(()),
        }
    }

    /// A request without identity: recorded one by one while there are few.
    async fn stranger(
        &self,
        rpc: &'static str,
        request_id: &str,
        peer: &Peer,
        error: &Error,
    ) -> Response<Body> {
        let audit = &self.app.audit;
        let (record, suppressed) = self.anonymous.admit(Instant::now());
        let mut recorded = Ok(());
        if suppressed > 0 {
            let event = Event::Suppressed {
                requests: suppressed,
            };
            recorded = audit.record(Entry::event(event)).await;
        }
        if record && recorded.is_ok() {
            let mut entry = entry(request_id, peer);
            rpc.clone_into(&mut entry.action);
            entry.finish(Err(error.reason()));
            recorded = audit.record(entry).await;
        }
        match recorded {
            Ok(()) => refuse(error, request_id),
            Err(e) => refuse(&e, request_id),
        }
    }

    /// Writes the record of a request that came to no operation.
    async fn account_for(
        &self,
        call: Call,
        answer: Response<Body>,
        took: Duration,
    ) -> Response<Body> {
        let Call { mut entry, .. } = call;
        entry.outcome = outcome(&answer);
        entry.duration_us = micros(took);
        let request_id = entry.request_id.clone();
        match self.app.audit.record(entry).await {
            Ok(()) => answer,
            Err(e) => refuse(&e, &request_id),
        }
    }

    /// The caller's own id when it is a decent one, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> String {
        let decent = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        headers
            .get(REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| (1..=64).contains(&v.len()) && v.bytes().all(decent))
            .map_or_else(
                || {
                    format!(
                        "{}-{}",
                        self.boot,
                        self.count.fetch_add(1, Ordering::Relaxed)
                    )
                },
                str::to_owned,
            )
    }
}

fn refuse(error: &Error, request_id: &str) -> Response<Body> {
    if let Some(internal) = error.internal_text() {
        tracing::error!(request_id, internal, "request failed");
    }
    status(error, request_id).into_http()
}

fn with_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// `OK`, or the name of the gRPC code; a refusal has its code among the headers.
fn outcome(response: &Response<Body>) -> &'static str {
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// So that nobody without identity can fill the audit log.
#[derive(Debug, Default)]
struct Anonymous(parking_lot::Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    records: u64,
    suppressed: u64,
}

impl Anonymous {
    /// Write a record for this one? And how many were left out before?
    fn admit(&self, now: Instant) -> (bool, u64) {
        let mut window = self.0.lock();
        let fresh = window
            .began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1));
        let mut suppressed = 0;
        if fresh {
            suppressed = std::mem::take(&mut window.suppressed);
            window.began = Some(now);
            window.records = 0;
        }
        if window.records < ANONYMOUS_PER_SECOND {
            window.records += 1;
            (true, suppressed)
        } else {
            window.suppressed += 1;
            (false, suppressed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_fill_no_log_and_are_counted() {
        let anonymous = Anonymous::default();
        let start = Instant::now();
        let recorded = (0..1000).filter(|_| anonymous.admit(start).0).count();
        assert_eq!(recorded as u64, ANONYMOUS_PER_SECOND);
        let (record, suppressed) = anonymous.admit(start + Duration::from_secs(1));
        assert_eq!((record, suppressed), (true, 1000 - ANONYMOUS_PER_SECOND));
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        for text in ["", "m", "123456789m", "1x", "-1m", "1.5S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_are_constant() {
        assert_eq!(rpc_name("/keywright.v1.Crypto/Encrypt"), "Encrypt");
        assert_eq!(rpc_name("/anything/else"), "Unknown");
    }
}
