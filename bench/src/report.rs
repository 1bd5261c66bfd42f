//! The results: a Markdown table, JSON, and a plot.

use std::{fmt::Write, fs, io, path::PathBuf};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::scenarios::{Round, histogram};

/// The largest spread of the floor's rounds that a ratio can be taken from.
const MAX_SPREAD: f64 = 0.05;

/// One line of the table.
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// The unit of work.
    pub unit: &'static str,
    /// The value of the server.
    pub server: f64,
    /// The value that it is compared with: that of the floor, or of the server without the disturbance.
    pub floor: Option<f64>,
    /// The quantity: `us CPU`, `KiB`, `ms`, …
    pub measure: &'static str,
    /// The median of the ratios of the rounds, each of two values that were measured one after the other.
    pub ratio: Option<f64>,
    /// How far the floor's own rounds are apart: the difference of the longest and the shortest, divided by the median.
    pub spread: Option<f64>,
    /// The target.
    pub target: Option<Target>,
    /// Latencies of messages in microseconds, server and floor: [`latencies`].
    pub latency: [Value; 2],
    /// Further values, for the JSON output.
    pub details: Value,
}

/// A target for a row.
#[derive(Clone, Copy, PartialEq)]
pub enum Target {
    /// The highest ratio.
    AtMost(f64),
    /// The lowest ratio.
    AtLeast(f64),
    /// The highest value of the server itself.
    ValueAtMost(f64),
}

impl Row {
    /// A value without a comparison.
    pub fn alone(
        scenario: impl Into<String>,
        measure: &'static str,
        unit: &'static str,
        value: f64,
    ) -> Self {
        Self {
            scenario: scenario.into(),
            unit,
            server: value,
            floor: None,
            measure,
            ratio: None,
            spread: None,
            target: None,
            latency: [json!({}), json!({})],
            details: json!({}),
        }
    }

    /// A value of the server and of the floor, each with one sample for each start.
    pub fn compared<Sample>(
        scenario: impl Into<String>,
        measure: &'static str,
        unit: &'static str,
        servers: &[Sample],
        floors: &[Sample],
        value: impl Fn(&Sample) -> f64 + Copy,
    ) -> Self {
        let ratios = servers.iter().zip(floors).map(|(server, floor)| value(server) / value(floor));
        Self {
            floor: Some(median(floors.iter().map(value))),
            ratio: Some(median(ratios)),
            spread: Some(spread(floors.iter().map(value))),
            ..Self::alone(scenario, measure, unit, median(servers.iter().map(value)))
        }
    }

    fn meets(&self) -> bool {
        match (self.target, self.ratio) {
            (Some(Target::AtMost(max)), Some(ratio)) => ratio <= max,
            (Some(Target::AtLeast(min)), Some(ratio)) => ratio >= min,
            (Some(Target::ValueAtMost(max)), _) => self.server <= max,
            _ => true,
        }
    }
}

/// The median of some values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How far values are apart: the difference of the largest and the smallest, divided by the median.
pub fn spread(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let (least, most) =
        (values.clone().fold(f64::MAX, f64::min), values.clone().fold(0.0, f64::max));
    (most - least) / median(values)
}

/// A sentence about rows that were measured while the machine did other things, if there are any.
pub fn noise(rows: &[Row]) -> Option<String> {
    let noisy = rows.iter().filter_map(|row| {
        let spread = row.spread.filter(|&spread| spread > MAX_SPREAD)?;
        Some(format!("{} ({:.0} %)", row.scenario, 100.0 * spread))
    });
    let noisy = noisy.collect::<Vec<_>>().join("; ");
    (!noisy.is_empty()).then(|| {
        format!(
            "The floor's own rounds differ by more than {:.0} %, so that these rows mean little; measure them again on a machine \
             that does nothing else: {noisy}",
            100.0 * MAX_SPREAD
        )
    })
}

/// The results as a Markdown table. The names are those of the measured server and of what it is compared with.
pub fn table(rows: &[Row], [server, floor]: [&str; 2]) -> String {
    let mut text = format!(
        "| scenario | measure | {server} | {floor} | ratio | target | p50 / p90 / p99 / p99.9 in us, {server} | {floor} |\n\
         | --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n",
    );
    for row in rows {
        let cell = |value: Option<f64>| value.map_or("–".to_owned(), |it| format!("{it:.2}"));
        let target = row.target.map(|target| match target {
            Target::AtMost(max) => format!("≤ {max:.2}"),
            Target::AtLeast(min) => format!("≥ {min:.2}"),
            Target::ValueAtMost(max) => format!("server ≤ {max:.2}"),
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

/// All results as JSON.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "scenario": row.scenario, "unit": row.unit, "measure": row.measure,
            "server": row.server, "floor": row.floor, "ratio": row.ratio, "floor_spread": row.spread, "meets_target": row.meets(),
            "latency_us": { "server": row.latency[0], "floor": row.latency[1] },
            "details": row.details,
        })
    };
    json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

/// Writes all results to `path`, if there is one.
pub fn write_json(path: Option<PathBuf>, rows: &[Row]) -> io::Result<()> {
    if let Some(path) = path {
        fs::write(path, serde_json::to_string_pretty(&json(rows))?)?;
    }
    Ok(())
}

/// The ratios as an SVG bar chart, each with its target.
pub fn plot(rows: &[Row]) -> String {
    let is_drawn = |row: &&Row| !matches!(row.target, Some(Target::ValueAtMost(_)));
    let bars: Vec<_> =
        rows.iter().filter(is_drawn).filter_map(|row| Some((row, row.ratio?))).collect();
    let target = |row: &Row| match row.target? {
        Target::AtMost(ratio) | Target::AtLeast(ratio) => Some(ratio),
        Target::ValueAtMost(_) => None,
    };
    let longest = bars.iter().map(|(row, ratio)| ratio.max(target(row).unwrap_or(0.0)));
    let longest = longest.fold(1.0, f64::max) * 1.15;
    let (left, width, row_height) = (370.0, 400.0, 26.0);
    let x = |ratio: f64| left + width * ratio / longest;
    let bottom = 40.0 + row_height * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"840\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">Server against the floor (1 = a relay that does nothing else)</text>\n",
        bottom + 20.0
    );
    for (number, (row, ratio)) in bars.iter().enumerate() {
        let y = 36.0 + row_height * number as f64;
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

/// The latencies of all rounds together.
pub fn latency_of<Sample>(rounds: &[Round<Sample>]) -> Histogram<u64> {
    let mut latency = histogram();
    for round in rounds {
        let _ = latency.add(&round.latency);
    }
    latency
}

/// Values of each round, for the JSON output.
pub fn details(rounds: &[Round]) -> Value {
    json!({
        "cpu_us_per_unit": rounds.iter().map(|round| (100.0 * round.cpu() / round.units as f64).round() / 100.0).collect::<Vec<_>>(),
        "bench_us_per_unit": median(rounds.iter().map(|round| round.own / round.units as f64)),
        "units_per_second": median(rounds.iter().map(|round| round.units as f64 / round.seconds)),
        "latency_us": latencies(&latency_of(rounds)),
    })
}

/// Percentiles of latencies in microseconds, for the JSON output.
pub fn latencies(latency: &Histogram<u64>) -> Value {
    let at = |quantile| latency.value_at_quantile(quantile);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": latency.max() })
}
