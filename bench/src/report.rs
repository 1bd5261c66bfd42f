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
    /// The same of what it is held against: the floor, or the server itself in calm weather.
    pub floor: Option<f64>,
    /// `us CPU`, `KiB`, `ms`, …
    pub measure: &'static str,
    /// The median of the ratios of the rounds, each of two figures that were taken one after the other.
    pub ratio: Option<f64>,
    /// What we want.
    pub target: Option<Target>,
    /// How long messages took, in microseconds, server and floor: [`crate::latencies`].
    pub latency: [Value; 2],
    /// Everything else, for JSON.
    pub details: Value,
}

/// What a figure is held against.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    /// The ratio is no higher.
    AtMost(f64),
    /// The ratio is no lower.
    AtLeast(f64),
    /// The server's own figure is no higher.
    FigureAtMost(f64),
}

impl Row {
    /// A figure that is held against nothing.
    pub fn alone(
        scenario: impl Into<String>,
        measure: &'static str,
        unit: &'static str,
        figure: f64,
    ) -> Self {
        Self {
            scenario: scenario.into(),
            unit,
            server: figure,
            floor: None,
            measure,
            ratio: None,
            target: None,
            latency: [json!({}), json!({})],
            details: json!({}),
        }
    }

    fn meets(&self) -> bool {
        match (self.target, self.ratio) {
            (Some(Target::AtMost(most)), Some(ratio)) => ratio <= most,
            (Some(Target::AtLeast(least)), Some(ratio)) => ratio >= least,
            (Some(Target::FigureAtMost(most)), _) => self.server <= most,
            _ => true,
        }
    }
}

/// The middle of some figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table; `names` are what is measured, and what that is held against.
pub fn table(rows: &[Row], [server, floor]: [&str; 2]) -> String {
    let mut text = format!(
        "| scenario | measure | {server} | {floor} | ratio | target | p50 / p90 / p99 / p99.9 in us, {server} | {floor} |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n",
    );
    for row in rows {
        let cell = |figure: Option<f64>| figure.map_or("–".to_owned(), |it| format!("{it:.2}"));
        let target = row.target.map(|target| match target {
            Target::AtMost(most) => format!("≤ {most:.2}"),
            Target::AtLeast(least) => format!("≥ {least:.2}"),
            Target::FigureAtMost(most) => format!("server ≤ {most:.2}"),
        });
        let [server, floor] = row.latency.each_ref().map(|latency| {
            let at = |quantile: &str| latency[quantile].as_u64();
            match ["p50", "p90", "p99", "p99.9"].map(at) {
                [Some(a), Some(b), Some(c), Some(d)] => format!("{a} / {b} / {c} / {d}"),
                _ => "–".to_owned(),
            }
        });
        let _ = writeln!(
            text,
            "| {} | {} per {} | {:.2} | {} | {}{} | {} | {server} | {floor} |",
            row.scenario,
            row.measure,
            row.unit,
            row.server,
            cell(row.floor),
            cell(row.ratio),
            if row.meets() { "" } else { " (!)" },
            target.unwrap_or("–".to_owned())
        );
    }
    text
}

/// Everything.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "scenario": row.scenario, "unit": row.unit, "measure": row.measure,
            "server": row.server, "floor": row.floor, "ratio": row.ratio, "meets_target": row.meets(),
            "latency_us": { "server": row.latency[0], "floor": row.latency[1] },
            "details": row.details,
        })
    };
    json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

/// The ratios as bars, each with its target.
pub fn plot(rows: &[Row]) -> String {
    let is_drawn = |row: &&Row| !matches!(row.target, Some(Target::FigureAtMost(_)));
    let bars: Vec<_> =
        rows.iter().filter(is_drawn).filter_map(|row| Some((row, row.ratio?))).collect();
    let target = |row: &Row| match row.target? {
        Target::AtMost(ratio) | Target::AtLeast(ratio) => Some(ratio),
        Target::FigureAtMost(_) => None,
    };
    let longest = bars.iter().map(|(row, ratio)| ratio.max(target(row).unwrap_or(0.0)));
    let longest = longest.fold(1.0, f64::max) * 1.15;
    let (left, wide, high) = (310.0, 400.0, 26.0);
    let x = |ratio: f64| left + wide * ratio / longest;
    let bottom = 40.0 + high * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">Server against the floor (1 = a relay that does nothing else)</text>\n",
        bottom + 20.0
    );
    for (number, (row, ratio)) in bars.iter().enumerate() {
        let y = 36.0 + high * number as f64;
        let colour = if row.meets() { "#3a7d5c" } else { "#b5542f" };
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text><rect x=\"{left}\" y=\"{y}\" width=\"{}\" height=\"16\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{ratio:.2}</text>",
            y + 13.0,
            row.scenario,
            x(*ratio) - left,
            x(*ratio) + 6.0,
            y + 13.0
        );
        if let Some(target) = target(row) {
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
