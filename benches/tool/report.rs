//! Rows for people, for documents and for machines.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{args::Output, measure::Row, scrape::Parts};

/// Header and cells.
pub(crate) type Cells = (Vec<&'static str>, Vec<Vec<String>>);

/// Shows what was measured the way that was asked for.
pub(crate) fn show<T: Serialize>(what: &T, tables: &[Cells], output: Output) -> Result<()> {
    if output == Output::Json {
        anstream::println!("{}", serde_json::to_string_pretty(what)?);
        return Ok(());
    }
    for (head, rows) in tables.iter().filter(|(_, rows)| !rows.is_empty()) {
        let mut table = Table::new();
        match output {
            Output::Markdown => table.load_style(presets::ASCII_MARKDOWN),
            _ => table
                .load_style(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Dynamic),
        };
        table.set_header(head.clone());
        table.add_rows(rows.clone());
        anstream::println!("{table}\n");
    }
    Ok(())
}

/// How fast; where the time went; what it could be.
pub(crate) fn tables(rows: &[Row]) -> [Cells; 3] {
    [rates(rows), split(rows), ceilings(rows)]
}

fn rates(rows: &[Row]) -> Cells {
    let head = vec![
        "op",
        "shape",
        "layout",
        "dek",
        "in flight",
        "requests/s",
        "items/s",
        "MB/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "refused",
        "failed",
        "server us/request",
        "server us/item",
    ];
    let cells = rows.iter().map(|r| {
        let l = r.latency_ms;
        vec![
            format!("{}{}", r.op, if r.streams { " (streams)" } else { "" }),
            r.shape.clone(),
            format!("{:?}", r.layout).to_lowercase(),
            r.dek.into(),
            r.rate_per_second
                .map_or_else(|| r.in_flight.to_string(), |n| format!("{n}/s asked")),
            whole(r.requests_per_second),
            whole(r.items_per_second),
            format!("{:.1}", r.megabytes_per_second),
            millis(l.p50),
            millis(l.p90),
            millis(l.p99),
            millis(l.p999),
            r.refused.to_string(),
            r.failed.to_string(),
            or_none(r.server_cpu_us_per_request, whole),
            or_none(r.server_cpu_us_per_item, |us| format!("{us:.2}")),
        ]
    });
    (head, cells.collect())
}

fn split(rows: &[Row]) -> Cells {
    let mut head = vec!["us of a request", "in flight"];
    head.extend(Parts::NAMES);
    let cells = rows.iter().filter_map(|r| {
        let mut cells = vec![format!("{} {}", r.op, r.shape), r.in_flight.to_string()];
        cells.extend(r.split_us?.all().map(whole));
        Some(cells)
    });
    (head, cells.collect())
}

fn ceilings(rows: &[Row]) -> Cells {
    let head = vec![
        "to what the parts can do",
        "in flight",
        "echo requests/s",
        "ratio to echo",
        "ceiling",
        "efficiency",
        "aead us/batch",
        "token us/batch",
        "ratio to token",
    ];
    let ratio = |r: f64| format!("{r:.2}");
    let cells = rows
        .iter()
        .filter(|r| r.echo.is_some() || r.of_token.is_some());
    let cells = cells.map(|r| {
        vec![
            format!("{} {}", r.op, r.shape),
            r.in_flight.to_string(),
            or_none(r.echo.map(|e| e.requests_per_second), whole),
            or_none(r.echo.map(|e| e.ratio), ratio),
            or_none(r.echo.and_then(|e| e.ceiling), ratio),
            or_none(r.echo.and_then(|e| e.efficiency), ratio),
            or_none(r.aead_us_per_batch, |us| format!("{us:.1}")),
            or_none(r.token_us_per_batch, |us| format!("{us:.1}")),
            or_none(r.of_token, ratio),
        ]
    });
    (head, cells.collect())
}

pub(crate) fn whole(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn millis(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.0}")
    }
}

fn or_none(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_can_be_read() {
        assert_eq!(whole(1234567.4), "1,234,567");
        assert_eq!(whole(999.0), "999");
        assert_eq!(millis(0.123), "0.12");
        assert_eq!(millis(12.3), "12");
    }
}
