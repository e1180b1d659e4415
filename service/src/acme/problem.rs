//! What goes wrong in ACME, as clients read it: a problem document (RFC 7807) with a type
//! of RFC 8555 §6.7. `subproblems` is left out when there are none; null breaks clients.

use std::{fmt, time::Duration};

use keywright_pki::San;
use serde_json::{Value, json};

use super::order::identifier_json;
use crate::error::{Error, Kind, Reason};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $reason:ident;)*) => {
        /// A problem type of `urn:ietf:params:acme:error:`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemKind { $($(#[$doc])* $variant,)* }

        impl ProblemKind {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The last part of its URN.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The word in the audit record.
            #[must_use]
            pub fn reason(self) -> Reason {
                match self { $(Self::$variant => Reason::$reason,)* }
            }
        }
    };
}

kinds! {
    /// No account with this key or URL.
    AccountDoesNotExist = "accountDoesNotExist", 400, Unauthenticated;
    /// The certificate named in `replaces` was replaced (RFC 9773 §5).
    AlreadyReplaced = "alreadyReplaced", 409, CertificateState;
    /// Revoked before.
    AlreadyRevoked = "alreadyRevoked", 400, CertificateState;
    /// A CSR that does not fit the order, or at all.
    BadCsr = "badCSR", 400, CsrRefused;
    /// A nonce that is not ours, too old, or used.
    BadNonce = "badNonce", 400, Unauthenticated;
    /// A key that is weak, blocked or of a kind we do not read.
    BadPublicKey = "badPublicKey", 400, KeyBlocked;
    /// A reason that is not offered.
    BadRevocationReason = "badRevocationReason", 400, InvalidArgument;
    /// An `alg` we do not verify.
    BadSignatureAlgorithm = "badSignatureAlgorithm", 400, Unauthenticated;
    /// The host could not be reached.
    Connection = "connection", 400, ProfileRefused;
    /// Its name could not be looked up.
    Dns = "dns", 400, ProfileRefused;
    /// newAccount without, or with a wrong, external account binding.
    ExternalAccountRequired = "externalAccountRequired", 403, Unauthenticated;
    /// The host answered with something else.
    IncorrectResponse = "incorrectResponse", 403, ProfileRefused;
    /// A contact that is no mail address.
    InvalidContact = "invalidContact", 400, InvalidArgument;
    /// A profile that is not offered to this account (draft-ietf-acme-profiles §5).
    InvalidProfile = "invalidProfile", 400, ProfileNotFound;
    /// A request that cannot be read.
    Malformed = "malformed", 400, InvalidArgument;
    /// The order is not in the state for it.
    OrderNotReady = "orderNotReady", 403, CertificateState;
    /// Too many requests.
    RateLimited = "rateLimited", 429, Busy;
    /// A name that this account does not get.
    RejectedIdentifier = "rejectedIdentifier", 400, ProfileRefused;
    /// Our fault, or something behind us is down.
    ServerInternal = "serverInternal", 500, Internal;
    /// The TLS handshake of a validation failed.
    Tls = "tls", 400, ProfileRefused;
    /// Not this account's, or not allowed to it.
    Unauthorized = "unauthorized", 403, PermissionDenied;
    /// A contact that is not mailto:.
    UnsupportedContact = "unsupportedContact", 400, InvalidArgument;
    /// An identifier type we do not issue.
    UnsupportedIdentifier = "unsupportedIdentifier", 400, InvalidArgument;
}

/// One identifier of several that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subproblem {
    /// What kind of failure.
    pub kind: ProblemKind,
    /// For people.
    pub detail: String,
    /// Which identifier.
    pub identifier: San,
}

/// A problem document to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    detail: String,
    status: u16,
    reason: Reason,
    subproblems: Vec<Subproblem>,
    retry_after: Option<Duration>,
    location: Option<String>,
    internal: Option<String>,
}

