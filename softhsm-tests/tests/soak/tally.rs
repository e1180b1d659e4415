//! What was done, what was refused as asked, and what went wrong.

use std::collections::BTreeMap;

use crate::{refused::BAD, user::STEPS};

/// How many of the things that went wrong are kept with their words.
const KEPT: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// RPCs sent.
    pub(crate) calls: u64,
    /// Steps by kind; a step is one or several calls.
    steps: BTreeMap<&'static str, u64>,
    /// Steps by kind that did not go as they must.
    failed: BTreeMap<&'static str, u64>,
    /// Refusals that came for exactly the reason they were asked for.
    refused: BTreeMap<&'static str, u64>,
    pub(crate) unexpected: u64,
    pub(crate) samples: Vec<String>,
}

impl Tally {
    pub(crate) fn step(&mut self, kind: &'static str, done: Result<(), String>) {
        *self.steps.entry(kind).or_default() += 1;
        if let Err(text) = done {
            *self.failed.entry(kind).or_default() += 1;
            self.unexpected += 1;
            self.keep(format!("{kind}: {text}"));
        }
    }

    pub(crate) fn refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.unexpected += other.unexpected;
        for (into, from) in [
            (&mut self.steps, other.steps),
            (&mut self.failed, other.failed),
            (&mut self.refused, other.refused),
        ] {
            for (name, n) in from {
                *into.entry(name).or_default() += n;
            }
        }
        other.samples.into_iter().for_each(|text| self.keep(text));
    }

    fn keep(&mut self, text: String) {
        if self.samples.len() < KEPT {
            self.samples.push(text);
        }
    }

    pub(crate) fn print(&self) {
        println!("| operation | times | unexpected errors |\n|---|---|---|");
        for (name, n) in &self.steps {
            println!("| {name} | {n} | {} |", self.failed.get(name).unwrap_or(&0));
        }
        let all: u64 = self.steps.values().sum();
        println!("| all | {all} | {} |", self.unexpected);
        println!("\n| refused, as asked for | times |\n|---|---|");
        for (reason, n) in &self.refused {
            println!("| {reason} | {n} |");
        }
    }

    /// A kind that never came was not tested.
    pub(crate) fn everything_happened(&self) {
        for (_, kind) in STEPS {
            assert!(self.steps.contains_key(kind), "{kind} never happened");
        }
        for (reason, _) in BAD {
            assert!(self.refused.contains_key(reason), "{reason} never came");
        }
    }
}
