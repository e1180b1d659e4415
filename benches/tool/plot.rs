//! The rows as a picture: how fast to an echo, and where the time of a request went.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::{measure::Row, scrape::Parts};

const WIDTH: u32 = 1000;
/// What stands left of the bars.
const NAMES: u32 = 370;
/// Of one bar, and of what stands above and below them.
const BAR: u32 = 26;
const FRAME: u32 = 110;
/// Of the parts, in their order.
const COLOURS: [RGBColor; 6] = [
    RGBColor(128, 128, 128),
    RGBColor(76, 114, 176),
    RGBColor(221, 132, 82),
    RGBColor(196, 78, 82),
    RGBColor(85, 168, 104),
    RGBColor(129, 114, 179),
];

/// Bars that lie on top of each other's ends, with a name.
struct Bar {
    name: String,
    /// Where each piece ends, from zero.
    ends: Vec<f64>,
    /// What it could reach.
    mark: Option<f64>,
}

/// Draws into an SVG file.
pub(crate) fn write(rows: &[Row], path: &Path) -> Result<()> {
    let svg = draw(rows)?;
    std::fs::write(path, svg).with_context(|| path.display().to_string())
}

fn draw(rows: &[Row]) -> Result<String> {
    let charts = [
        ("requests a second; line: the ceiling", rates(rows)),
        (
            "ratio to an echo of the same bytes; line: the ceiling",
            ratios(rows),
        ),
        ("microseconds of a request", splits(rows)),
    ];
    let charts: Vec<_> = charts.iter().filter(|(_, bars)| !bars.is_empty()).collect();
    let height = |bars: &[Bar]| FRAME + BAR * u32::try_from(bars.len()).unwrap_or(u32::MAX / BAR);
    let all: u32 = charts.iter().map(|(_, bars)| height(bars)).sum();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, all.max(FRAME))).into_drawing_area();
        let wrong = |e: &dyn std::fmt::Display| anyhow!("the plot: {e}");
        root.fill(&WHITE).map_err(|e| wrong(&e))?;
        let mut rest = root.clone();
        for (title, bars) in charts {
            let (area, below) = rest.split_vertically(height(bars));
            chart(&area, title, bars).map_err(|e| wrong(&e))?;
            rest = below;
        }
        root.present().map_err(|e| wrong(&e))?;
    }
    Ok(svg)
}

fn chart<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    title: &str,
    bars: &[Bar],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    area.draw_text(title, &("sans-serif", 19).into(), (12, 10))?;
    if bars.iter().any(|bar| bar.ends.len() > 1) {
        for ((part, colour), column) in Parts::NAMES.iter().zip(COLOURS).zip(0..) {
            let style = ("sans-serif", 19).into_font().color(&colour);
            area.draw_text(part, &style, (NAMES as i32 + column * 90, 10))?;
        }
    }
    let reach = |bar: &Bar| {
        bar.ends
            .iter()
            .chain(&bar.mark)
            .copied()
            .fold(0.0, f64::max)
    };
    let most = bars.iter().map(reach).fold(f64::MIN_POSITIVE, f64::max);
    let lines = bars.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_top(36)
        .x_label_area_size(28)
        .y_label_area_size(NAMES - 10)
        .build_cartesian_2d(0.0..most * 1.12, lines..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(6)
        .label_style(("sans-serif", 15))
        .x_label_formatter(&|n| format!("{}", (n * 1000.0).round() / 1000.0))
        .draw()?;
    for (line, bar) in bars.iter().enumerate() {
        let top = line as f64 + 0.15;
        let mut start = 0.0;
        for (end, colour) in bar
            .ends
            .iter()
            .zip(COLOURS.iter().skip(usize::from(bar.ends.len() == 1)))
        {
            let piece = Rectangle::new([(start, top), (*end, top + 0.7)], colour.filled());
            chart.draw_series([piece])?;
            start = *end;
        }
        if let Some(mark) = bar.mark {
            let corners = vec![(mark, top - 0.1), (mark, top + 0.8)];
            chart.draw_series([PathElement::new(corners, BLACK.stroke_width(2))])?;
        }
        let (_, y) = chart.backend_coord(&(0.0, top + 0.2));
        let y = y - area.get_base_pixel().1;
        let name = Text::new(bar.name.clone(), (12, y), ("sans-serif", 16));
        // In the coordinates of the whole picture, left of the bars.
        area.strip_coord_spec().draw(&name)?;
    }
    Ok(())
}

fn name(r: &Row) -> String {
    let asked = match r.rate_per_second {
        Some(rate) => format!("{rate}/s"),
        None => format!("{} in flight", r.in_flight),
    };
    format!("{} {} {}, {asked}", r.op, r.shape, r.dek)
}

fn rates(rows: &[Row]) -> Vec<Bar> {
    let bar = |r: &Row| Bar {
        name: format!("{}: {:.0}", name(r), r.requests_per_second),
        ends: vec![r.requests_per_second],
        mark: r
            .echo
            .and_then(|e| Some(e.requests_per_second * e.ceiling?)),
    };
    rows.iter().map(bar).collect()
}

fn ratios(rows: &[Row]) -> Vec<Bar> {
    let bar = |r: &Row| {
        let echo = r.echo?;
        Some(Bar {
            name: format!("{}: {:.2}", name(r), echo.ratio),
            ends: vec![echo.ratio],
            mark: echo.ceiling,
        })
    };
    rows.iter().filter_map(bar).collect()
}

fn splits(rows: &[Row]) -> Vec<Bar> {
    let bar = |r: &Row| {
        let mut end = 0.0;
        let ends = r.split_us?.all().map(|us| {
            end += us;
            end
        });
        Some(Bar {
            name: name(r),
            ends: ends.to_vec(),
            mark: None,
        })
    };
    rows.iter().filter_map(bar).collect()
}

const _: () = assert!(COLOURS.len() == Parts::NAMES.len());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_name_beside_it() {
        let bar = |name: &str| Bar {
            name: name.into(),
            ends: vec![1.0],
            mark: None,
        };
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, 400)).into_drawing_area();
            let (above, below) = root.split_vertically(200);
            chart(&above, "one", &[bar("a"), bar("b")]).unwrap();
            chart(&below, "two", &[bar("c")]).unwrap();
            root.present().unwrap();
        }
        // `<text x=".." y=".." ..>` and the name on the next line.
        let at = |name: &str| -> f64 {
            let (before, _) = svg.split_once(&format!("\n{name}\n")).unwrap();
            let (_, y) = before.rsplit_once(" y=\"").unwrap();
            y.split('"').next().unwrap().parse().unwrap()
        };
        assert!(at("a") < at("b") && at("b") < 200.0, "{svg}");
        assert!((200.0..400.0).contains(&at("c")), "{svg}");
    }
}
