//! What was run, what was skipped and why, and what came out wrong; printed also when
//! the test passes.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
};

use super::sets::{Case, Set};

/// One path: the software's, or a token's.
pub struct Tally {
    path: &'static str,
    family: &'static str,
    set: String,
    pub run: usize,
    /// Of those, what was refused before the token was asked.
    pub before: usize,
    run_in_set: usize,
    skipped: BTreeMap<String, usize>,
    not_ours: BTreeMap<String, [usize; 2]>,
    lines: String,
    /// Set, case, flags and what happened.
    pub wrong: Vec<Wrong>,
}

/// A case that came out otherwise than it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub set: String,
    pub case: usize,
    pub flags: String,
    pub what: String,
}

impl Tally {
    pub fn new(path: &'static str, family: &'static str) -> Self {
        Self {
            path,
            family,
            set: String::new(),
            run: 0,
            before: 0,
            run_in_set: 0,
            skipped: BTreeMap::new(),
            not_ours: BTreeMap::new(),
            lines: String::new(),
            wrong: Vec::new(),
        }
    }

    /// What the selection left out of `set`.
    pub fn open<G>(&mut self, set: &Set<G>) {
        self.set.clone_from(&set.name);
        self.run_in_set = 0;
        self.skipped = (set.skipped.iter())
            .map(|(why, cases)| ((*why).to_owned(), *cases))
            .collect();
    }

    pub fn skip(&mut self, why: &str, cases: usize) {
        *self.skipped.entry(why.to_owned()).or_default() += cases;
    }

    /// One case: what came out, `Err` for a refusal.
    pub fn case(&mut self, case: &Case, outcome: Result<(), String>) {
        self.run += 1;
        self.run_in_set += 1;
        let wrong = match (case.valid, outcome) {
            (true, Ok(())) | (false, Err(_)) => return,
            (true, Err(why)) => format!("a valid one was refused: {why}"),
            (false, Ok(())) => "a forged one was accepted".to_owned(),
        };
        self.fault(case, wrong);
    }

    pub fn fault(&mut self, case: &Case, what: String) {
        self.wrong.push(Wrong {
            set: self.set.clone(),
            case: case.id,
            flags: case.flags.clone(),
            what,
        });
    }

    /// One line for the set, and one for each reason to skip some of it. A set of which
    /// nothing is ours is counted with the others like it.
    pub fn close(&mut self) {
        let skipped: usize = self.skipped.values().sum();
        if self.run_in_set == 0 && self.skipped.len() == 1 {
            for (why, cases) in std::mem::take(&mut self.skipped) {
                let [sets, all] = self.not_ours.entry(why).or_default();
                *sets += 1;
                *all += cases;
            }
            return;
        }
        let run = self.run_in_set;
        let line = format!("{}: {} cases, {run} run", self.set, run + skipped);
        self.line(&line, skipped);
        for (why, cases) in std::mem::take(&mut self.skipped) {
            self.lines
                .push_str(&format!("    {cases} skipped: {why}\n"));
        }
    }

    /// The sets of which nothing was run; then all of it is shown, at once and past the
    /// capture of the test harness, because what was skipped is told on success too.
    pub fn finish(&mut self) {
        for (why, [sets, cases]) in std::mem::take(&mut self.not_ours) {
            self.line(&format!("{sets} other sets: {cases} cases, 0 run"), cases);
            self.lines
                .push_str(&format!("    {cases} skipped: {why}\n"));
        }
        let line = format!("in all: {} cases run", self.run);
        self.line(&line, 0);
        stdout().lock().write_all(self.lines.as_bytes()).unwrap();
        self.lines.clear();
    }

    fn line(&mut self, text: &str, skipped: usize) {
        let (path, family) = (self.path, self.family);
        let skipped = match skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        self.lines
            .push_str(&format!("wycheproof, {path}, {family}: {text}{skipped}\n"));
    }
}
