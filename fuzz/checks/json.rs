//! A JSON parser from the grammar alone (RFC 8259), to compare with `serde_json`.

/// The maximum nesting of a message: the 64 levels of a payload, inside the message object.
const MAX_DEPTH: usize = 65;

/// Why a text cannot be parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON.
    Grammar,
    /// It nests too deep; the rest was not parsed.
    TooDeep,
}

/// The fields of an object in order, as raw text: names with their quotes, and values.
pub type Fields<'a> = Vec<(&'a str, &'a str)>;

/// The outermost object of a text; `None` if it is another kind of value.
pub fn read(text: &str) -> Result<Option<Fields<'_>>, Fault> {
    let mut reader = Reader { text, at: 0, fields: None };
    reader.space();
    reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(reader.fields) } else { Err(Fault::Grammar) }
}

/// Like [`read`], but only for an object whose names are all valid strings without duplicates.
pub fn object(text: &str) -> Option<Vec<(String, &str)>> {
    let fields = read(text).ok()??;
    let mut named = Vec::new();
    for (name, value) in fields {
        let name = string(name)?;
        if named.iter().any(|(other, _)| *other == name) {
            return None;
        }
        named.push((name, value));
    }
    Some(named)
}

/// The value of a JSON string; `None` for any other value, and for a lone surrogate.
pub fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    fields: Option<Fields<'a>>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.next() {
            Some(b'{') => self.members(depth + 1, b'}'),
            Some(b'[') => self.members(depth + 1, b']'),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("rue"),
            Some(b'f') => self.literal("alse"),
            Some(b'n') => self.literal("ull"),
            Some(b'-') => {
                let first = self.next();
                self.number(first)
            }
            first => self.number(first),
        }
    }

    fn members(&mut self, depth: usize, end: u8) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let is_object = end == b'}';
        if depth == 1 && is_object {
            self.fields = Some(Vec::new());
        }
        self.space();
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            let name = self.at;
            if is_object {
                self.expect(b'"')?;
                self.string()?;
            }
            let name = name..self.at;
            if is_object {
                self.space();
                self.expect(b':')?;
                self.space();
            }
            let value = self.at;
            self.value(depth)?;
            let value = value..self.at;
            if depth == 1
                && let Some(fields) = &mut self.fields
            {
                fields.push((&self.text[name], &self.text[value]));
            }
            self.space();
            match self.next() {
                Some(b',') => {}
                Some(byte) if byte == end => return Ok(()),
                _ => return Err(Fault::Grammar),
            }
        }
    }

    fn string(&mut self) -> Result<(), Fault> {
        loop {
            match self.next().ok_or(Fault::Grammar)? {
                b'"' => return Ok(()),
                b'\\' => match self.next().ok_or(Fault::Grammar)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.as_bytes().get(self.at..self.at + 4);
                        let all_hex =
                            digits.is_some_and(|four| four.iter().all(u8::is_ascii_hexdigit));
                        self.at += 4;
                        if !all_hex {
                            return Err(Fault::Grammar);
                        }
                    }
                    _ => return Err(Fault::Grammar),
                },
                0..0x20 => return Err(Fault::Grammar),
                _ => {}
            }
        }
    }

    /// `first` is the first digit, which is already consumed.
    fn number(&mut self, first: Option<u8>) -> Result<(), Fault> {
        match first {
            Some(b'0') => {}
            Some(b'1'..=b'9') => _ = self.digits(),
            _ => return Err(Fault::Grammar),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), Fault> {
        if self.digits() == 0 { Err(Fault::Grammar) } else { Ok(()) }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - from
    }

    fn literal(&mut self, rest: &str) -> Result<(), Fault> {
        rest.bytes().try_for_each(|byte| self.expect(byte))
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.next() == Some(byte) { Ok(()) } else { Err(Fault::Grammar) }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