impl Problem {
    /// A problem with its text: what is wrong, and who must act.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            status: kind.status(),
            reason: kind.reason(),
            subproblems: Vec::new(),
            retry_after: None,
            location: None,
            internal: None,
        }
    }

    /// A request that cannot be read.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Malformed, detail)
    }

    /// Not there; the same answer for what belongs to another account.
    #[must_use]
    pub fn not_found() -> Self {
        Self {
            status: 404,
            ..Self::malformed("there is nothing here for this account")
        }
    }

    /// With each identifier that failed.
    #[must_use]
    pub fn with(mut self, subproblems: Vec<Subproblem>) -> Self {
        self.subproblems = subproblems;
        self
    }

    /// With another HTTP status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With the URL of what stands in the way.
    #[must_use]
    pub fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// With a good time to try again.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// For people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The word in the audit record.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// When to try again, where that helps.
    #[must_use]
    pub fn retry_pause(&self) -> Option<Duration> {
        self.retry_after
    }

    /// For the log only.
    #[must_use]
    pub fn internal_text(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// The URL of what stands in the way.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": urn(self.kind),
            "detail": self.detail,
            "status": self.status,
        });
        if let (false, Some(map)) = (self.subproblems.is_empty(), document.as_object_mut()) {
            let all = self.subproblems.iter().map(|s| {
                json!({
                    "type": urn(s.kind),
                    "detail": s.detail,
                    "identifier": identifier_json(&s.identifier),
                })
            });
            map.insert("subproblems".into(), all.collect());
        }
        if let (ProblemKind::BadSignatureAlgorithm, Some(map)) =
            (self.kind, document.as_object_mut())
        {
            map.insert("algorithms".into(), json!(super::jws::ALGORITHMS));
        }
        document
    }
}

fn urn(kind: ProblemKind) -> String {
    format!("urn:ietf:params:acme:error:{}", kind.name())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// What an operation below answered, in ACME's words. The text is for the caller already.
impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        let (kind, status) = match e.reason() {
            Reason::CsrRefused => (ProblemKind::BadCsr, None),
            Reason::KeyBlocked => (ProblemKind::BadPublicKey, None),
            Reason::ProfileRefused => (ProblemKind::RejectedIdentifier, Some(403)),
            Reason::ProfileNotFound => (ProblemKind::InvalidProfile, None),
            reason => match reason.kind() {
                Kind::InvalidArgument | Kind::TooLong => (ProblemKind::Malformed, None),
                Kind::Unauthenticated | Kind::Denied => (ProblemKind::Unauthorized, None),
                Kind::NotFound => (ProblemKind::Malformed, Some(404)),
                Kind::StateForbids | Kind::Exists | Kind::Conflict => {
                    (ProblemKind::OrderNotReady, None)
                }
                Kind::Busy => (ProblemKind::RateLimited, Some(503)),
                Kind::Late | Kind::Unavailable => (ProblemKind::ServerInternal, Some(503)),
                Kind::Internal | Kind::Unsupported => (ProblemKind::ServerInternal, None),
            },
        };
        Self {
            status: status.unwrap_or(kind.status()),
            reason: e.reason(),
            retry_after: e.retry_pause(),
            internal: e.internal_text().map(str::to_owned),
            ..Self::new(kind, e.text())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_subproblems_means_no_field() {
        let plain = Problem::malformed("x").document();
        assert!(plain.get("subproblems").is_none(), "{plain}");
        assert_eq!(plain["type"], "urn:ietf:params:acme:error:malformed");
        let sub = Subproblem {
            kind: ProblemKind::RejectedIdentifier,
            detail: "no".into(),
            identifier: San::dns("a.example").unwrap(),
        };
        let with = Problem::new(ProblemKind::RejectedIdentifier, "x")
            .with(vec![sub])
            .document();
        assert_eq!(with["subproblems"][0]["identifier"]["value"], "a.example");
    }

    #[test]
    fn an_internal_error_says_nothing_of_what_is_inside() {
        let problem = Problem::from(Error::internal("CKR_SECRET"));
        assert_eq!(problem.status(), 500);
        assert!(!problem.document().to_string().contains("CKR"));
    }
}
