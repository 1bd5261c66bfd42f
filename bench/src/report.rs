//! What came out: a table for people, JSON for programs, a plot for the papers.

use std::fmt::Write;

use serde_json::{Value, json};

/// One line of the table.
pub struct Row {
    /// What was done.
    pub scenario: String,
    /// What a unit of it is.
    pub unit: &'static str,
    /// The server's figure, the floor's where it has one, and in which measure.
    pub server: f64,
    /// The same of the floor.
    pub floor: Option<f64>,
    /// `us CPU`, `KiB`, `ms`, …
    pub measure: &'static str,
    /// The median of the ratios of the rounds, each of two figures that were taken one after the other.
    pub ratio: Option<f64>,
    /// The highest ratio that we want to be under.
    pub target: Option<f64>,
    /// Everything else, for JSON and for the lines below the table.
    pub details: Value,
}

/// The middle of some figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| scenario | measure | server | floor | ratio | target |\n| --- | --- | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let cell = |figure: Option<f64>| figure.map_or("–".to_owned(), |it| format!("{it:.2}"));
        let _ = writeln!(
            text,
            "| {} | {} per {} | {:.2} | {} | {} | {} |",
            row.scenario,
            row.measure,
            row.unit,
            row.server,
            cell(row.floor),
            cell(row.ratio),
            cell(row.target)
        );
    }
    text
}

/// Everything.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "scenario": row.scenario, "unit": row.unit, "measure": row.measure,
            "server": row.server, "floor": row.floor, "ratio": row.ratio, "target": row.target,
            "details": row.details,
        })
    };
    json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

/// The ratios as bars, each with its target.
pub fn plot(rows: &[Row]) -> String {
    let bars: Vec<_> = rows.iter().filter_map(|row| Some((row, row.ratio?))).collect();
    let longest = bars.iter().map(|(row, ratio)| ratio.max(row.target.unwrap_or(0.0)));
    let longest = longest.fold(1.0, f64::max) * 1.15;
    let (left, wide, high) = (260.0, 420.0, 26.0);
    let x = |ratio: f64| left + wide * ratio / longest;
    let bottom = 40.0 + high * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">Server against the floor (1 = a relay that does nothing else)</text>\n",
        bottom + 20.0
    );
    for (number, (row, ratio)) in bars.iter().enumerate() {
        let y = 36.0 + high * number as f64;
        let met = row.target.is_none_or(|target| *ratio <= target);
        let colour = if met { "#3a7d5c" } else { "#b5542f" };
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text><rect x=\"{left}\" y=\"{y}\" width=\"{}\" height=\"16\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{ratio:.2}</text>",
            y + 13.0,
            row.scenario,
            x(*ratio) - left,
            x(*ratio) + 6.0,
            y + 13.0
        );
        if let Some(target) = row.target {
            let at = x(target);
            let _ = writeln!(
                svg,
                "<line x1=\"{at}\" x2=\"{at}\" y1=\"{}\" y2=\"{}\" stroke=\"#222\" stroke-width=\"2\"/>",
                y - 2.0,
                y + 18.0
            );
        }
    }
    let one = x(1.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" x2=\"{one}\" y1=\"30\" y2=\"{bottom}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>\n</svg>"
    );
    svg
}
