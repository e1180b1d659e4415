//! Headers for who keeps copies (RFC 9110 §8.8, §13; RFC 9111), and the short answer for
//! who has one already.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use jiff::Timestamp;

/// A document, without its bytes.
pub(super) struct Document {
    /// What it is.
    pub(super) content_type: &'static str,
    /// Of its bytes; the strong validator.
    pub(super) sha256: [u8; 32],
    /// Since when it is like this, in milliseconds since the epoch.
    pub(super) modified_ms: i64,
    /// How long a copy may be used without asking, in seconds.
    pub(super) max_age: u64,
    /// When it ends, in Unix seconds; then it must not be changed on the way either
    /// (RFC 5019 §6.2).
    pub(super) expires: Option<u64>,
}

impl Document {
    fn etag(&self) -> String {
        format!("\"{}\"", hex::encode(self.sha256))
    }

    /// Has the client this very document? `If-None-Match` goes before
    /// `If-Modified-Since` (RFC 9110 §13.2.2).
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if headers.contains_key(header::IF_NONE_MATCH) {
            let own = self.etag();
            return text(header::IF_NONE_MATCH).is_some_and(|list| {
                list.split(',')
                    .map(|tag| tag.trim().trim_start_matches("W/"))
                    .any(|tag| tag == "*" || tag == own)
            });
        }
        text(header::IF_MODIFIED_SINCE)
            .and_then(from_http_date)
            .is_some_and(|since| self.modified_ms.div_euclid(1000) <= since)
    }

    /// 304.
    pub(super) fn not_modified(&self) -> Response {
        (StatusCode::NOT_MODIFIED, self.headers()).into_response()
    }

    /// 200.
    pub(super) fn respond(&self, bytes: Bytes) -> Response {
        let content_type = HeaderValue::from_static(self.content_type);
        let mut headers = self.headers();
        headers.insert(header::CONTENT_TYPE, content_type);
        (headers, bytes).into_response()
    }

    fn headers(&self) -> HeaderMap {
        let max_age = self.max_age;
        let cache = match self.expires {
            None => format!("public, max-age={max_age}"),
            Some(_) => format!("public, max-age={max_age}, no-transform, must-revalidate"),
        };
        let expires = self.expires.and_then(|s| i64::try_from(s).ok());
        let lines = [
            (header::ETAG, Some(self.etag())),
            (
                header::LAST_MODIFIED,
                http_date(self.modified_ms.div_euclid(1000)),
            ),
            (header::CACHE_CONTROL, Some(cache)),
            (header::EXPIRES, expires.and_then(http_date)),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Some(value) = value.and_then(|v| HeaderValue::try_from(v).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// IMF-fixdate (RFC 9110 §5.6.7).
fn http_date(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn from_http_date(text: &str) -> Option<i64> {
    let bare = text.strip_suffix(" GMT")?;
    let time = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", bare).ok()?;
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(utc.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document {
            content_type: "text/plain",
            sha256: [7; 32],
            modified_ms: 784_111_777_999,
            max_age: 60,
            expires: None,
        }
    }

    fn asks(name: HeaderName, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::try_from(value).unwrap());
        document().is_known(&headers)
    }

    #[test]
    fn dates_are_those_of_the_standard() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(http_date(784_111_777).unwrap(), date);
        assert_eq!(from_http_date(date), Some(784_111_777));
        for bad in ["", "GMT", "Sun, 06 Nov 1994 08:49:37", "yesterday GMT"] {
            assert_eq!(from_http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_has_it_is_told_so() {
        let tag = document().etag();
        let (none_match, since) = (header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE);
        assert!(asks(none_match.clone(), &tag));
        assert!(asks(none_match.clone(), &format!("\"a\", W/{tag}")));
        assert!(asks(none_match.clone(), "*"));
        assert!(!asks(none_match.clone(), "\"a\""));
        assert!(!asks(none_match, &tag.replace('"', "")));
        assert!(asks(since.clone(), "Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(!asks(since.clone(), "Sun, 06 Nov 1994 08:49:36 GMT"));
        assert!(!asks(since, "garbage"));
        assert!(!document().is_known(&HeaderMap::new()));
    }
}
