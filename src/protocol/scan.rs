//! Finds the fields of a frame in one pass over it, without memory of its own. It knows the frames that clients send all the time;
//! `client` has a parser for all others, and for the errors.
//!
//! Relaying is little else than this: where every frame took the general parser, that was nearly half of the server's own
//! instructions for an offer (docs/inside/performance.md).

use memchr::memchr2;

use super::{envelope::Envelope, raw_json::RawJson};

/// How deep arrays and objects may nest in a field.
pub(super) const MAX_FIELD_DEPTH: usize = 64;

/// Puts the fields of a frame into `envelope`. `None` where the frame is no JSON object, or an unusual one: with white space other
/// than U+0020, with a field twice or deeper than messages nest; `envelope` means nothing then. A result is that of the general
/// parser (RFC 8259).
pub(super) fn scan<'a>(frame: &'a str, envelope: &mut Envelope<'a>) -> Option<()> {
    if has_control_characters(frame.as_bytes()) {
        return None;
    }
    let mut scanner = Scanner { frame, at: 0 };
    scanner.skip_spaces();
    scanner.skip(b'{')?;
    scanner.skip_spaces();
    if scanner.peek()? == b'}' {
        scanner.at += 1;
    } else {
        loop {
            let key = scanner.key()?;
            let value = RawJson::parsed(scanner.value()?);
            if let Some(field) = envelope.field(key)
                && field.replace(value).is_some()
            {
                return None;
            }
            scanner.skip_spaces();
            match scanner.next()? {
                b',' => scanner.skip_spaces(),
                b'}' => break,
                _ => return None,
            }
        }
    }
    scanner.skip_spaces();
    scanner.peek().is_none().then_some(())
}

/// Whether a byte is below U+0020, which no JSON string has.
fn has_control_characters(bytes: &[u8]) -> bool {
    // Column by column, so that the compiler makes one instruction of 16 comparisons.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut least = [u8::MAX; 32];
    for block in blocks {
        for (least, byte) in least.iter_mut().zip(block) {
            *least = (*least).min(*byte);
        }
    }
    least.iter().chain(rest).any(|byte| *byte < b' ')
}

struct Scanner<'a> {
    frame: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.frame.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// Skips the key of a field and what is before its value. A key with escapes is unusual.
    fn key(&mut self) -> Option<&'a str> {
        let start = self.at + 1;
        let has_escapes = self.skip_string()?;
        let key = self.frame.get(start..self.at - 1)?;
        self.skip_spaces();
        self.skip(b':')?;
        self.skip_spaces();
        (!has_escapes).then_some(key)
    }

    /// Skips a value, and returns its text.
    fn value(&mut self) -> Option<&'a str> {
        let start = self.at;
        // What is open around the current place: a bit for each, 1 for an object, the innermost lowest.
        let (mut open, mut depth) = (0_u64, 0);
        loop {
            match self.peek()? {
                b'"' => self.skip_string().map(drop)?,
                bracket @ (b'{' | b'[') => {
                    if depth == MAX_FIELD_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    self.skip_spaces();
                    if self.peek()? == bracket + 2 {
                        self.at += 1; // it is empty
                    } else {
                        depth += 1;
                        open = open << 1 | u64::from(bracket == b'{');
                        if bracket == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.skip_number()?,
                b't' => self.skip_literal("true")?,
                b'f' => self.skip_literal("false")?,
                b'n' => self.skip_literal("null")?,
                _ => return None,
            }
            // What follows a value.
            loop {
                if depth == 0 {
                    return self.frame.get(start..self.at);
                }
                self.skip_spaces();
                match (self.next()?, open & 1 == 1) {
                    (b'}', true) | (b']', false) => {
                        open >>= 1;
                        depth -= 1;
                    }
                    (b',', is_object) => {
                        self.skip_spaces();
                        if is_object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn skip_key(&mut self) -> Option<()> {
        self.skip_string()?;
        self.skip_spaces();
        self.skip(b':')?;
        self.skip_spaces();
        Some(())
    }

    /// Skips a string; whether it has escapes.
    fn skip_string(&mut self) -> Option<bool> {
        self.skip(b'"')?;
        let mut has_escapes = false;
        loop {
            self.at += memchr2(b'"', b'\\', self.frame.as_bytes().get(self.at..)?)?;
            if self.next()? == b'"' {
                return Some(has_escapes);
            }
            has_escapes = true;
            self.skip_escaped()?;
            // The lines of an SDP end with two.
            if self.peek()? == b'\\' {
                self.at += 1;
                self.skip_escaped()?;
            }
        }
    }

    /// Skips what follows a backslash.
    fn skip_escaped(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.frame.as_bytes().get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn skip_number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_some_digits()?;
        }
        Some(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn skip_some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.skip_digits();
        (self.at > start).then_some(())
    }

    fn skip_literal(&mut self, literal: &str) -> Option<()> {
        self.frame.get(self.at..)?.starts_with(literal).then(|| self.at += literal.len())
    }
}

#[cfg(test)]
mod tests;
