//! What a person sees while a job runs: a bar, and what must be known.

use std::{
    io::{self, IsTerminal},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use keywright_client::rewrap::Event;

const BAR: &str = "{bar:32} {human_pos}/{human_len} {per_sec} {eta} {msg}";
const SPINNER: &str = "{spinner} {human_pos} {per_sec} {msg}";

/// Standard error.
pub(super) struct Screen {
    bar: ProgressBar,
    /// What was said last about waiting.
    waiting: Mutex<String>,
    /// Seen by workers before us, and in all.
    before: AtomicU64,
    seen: AtomicU64,
    /// Since when there is work: waiting for its time is none.
    since: Mutex<Instant>,
}

/// A bar over so many; 0: nobody knows how many.
pub(in crate::command) fn items_bar(expected: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(expected);
    fit(&bar, expected);
    bar
}

/// How many there are may become known later.
pub(in crate::command) fn fit(bar: &ProgressBar, expected: u64) {
    let template = if expected == 0 { SPINNER } else { BAR };
    if bar.length() != Some(expected) || bar.position() == 0 {
        bar.set_length(expected);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    }
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            bar: items_bar(0),
            waiting: Mutex::default(),
            before: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            since: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        match event {
            Event::Begin(job, resumed) => {
                let seen = job.counts.unwrap_or_default().seen;
                *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.before.store(seen, Ordering::Relaxed);
                self.seen.store(seen, Ordering::Relaxed);
                let how = match resumed {
                    true => format!("goes on behind {seen} entries"),
                    false => "begins".to_owned(),
                };
                self.say(&format!(
                    "job {} over {} {how}: {} to version {}",
                    job.id, job.subject, job.key, job.target_version
                ));
                self.bar.set_position(seen);
                self.bar.reset_eta();
            }
            Event::Progress(counts, expected) => {
                self.seen.store(counts.seen, Ordering::Relaxed);
                // An estimate that was passed is none.
                fit(
                    &self.bar,
                    expected.max(if expected == 0 { 0 } else { counts.seen }),
                );
                self.bar.set_position(counts.seen);
                self.bar.set_message("");
            }
            Event::Waiting(text) => {
                self.bar.set_message(text.clone());
                // The seconds in front change, the reason behind them need not.
                let why = text.split_once(": ").map_or(text.as_str(), |(_, why)| why);
                let mut last = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if *last != why {
                    why.clone_into(&mut last);
                    self.say(&text);
                }
            }
            Event::Note(text) => self.say(&text),
        }
    }

    fn say(&self, text: &str) {
        self.bar
            .suspend(|| anstream::eprintln!("keywright: {text}"));
    }

    /// Takes the bar away; how many entries were seen by this worker, and in what time.
    pub(super) fn end(&self) -> (u64, Duration) {
        self.bar.finish_and_clear();
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen.load(Ordering::Relaxed);
        let before = self.before.load(Ordering::Relaxed);
        (seen.saturating_sub(before), since.elapsed())
    }
}
