//! Text in JSON strings.

use std::fmt::{self, Write};

/// Writes text as the inside of a JSON string. Characters that a terminal or an editor takes for a line break or a control
/// sequence are escaped, too, although JSON allows them: the name of a room can hold them.
pub(super) struct Escaped<'a>(pub(super) &'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self(out) = self;
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if text.bytes().all(is_plain) {
            out.push_str(text);
            return Ok(());
        }
        for char in text.chars() {
            match char {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\0'..='\u{1f}'
                | '\u{7f}'..='\u{9f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => write!(out, "\\u{:04x}", u32::from(char))?,
                char => out.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_parses_to_the_same_text_and_has_no_line_break_or_control_character() {
        let original = "\"den\"\\\n\r\t\0\u{7f}\u{2028}\u{85}\u{9b}31m\u{202e}é😀";
        let mut written = String::new();

        Escaped(&mut written).write_str(original).unwrap();

        assert_eq!(written, r#"\"den\"\\\n\u000d\u0009\u0000\u007f\u2028\u0085\u009b31m\u202eé😀"#);
        assert_eq!(serde_json::from_str::<String>(&format!("\"{written}\"")).unwrap(), original);
    }
}
