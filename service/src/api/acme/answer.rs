//! What goes back: JSON, a certificate chain or a problem, each with nonce and index.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{acme::Problem, ops::acme::Acme};

/// An answer in the making.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
    headers: Vec<(HeaderName, String)>,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            kind: "application/json",
            body: body.to_string(),
            headers: Vec::new(),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            kind: "",
            body: String::new(),
            ..Self::json(status, &Value::Null)
        }
    }

    /// RFC 8555 §9.1: leaf first, no root.
    pub(super) fn chain(ders: &[Vec<u8>]) -> Self {
        Self {
            kind: "application/pem-certificate-chain",
            body: ders.iter().map(|der| pem(der)).collect(),
            ..Self::empty(200)
        }
    }

    pub(super) fn problem(problem: &Problem) -> Self {
        let mut answer = Self {
            kind: "application/problem+json",
            ..Self::json(problem.status(), &problem.document())
        };
        if let Some(pause) = problem.retry_pause() {
            answer = answer.with(header::RETRY_AFTER, pause.as_secs().max(1).to_string());
        }
        match problem.location() {
            Some(url) => answer.at(url.to_owned()),
            None => answer,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn at(self, url: String) -> Self {
        self.with(header::LOCATION, url)
    }

    pub(super) fn up(self, url: &str) -> Self {
        self.with(header::LINK, format!("<{url}>;rel=\"up\""))
    }

    /// With a nonce, and the way back to the directory (RFC 8555 §6.5, §7.1).
    pub(super) fn finish(self, acme: &Acme, tenant: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        let mut put = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.append(name, value);
            }
        };
        if !self.kind.is_empty() {
            put(header::CONTENT_TYPE, self.kind);
        }
        for (name, value) in &self.headers {
            put(name.clone(), value);
        }
        put(header::CACHE_CONTROL, "no-store");
        if acme.tenant(tenant).is_some() {
            let directory = acme.url(tenant, "directory");
            put(header::LINK, &format!("<{directory}>;rel=\"index\""));
        }
        if let Ok(nonce) = acme.nonce() {
            put(HeaderName::from_static("replay-nonce"), &nonce);
        }
        response
    }
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
