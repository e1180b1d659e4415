//! OCSP over HTTP (RFC 6960 appendix A, RFC 5019 §5 and §6).

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use keywright_pki::OcspRequest;
use sha2::{Digest, Sha256};

use super::{Door, Kind, cached::Document, marked, not_found};
use crate::{
    authority::AuthorityName,
    ops::pki::{Answered, Question},
};

const REQUEST: &str = "application/ocsp-request";
const RESPONSE: &str = "application/ocsp-response";

/// `POST`: the request is the body. Proxies do not keep what is posted.
pub(super) async fn by_post(
    State(door): State<Door>,
    Path((tenant, issuer)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE);
    if content_type.is_none_or(|t| !t.as_bytes().eq_ignore_ascii_case(REQUEST.as_bytes())) {
        let text = format!("an OCSP request has the content type {REQUEST}\n");
        return marked(
            OCSP,
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response(),
        );
    }
    match answer(&door, &tenant, &issuer, &body).await {
        Some(answered) => once(answered.der),
        None => marked(OCSP, not_found()),
    }
}

/// `GET`: the request is base64 in the path; some clients leave `/` and `=` as they are.
pub(super) async fn by_get(
    State(door): State<Door>,
    Path((tenant, issuer, request)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if request.len() > OcspRequest::MAX_LEN.div_ceil(3) * 4 {
        let text = "an OCSP request has at most 4096 bytes\n";
        return marked(OCSP, (StatusCode::URI_TOO_LONG, text).into_response());
    }
    // What is no base64 is no request either: the responder says so in its own words.
    let der = BASE64_STANDARD.decode(request).unwrap_or_default();
    let Some(answered) = answer(&door, &tenant, &issuer, &der).await else {
        return marked(OCSP, not_found());
    };
    let Some(validity) = answered.validity else {
        return once(answered.der);
    };
    let now = u64::try_from(door.app.clock.now_ms() / 1000).unwrap_or(0);
    let document = Document {
        content_type: RESPONSE,
        sha256: Sha256::digest(&answered.der).into(),
        modified_ms: i64::try_from(validity.this_update).map_or(0, |s| s * 1000),
        max_age: validity.next_update.saturating_sub(now),
        expires: Some(validity.next_update),
    };
    let response = if document.is_known(&headers) {
        document.not_modified()
    } else {
        document.respond(answered.der)
    };
    marked(OCSP, response)
}

const OCSP: Kind = Kind("ocsp");

/// `None` when there is no such issuer.
async fn answer(door: &Door, tenant: &str, issuer: &str, request: &[u8]) -> Option<Answered> {
    let tenant = door.tenants.get(tenant)?;
    let issuer = AuthorityName::parse(issuer).ok()?;
    door.app.authorities.issuer(*tenant, &issuer)?;
    let question = Question {
        tenant: *tenant,
        issuer: &issuer,
        request,
    };
    Some(door.ocsp.answer(&question).await)
}

/// For this client alone.
fn once(der: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, RESPONSE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    marked(OCSP, (headers, der).into_response())
}
