//! Where a job stands, as bytes the server keeps. A cursor names the order it belongs to:
//! in another one it would skip what was never looked at.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Failure, FailureKind};

/// A server keeps no longer ones.
const MAX_BYTES: usize = 1_024;

#[derive(Serialize, Deserialize)]
struct Cursor<'a> {
    order: std::borrow::Cow<'a, str>,
    after: std::borrow::Cow<'a, str>,
}

/// None when it is too long to be kept: then a later one must do.
pub(super) fn encode(order: &str, after: &str) -> Option<Bytes> {
    let cursor = Cursor {
        order: order.into(),
        after: after.into(),
    };
    let bytes = serde_json::to_vec(&cursor).ok()?;
    (bytes.len() <= MAX_BYTES).then(|| bytes.into())
}

/// Where to go on; none: at the beginning.
pub(super) fn decode(order: &str, bytes: &[u8]) -> Result<Option<String>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let refuse = |what: String| {
        let text = format!(
            "the job stands at a checkpoint {what}; nothing was done. Go on with the flags the job was begun with, or cancel it (keywright job cancel) and begin anew"
        );
        Err(Failure::new(FailureKind::State, text).because("JOB_CURSOR"))
    };
    match serde_json::from_slice::<Cursor<'_>>(bytes) {
        Ok(cursor) if cursor.order == order => Ok(Some(cursor.after.into_owned())),
        Ok(cursor) => refuse(format!("of {:?}, and this is {order:?}", cursor.order)),
        Err(_) => refuse("that no keywright rewrap wrote".to_owned()),
    }
}

/// What `fuzz/` drives: a cursor is refused, or is one that we would write.
#[cfg(fuzzing)]
pub fn fuzz_cursor(bytes: &[u8]) {
    if let Ok(Some(after)) = decode("files", bytes)
        && let Some(again) = encode("files", &after)
    {
        assert_eq!(decode("files", &again).expect("ours"), Some(after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_another_order_is_refused() {
        let bytes = encode("table by id", "x\"y\u{e9}").unwrap();
        let back = decode("table by id", &bytes).unwrap();
        assert_eq!(back.as_deref(), Some("x\"y\u{e9}"));
        assert_eq!(decode("table by id", b"").unwrap(), None);
        for (order, bytes) in [("table by uuid", &bytes[..]), ("table by id", b"7")] {
            let failure = decode(order, bytes).unwrap_err();
            assert_eq!(failure.reason(), Some("JOB_CURSOR"), "{failure}");
        }
        assert!(encode("files", &"x".repeat(1_100)).is_none());
    }
}
