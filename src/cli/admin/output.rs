//! An answer of the admin API as lines for people.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Lists as rows, everything else as `name: value`.
pub(super) fn lines(answer: &Value) -> String {
    let mut lines = Vec::new();
    push_lines("", answer, &mut lines);
    lines.join("\n")
}

fn push_lines(indent: &str, value: &Value, lines: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            if value.as_array().is_some_and(|rows| !rows.is_empty()) {
                lines.push(format!("{indent}{name}:"));
                push_lines(&format!("{indent}  "), value, lines);
            } else {
                lines.push(format!("{indent}{name}: {}", cell(name, value)));
            }
        }
    } else if let Some(rows) = value.as_array().filter(|rows| !rows.is_empty()) {
        lines.extend(rows.iter().map(|value| format!("{indent}{}", row(value))));
    } else {
        lines.push(format!("{indent}{}", cell("", value)));
    }
}

fn row(value: &Value) -> String {
    let Some(fields) = value.as_object() else { return cell("", value) };
    let cells = fields.iter().map(|(name, value)| format!("{name}={}", cell(name, value)));
    cells.collect::<Vec<_>>().join("  ")
}

/// `value` on one line; times as RFC 3339.
fn cell(name: &str, value: &Value) -> String {
    if value.as_array().is_some_and(Vec::is_empty) {
        return "none".to_owned();
    }
    let ms_per_unit = match name {
        "at" => Some(1),
        "until" => Some(1000),
        _ => None,
    };
    if let (Some(ms_per_unit), Some(number)) = (ms_per_unit, value.as_u64()) {
        return timestamp(number.saturating_mul(ms_per_unit));
    }
    let Some(text) = value.as_str() else { return value.to_string() };
    // A client may have chosen the text: quoted, it cannot control a terminal or look like the next cell.
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._:@/+-".contains(char);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("{text:?}") }
}

/// Milliseconds since the Unix epoch as RFC 3339, in UTC.
fn timestamp(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_becomes_lines_without_terminal_control_characters() {
        let answer = json!({"room_id": "den  is_locked=true\u{1b}[2J\u{202e}", "members": [{"client_id": "a", "seconds": 3}], "rules": [], "at": 1_700_000_000_000_u64});

        assert_eq!(
            lines(&answer),
            "at: 2023-11-14T22:13:20Z\nmembers:\n  client_id=a  seconds=3\nroom_id: \"den  is_locked=true\\u{1b}[2J\\u{202e}\"\nrules: none"
        );
    }
}
