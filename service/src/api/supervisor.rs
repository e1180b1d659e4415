//! What the supervisor is told (systemd's sd_notify protocol): ready, reloading, stopping,
//! how it is, and, when it keeps a watchdog, that the daemon still works. Without a
//! supervisor nothing is said.
//!
//! Down is not dead: a token that refuses or a full disk answers, and a restart helps
//! neither. A PKCS#11 call that never returns cannot be cancelled; against that, and only
//! that, the watchdog is left to bite.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{Hsm, Kind, State};
use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::{debug, error};

use crate::{metrics, ops::App};

/// Without a watchdog: how often the status is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(5);

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Until [`ready`] is said again.
pub(crate) fn reloading() {
    // systemd tells by the time that the answer is to its own signal.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(e) => debug!(error = %e, "no monotonic clock"),
    }
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(what) {
        debug!(error = %e, "the supervisor could not be told");
    }
}

/// Tells how the daemon is, for as long as it runs.
pub(crate) async fn keep_telling(app: Arc<App>) {
    let watchdog = sd_notify::watchdog_enabled();
    // Two thirds of the time at most until it is heard that everything answers.
    let every = watchdog.map_or(STATUS_EVERY, |limit| limit / 3);
    let mut tick = interval(every.max(Duration::from_millis(10)));
    let (mut told, mut jobs) = ("", 0);
    loop {
        tick.tick().await;
        let status = status(&app);
        if status != told {
            tell(&[NotifyState::Status(status)]);
            told = status;
        }
        if watchdog.is_none() {
            continue;
        }
        if answers(&app, every, &mut jobs).await {
            tell(&[NotifyState::Watchdog]);
        } else {
            error!("an HSM worker or the audit log does not answer; the watchdog is not fed");
        }
    }
}

fn status(app: &App) -> &'static str {
    if !app.membership.serves() {
        return "not ready: this node has lost touch with the others";
    }
    match (app.hsm.state(), app.audit.healthy()) {
        (State::Ready, true) if app.hsm.is_whole() => "serving",
        (State::Ready, true) => "serving, without one of the tokens",
        (State::Ready, false) => "not ready: the audit log cannot be written",
        (State::Down, true) => "not ready: the HSM is down",
        (State::Down, false) => "not ready: the HSM is down, the audit log cannot be written",
        (State::Blocked, _) => "not ready: the PIN was refused",
        (State::Diverged, _) => "not ready: the HSM does not hold the appliance's own key",
    }
}

/// Do the workers do anything, and does the writer of the log? `jobs`: done when it was
/// asked last.
async fn answers(app: &App, patience: Duration, jobs: &mut u64) -> bool {
    let (hsm, audit) = tokio::join!(
        hsm_answers(&app.hsm, patience, jobs),
        app.audit.answers(patience)
    );
    hsm && audit
}

async fn hsm_answers(hsm: &Hsm, patience: Duration, jobs: &mut u64) -> bool {
    let before = std::mem::replace(jobs, metrics::hsm_jobs());
    if *jobs != before {
        // At work: a long queue is no dead worker.
        return true;
    }
    let checked = hsm.check(None, Instant::now() + patience).await;
    !matches!(checked.map_err(|e| e.kind()), Err(Kind::Late | Kind::Busy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywright_hsm::{
        Options, Silent,
        fake::{FakeDevice, Fault},
    };

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_silence_is_not() {
        let device = FakeDevice::new();
        let options = Options {
            workers: 1,
            queue_jobs: 8,
            check_every: Duration::from_secs(3600),
        };
        let hsm = Hsm::start(Arc::new(device.clone()), options, Arc::new(Silent)).unwrap();
        let (long, short) = (Duration::from_secs(10), Duration::from_millis(50));
        let mut jobs = metrics::hsm_jobs();
        assert!(hsm_answers(&hsm, long, &mut jobs).await);
        device.inject([Fault::Unplugged]);
        let end = move || Instant::now() + long;
        assert!(hsm.random(16, end()).await.is_err());
        assert!(hsm_answers(&hsm, long, &mut jobs).await, "down is not dead");
        device.plug_in();
        let _ = hsm.random(16, end()).await;
        device.inject([Fault::Slow(Duration::from_secs(1))]);
        let slow = hsm.clone();
        let hangs = tokio::spawn(async move { slow.random(16, end()).await });
        tokio::task::yield_now().await;
        assert!(!hsm_answers(&hsm, short, &mut jobs).await, "it hangs");
        hangs.await.unwrap().unwrap();
        assert!(hsm_answers(&hsm, long, &mut jobs).await, "and is back");
    }
}
