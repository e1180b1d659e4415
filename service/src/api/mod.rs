//! The doors. Only here do wire words live: gRPC, TLS, HTTP. A door turns what comes
//! over the wire into domain types, calls one operation, and turns the answer back.

pub mod acme;
mod approver;
pub mod grpc;
mod http;
mod identity;
mod listener;
mod pki_http;
pub(crate) mod supervisor;
mod tls;
#[cfg(feature = "otel")]
mod traces;

pub use approver::Approvers;
pub use http::admin;
pub use identity::{Peer, Tenants};
pub use listener::{Conn, accept};
pub use pki_http::{pki_routes, serve_http};
pub use tls::{TlsError, TlsReloader};
#[cfg(feature = "otel")]
pub use traces::Traces;
