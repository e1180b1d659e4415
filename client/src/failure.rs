//! What went wrong, who can mend it, and the exit code that says so.

use std::{error::Error as StdError, fmt, io};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::proto::{BatchError, CsrError, ItemError};

/// Who must act; each kind has an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Something else; 1.
    Other,
    /// Flags, settings, arguments; 2.
    Usage,
    /// The server cannot be reached or is too busy; try again; 3.
    Unavailable,
    /// No identity, or no policy that allows it; 4.
    Denied,
    /// No such key; 5.
    NotFound,
    /// The data or the request is not what it should be; 6.
    Data,
    /// The audit chain is broken; 7.
    Audit,
    /// The state or use of the key forbids it, it exists already, or somebody else
    /// changed it; 8.
    State,
    /// Everything was gone through, and something is left under an old version; 9.
    Left,
    /// Somebody asked us to stop, and we did; 130.
    Stopped,
}

/// A failure with a text for people.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    text: String,
    reason: Option<String>,
    request_id: Option<String>,
    complete_lines: Option<u64>,
}

impl Failure {
    /// A failure of our own.
    #[must_use]
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            reason: None,
            request_id: None,
            complete_lines: None,
        }
    }

    pub(crate) fn nonsense() -> Self {
        Self::new(FailureKind::Other, "the server's answer makes no sense")
    }

    /// The same failure with a reason of our own, or the one another failure had.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self {
            reason: Some(reason.into()),
            ..self
        }
    }

    /// The id of the request that failed: it finds the audit record.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Work on lines that failed on the way: so many lines were done, and all of them were
    /// written.
    #[must_use]
    pub fn complete_lines(&self) -> Option<u64> {
        self.complete_lines
    }

    /// The same failure, after so many lines.
    #[must_use]
    pub fn after_lines(self, complete_lines: Option<u64>) -> Self {
        Self {
            complete_lines,
            ..self
        }
    }

    /// The stable word of the server's answer, such as `DECRYPTION_FAILED`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Who must act.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// For the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Other => 1,
            FailureKind::Usage => 2,
            FailureKind::Unavailable => 3,
            FailureKind::Denied => 4,
            FailureKind::NotFound => 5,
            FailureKind::Data => 6,
            FailureKind::Audit => 7,
            FailureKind::State => 8,
            FailureKind::Left => 9,
            FailureKind::Stopped => 130,
        }
    }

    /// The same failure, with words in front that say where.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self {
            text: format!("{place}: {}", self.text),
            ..self
        }
    }

    /// The same failure, with a hint behind it.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self {
            text: format!("{}{hint}", self.text),
            ..self
        }
    }

    /// The same failure in other words; who must act, the reason and the request stay.
    #[must_use]
    pub fn reworded(self, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..self
        }
    }

    /// Words for a file that could not be read or written.
    #[must_use]
    pub fn io(what: impl fmt::Display, e: &io::Error) -> Self {
        Self::new(FailureKind::Other, format!("{what}: {e}"))
    }

    /// There is no way to the server.
    pub(crate) fn no_connection(addr: &str, error: &dyn StdError) -> Self {
        let chain = Self::chain(error);
        let ours = |what: &str| {
            Self::new(
                FailureKind::Usage,
                format!("cannot connect to {addr}: {what} ({chain})"),
            )
        };
        // These do not get better by trying again.
        if chain.contains("invalid peer certificate") {
            return ours(
                "the server's certificate cannot be trusted; KEYWRIGHT_CA must hold the CA that issued it, and KEYWRIGHT_ADDR a name it was issued for",
            );
        }
        if chain.contains("InvalidContentType") {
            return ours("what answers there does not speak TLS");
        }
        refused(&chain).unwrap_or_else(|| {
            Self::new(
                FailureKind::Unavailable,
                format!("cannot connect to {addr}: {chain}; is keywrightd running there?"),
            )
        })
    }

    /// An item of a batch.
    #[must_use]
    pub fn item(error: &ItemError) -> Self {
        Self {
            reason: Some(error.reason.clone()),
            ..Self::new(kind(Code::from_i32(error.code)), error.message.clone())
        }
    }

    /// A request of a batch of CSRs.
    #[must_use]
    pub fn csr(error: &CsrError) -> Self {
        Self::new(kind(Code::from_i32(error.code)), error.message.clone())
            .because(error.reason.clone())
    }

    /// A batch of a stream that failed as a whole.
    #[must_use]
    pub fn batch(error: &BatchError) -> Self {
        let mut text = error.message.clone();
        if error.retry_after_ms != 0 {
            let pause = std::time::Duration::from_millis(error.retry_after_ms);
            text = format!("{text} (after {pause:?})");
        }
        Self::new(kind(Code::from_i32(error.code)), text).because(error.reason.clone())
    }

    /// An error with everything behind it, once each.
    #[must_use]
    pub fn chain(error: &dyn StdError) -> String {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(e) = next {
            let more = e.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            next = e.source();
        }
        text
    }
}

fn kind(code: Code) -> FailureKind {
    match code {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => {
            FailureKind::Unavailable
        }
        Code::Unauthenticated | Code::PermissionDenied => FailureKind::Denied,
        Code::NotFound => FailureKind::NotFound,
        Code::InvalidArgument | Code::OutOfRange | Code::DataLoss => FailureKind::Data,
        // Aborted: somebody else changed the key; the same again would fail again.
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => FailureKind::State,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Unimplemented | Code::Internal => {
            FailureKind::Other
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        if details.error_info().is_none()
            && let Some(transport) = status.source()
        {
            return broken(&Self::chain(transport));
        }
        let mut text = status.message().to_owned();
        if let Some(retry) = details.retry_info().and_then(|r| r.retry_delay) {
            text = format!("{text} (after {retry:?})");
        }
        let info = details.error_info();
        Self {
            reason: info.map(|i| i.reason.clone()),
            request_id: info.and_then(|i| i.metadata.get("request_id").cloned()),
            ..Self::new(kind(status.code()), text)
        }
    }
}

/// The connection broke, or the certificate we show was refused when it was made again.
fn broken(chain: &str) -> Failure {
    refused(chain).unwrap_or_else(|| {
        Failure::new(
            FailureKind::Unavailable,
            format!("the connection broke: {chain}"),
        )
    })
}

/// An alert by which the server refuses our certificate (RFC 8446 §6.2).
fn refused(chain: &str) -> Option<Failure> {
    const REFUSALS: [&str; 8] = [
        "UnknownCA",
        "CertificateRequired",
        "CertificateUnknown",
        "BadCertificate",
        "CertificateExpired",
        "UnsupportedCertificate",
        "AccessDenied",
        // Issued by a CA of the right name and another key.
        "DecryptError",
    ];
    // What we ourselves find wrong with the server reads "invalid peer certificate".
    let theirs = chain.contains("received fatal alert");
    (theirs && REFUSALS.iter().any(|r| chain.contains(r))).then(|| {
        Failure::new(
            FailureKind::Denied,
            format!(
                "the server refused the client certificate ({chain}); KEYWRIGHT_CERT must be issued by a CA of your tenant, be valid now, and name one SPIFFE id"
            ),
        )
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.request_id {
            Some(id) => write!(f, " [request {id}]"),
            None => Ok(()),
        }
    }
}

impl StdError for Failure {}
