//! Trying again, where that is safe and may help.
//!
//! Safe are all calls of `Crypto` and the reading ones of `Keys`: done twice they leave
//! nothing behind but another record in the audit log (a second envelope, signature or
//! data key is as good as the first). What changes a key is not: a rotation whose answer
//! got lost may have happened, and doing it again makes another version. Of `Pki` all are:
//! a request for a certificate has an idempotency key, and revoked twice is revoked. Of
//! `PkiAdmin` only what reads. Of `Jobs` what reads, the lease (the newest wins, whoever
//! asks again gets a new one or renews its own) and the checkpoint (it has a number).

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::Failure;

/// How often and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    /// At most so many, the first one included.
    pub most: u32,
    /// Pause after the first one; each further pause is twice as long.
    pub pause: Duration,
    /// No pause is longer, also not if the server asks for it.
    pub longest_pause: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            most: 4,
            pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// Calls until it works, or an answer comes that another attempt cannot better.
///
/// ```no_run
/// # async fn example(client: &keywright_client::Client) -> Result<(), keywright_client::Failure> {
/// use keywright_client::{Attempts, proto, repeat};
///
/// let request = proto::MacRequest {
///     key: "webhooks/out".into(),
///     inputs: vec!["body".into()],
///     ..Default::default()
/// };
/// let response = repeat(Attempts::default(), async || {
///     client.crypto().mac(request.clone()).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The last answer.
pub async fn repeat<T, F>(attempts: Attempts, call: impl Fn() -> F) -> Result<T, Failure>
where
    // Named, so that what comes of it can be sent to another task.
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let mut pause = attempts.pause;
    for _ in 1..attempts.most {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if may_help(&status) => {
                let asked = status.get_details_retry_info().and_then(|i| i.retry_delay);
                let pause_now = asked.map_or(pause, |a| a.max(pause));
                tokio::time::sleep(pause_now.min(attempts.longest_pause)).await;
                pause *= 2;
            }
            Err(status) => return Err(status.into()),
        }
    }
    Ok(call().await?.into_inner())
}

/// The server is away, too busy, or had somebody in front of us.
fn may_help(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn after(code: Code, failures: u32) -> (Result<u32, Failure>, u32) {
        let calls = AtomicU32::new(0);
        let attempts = Attempts {
            pause: Duration::ZERO,
            ..Attempts::default()
        };
        let result = repeat(attempts, async || {
            let n = calls.fetch_add(1, Ordering::Relaxed);
            if n < failures {
                Err(Status::new(code, "no"))
            } else {
                Ok(tonic::Response::new(n))
            }
        })
        .await;
        (result, calls.into_inner())
    }

    #[tokio::test]
    async fn what_may_help_is_repeated_and_nothing_else() {
        let (result, calls) = after(Code::Unavailable, 3).await;
        assert_eq!((result.unwrap(), calls), (3, 4));
        let (result, calls) = after(Code::ResourceExhausted, 9).await;
        assert!(result.is_err() && calls == 4);
        for code in [
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::DeadlineExceeded,
        ] {
            let (result, calls) = after(code, 1).await;
            assert!(result.is_err() && calls == 1, "{code:?}");
        }
    }
}
