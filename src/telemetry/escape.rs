//! Escapes characters in JSON log lines that end a line or control a terminal.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// A writer that escapes characters which JSON allows, and which a terminal or an editor takes for a line break or a
/// control sequence. A room's name can hold them.
pub(super) struct EscapingWriter<W>(pub(super) W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_ascii() {
            return self.0.write_all(line).map(|()| line.len());
        }
        let mut escaped = String::with_capacity(line.len());
        for char in String::from_utf8_lossy(line).chars() {
            let is_control = matches!(char, '\u{80}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if is_control {
                let _ = write!(escaped, "\\u{:04x}", u32::from(char));
            } else {
                escaped.push(char);
            }
        }
        self.0.write_all(escaped.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_line_parses_to_the_same_text_and_has_no_line_break_or_control_character() {
        let original = "den\u{2028}\u{85}\u{9b}31m\u{202e}é";
        let mut written = Vec::new();

        let line = serde_json::to_vec(original).unwrap();
        EscapingWriter(&mut written).write_all(&line).unwrap();

        let text = std::str::from_utf8(&written).unwrap();
        assert_eq!(text, r#""den\u2028\u0085\u009b31m\u202eé""#);
        assert_eq!(serde_json::from_str::<String>(text).unwrap(), original);
    }
}
