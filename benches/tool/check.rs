//! Is it as fast as it was? Ratios of one run against ratios that were stored, and
//! instructions of the pure parts against theirs.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::{
    args::{self, Asked, Compare, Output, Shown},
    compare,
    plan::{Layout, Op, Shape},
    pure::Part,
    report,
};

/// What may be lost before it counts as slower.
const LOSS: f64 = 0.10;
/// Rounds and tries: a neighbour on the machine takes more than that for a moment, hardly
/// three times.
const ROUNDS: u32 = 5;
const TRIES: u32 = 3;

/// What is measured: the operation, items and bytes of each, seconds of a lease.
const CASES: [(Op, u32, u32, Option<u32>); 8] = [
    (Op::Encrypt, 1000, 64, None),
    (Op::Encrypt, 100, 256, None),
    (Op::Encrypt, 1000, 1024, None),
    (Op::Encrypt, 1, 64, None),
    (Op::Encrypt, 1, 64, Some(60)),
    (Op::Decrypt, 1000, 64, None),
    (Op::Rewrap, 256, 64, None),
    (Op::Sign, 100, 64, None),
];

/// What was stored under each name.
type Stored = BTreeMap<String, f64>;

/// Ratios of the appliance; gives whether none got slower.
pub(crate) fn ratios(asked: &args::Check) -> Result<bool> {
    let measure = |case: usize| {
        let (op, count, bytes, lease_seconds) = *CASES.get(case).ok_or_else(unknown)?;
        let compare = Compare {
            asked: Asked {
                op,
                shape: vec![Shape { count, bytes }],
                layout: Layout::Repeated,
                in_flight: vec![32],
                rate: None,
                streams: false,
                processes: 1,
                seconds: Duration::from_millis(400),
                rounds: ROUNDS,
                warm_up: Duration::from_millis(200),
            },
            shown: Shown {
                output: Output::Table,
                plot: None,
            },
            lease_seconds,
            daemon: asked.daemon.clone(),
        };
        let rows = compare::run(&compare)?;
        let row = rows.first().ok_or_else(unknown)?;
        if row.failed > 0 {
            return Err(anyhow!("{op}: {} requests failed", row.failed));
        }
        // To the echo where there is one that says something, else to the token.
        let ratio = match op {
            Op::Encrypt | Op::Decrypt => row.echo.map(|e| e.ratio),
            Op::Rewrap | Op::Sign | Op::Mac => row.of_token,
        };
        ratio.ok_or_else(unknown)
    };
    let name = |case: usize| {
        let (op, count, bytes, lease) = CASES.get(case).copied().unwrap_or(CASES[0]);
        let dek = lease.map_or("", |_| " lease");
        format!("{op} {count}x{bytes}{dek}")
    };
    let names: Vec<String> = (0..CASES.len()).map(name).collect();
    compare_with(&asked.stored, asked.write, &names, true, measure)
}

/// Instructions of the pure parts; gives whether none takes more.
pub(crate) fn instructions(asked: &args::Check) -> Result<bool> {
    let parts = Part::value_variants();
    // Other settings of the compiler make other instructions of it.
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let names: Vec<String> = parts
        .iter()
        .map(|p| format!("{profile} {}", p.name()))
        .collect();
    let measure = |part: usize| parts.get(part).ok_or_else(unknown)?.instructions();
    compare_with(&asked.stored, asked.write, &names, false, measure)
}

fn unknown() -> anyhow::Error {
    anyhow!("nothing was measured")
}

/// Measures under each name, shows it beside what is stored, and writes it down if asked to.
fn compare_with(
    path: &Path,
    write: bool,
    names: &[String],
    more_is_better: bool,
    measure: impl Fn(usize) -> Result<f64>,
) -> Result<bool> {
    let mut stored = read(path, write)?;
    let (mut cells, mut good) = (Vec::new(), true);
    for (index, name) in names.iter().enumerate() {
        let before = stored.get(name).copied();
        let worse = |now: f64| before.is_some_and(|was| is_worse(was, now, more_is_better));
        let mut now = measure(index)?;
        // A count is a count; a rate may have had bad luck.
        let tries = if more_is_better { TRIES } else { 1 };
        for _ in 1..tries {
            if write || !worse(now) {
                break;
            }
            now = now.max(measure(index)?);
        }
        let verdict = match before {
            None => "not stored",
            Some(_) if worse(now) => "worse",
            Some(_) => "ok",
        };
        good &= write || verdict == "ok";
        let show = |n: f64| {
            if more_is_better {
                format!("{n:.2}")
            } else {
                report::whole(n)
            }
        };
        cells.push(vec![
            name.clone(),
            before.map_or_else(|| "-".into(), show),
            show(now),
            before.map_or_else(
                || "-".into(),
                |was| format!("{:+.1} %", (now / was - 1.0) * 100.0),
            ),
            verdict.into(),
        ]);
        stored.insert(name.clone(), now);
    }
    let head = vec!["what", "stored", "now", "change", ""];
    report::show(&stored, &[(head, cells)], Output::Table)?;
    if write {
        let text = serde_json::to_string_pretty(&stored)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(good)
}

fn read(path: &Path, write: bool) -> Result<Stored> {
    if write && !path.exists() {
        return Ok(Stored::new());
    }
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("{}; --write makes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn is_worse(was: f64, now: f64, more_is_better: bool) -> bool {
    if more_is_better {
        now < was * (1.0 - LOSS)
    } else {
        now > was * (1.0 + LOSS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_allowed_and_no_more() {
        assert!(!is_worse(1.0, 0.91, true));
        assert!(is_worse(1.0, 0.89, true));
        assert!(!is_worse(100.0, 109.0, false));
        assert!(is_worse(100.0, 111.0, false));
    }

    #[test]
    fn what_got_slower_fails_and_is_asked_again_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stored.json");
        let names = ["a".to_owned()];
        let tried = std::cell::Cell::new(0);
        let fast_at_last = |_| {
            tried.set(tried.get() + 1);
            Ok(if tried.get() < 3 { 0.5 } else { 1.0 })
        };
        // Nothing to compare with.
        assert!(compare_with(&path, false, &names, true, |_| Ok(1.0)).is_err());
        assert!(compare_with(&path, true, &names, true, |_| Ok(1.0)).unwrap());
        assert!(compare_with(&path, false, &names, true, fast_at_last).unwrap());
        assert_eq!(tried.get(), 3);
        assert!(!compare_with(&path, false, &names, true, |_| Ok(0.5)).unwrap());
        assert!(!compare_with(&path, false, &names, false, |_| Ok(2.0)).unwrap());
        assert!(!compare_with(&path, false, &["b".to_owned()], true, |_| Ok(1.0)).unwrap());
        // A file that is none loses nothing and says so.
        fs::write(&path, "{").unwrap();
        assert!(compare_with(&path, true, &names, true, |_| Ok(1.0)).is_err());
    }
}
