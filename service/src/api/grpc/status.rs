//! One table from our errors to gRPC: code, text, and the details of `google.rpc`.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Error, Kind};

/// `domain` of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "keywright";

/// The gRPC code of each kind.
#[must_use]
pub(super) fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::TooLong => Code::OutOfRange,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::StateForbids => Code::FailedPrecondition,
        Kind::Conflict => Code::Aborted,
        Kind::Busy => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Late => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// The whole status; `request_id` finds the audit record and the log line.
#[must_use]
pub fn status(error: &Error, request_id: &str) -> Status {
    let reason = error.reason();
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason.name(),
        DOMAIN,
        HashMap::from([("request_id".to_owned(), request_id.to_owned())]),
    );
    if let Some(field) = error.blamed_field() {
        details.add_bad_request_violation(field, error.text());
    }
    if let Some(pause) = error.retry_pause() {
        details.set_retry_info(Some(pause));
    }
    Status::with_error_details(code(reason.kind()), error.text(), details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Reason;

    #[test]
    fn details_say_reason_field_and_pause() {
        let error = Error::field(Reason::BatchEmpty, "plaintexts", "no items")
            .retry_after(Duration::from_secs(2));
        let status = status(&error, "r1");
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "no items")
        );
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("BATCH_EMPTY", "keywright")
        );
        assert_eq!(info.metadata["request_id"], "r1");
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "plaintexts"
        );
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn the_internal_text_stays_inside() {
        let status = status(&Error::internal("pin at /x"), "r1");
        assert!(!format!("{status:?}").contains("/x"));
    }
}
