//! `users.csv` as it stands on disk: a table with a row for each account.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use csv::StringRecord;

use super::error::{EditError, FileError};

/// The columns of a new file, in order.
const COLUMNS: [&str; 4] = ["username", "email", "hashed_password", "is_active"];

/// Every line of the file, including columns that this program does not know and rows that it cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersTable {
    headers: StringRecord,
    rows: Vec<StringRecord>,
}

/// The cells of a row that this program uses.
pub struct UserRow<'a> {
    /// The line of the file, counted from 1.
    pub line: u64,
    /// Whether it has a cell for each column.
    pub whole: bool,
    /// Account name.
    pub username: &'a str,
    /// Mail address; empty where the file has no such column.
    pub email: &'a str,
    /// bcrypt hash.
    pub hashed_password: &'a str,
    /// As spelled in the file; `None` where the file has no such column.
    pub is_active: Option<&'a str>,
}

impl UsersTable {
    /// A table without accounts.
    pub fn empty() -> Self {
        Self { headers: StringRecord::from(COLUMNS.as_slice()), rows: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`FileError`], naming the line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io { path: path.into(), source };
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(io::Error::other("not a regular file")));
        }
        let bytes = fs::read(path).map_err(io)?;
        Self::parse(&bytes).map_err(|(line, fault)| FileError::Syntax {
            path: path.into(),
            line,
            fault,
        })
    }

    /// Reads the contents of the file: RFC 4180, with or without a byte order mark, any line end.
    ///
    /// # Errors
    ///
    /// The line (from 1) and what is wrong there.
    pub fn parse(bytes: &[u8]) -> Result<Self, (u64, String)> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        // It swallows every row below it.
        if let Some(line) = unclosed_quote(bytes) {
            return Err((line, "a quote is opened here and not closed".to_owned()));
        }
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut records = reader.records().map(|record| match record {
            Ok(mut record) => {
                let found = record.position().map(|position| past_empty_lines(bytes, position));
                record.set_position(found);
                Ok(record)
            }
            Err(error) => {
                let found = error.position().map(|position| past_empty_lines(bytes, position));
                Err((found.map_or(0, |found| found.line()), "not UTF-8 text".to_owned()))
            }
        });
        let first = records
            .next()
            .ok_or((1, "the file is empty; the first line names the columns".to_owned()))??;
        // A byte order mark in the first name would be lost when the file is written again.
        let blank = |char: char| char.is_whitespace() || char == '\u{feff}';
        let headers: StringRecord = first.iter().map(|header| header.trim_matches(blank)).collect();
        for column in ["username", "hashed_password"] {
            if !headers.iter().any(|header| header == column) {
                let wanted = COLUMNS.join(",");
                let found = if first.len() == 1 { first.get(0) } else { None };
                let separators = [(";", ";"), ("\t", "a tab")];
                let has = |separator: &str| found.is_some_and(|line| line.contains(separator));
                let separator = separators.into_iter().find(|(it, _)| has(it));
                let fault = match separator {
                    Some((_, name)) => format!(
                        "this file has {name} between its cells, it must have \",\"; the first line must be {wanted}"
                    ),
                    None => format!("no column \"{column}\"; the first line must be {wanted}"),
                };
                return Err((1, fault));
            }
        }
        Ok(Self { headers, rows: records.collect::<Result<_, _>>()? })
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> impl Iterator<Item = UserRow<'_>> {
        self.rows.iter().map(|row| UserRow {
            line: row.position().map_or(0, csv::Position::line),
            whole: row.len() >= self.headers.len(),
            username: self.cell(row, "username").unwrap_or_default(),
            email: self.cell(row, "email").unwrap_or_default(),
            hashed_password: self.cell(row, "hashed_password").unwrap_or_default(),
            is_active: self.column("is_active").map(|column| row.get(column).unwrap_or_default()),
        })
    }

    /// Adds an active account. Name, password and email have been checked.
    ///
    /// # Errors
    ///
    /// [`EditError::Exists`].
    pub fn add(&mut self, username: &str, email: &str, hash: &str) -> Result<(), EditError> {
        if self.rows().any(|row| row.username == username) {
            return Err(EditError::Exists(username.to_owned()));
        }
        let cell = |column: &str| match column {
            "username" => username,
            "email" => email,
            "hashed_password" => hash,
            "is_active" => "True",
            _ => "",
        };
        self.rows.push(self.headers.iter().map(cell).collect());
        Ok(())
    }

    /// Removes an account.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn remove(&mut self, username: &str) -> Result<(), EditError> {
        let (column, before) = (self.column("username"), self.rows.len());
        self.rows.retain(|row| column.and_then(|column| row.get(column)) != Some(username));
        if self.rows.len() == before {
            return Err(EditError::Unknown(username.to_owned()));
        }
        Ok(())
    }

    /// Changes the password hash of an account.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn set_hash(&mut self, username: &str, hash: &str) -> Result<(), EditError> {
        self.set(username, "hashed_password", hash)
    }

    /// Enables or disables an account.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn set_active(&mut self, username: &str, active: bool) -> Result<(), EditError> {
        if self.column("is_active").is_none() {
            let width = self.headers.len();
            self.headers.push_field("is_active");
            for row in self.rows.iter_mut().filter(|row| row.len() >= width) {
                row.truncate(width);
                row.push_field("True");
            }
        }
        self.set(username, "is_active", if active { "True" } else { "False" })
    }

    fn set(&mut self, username: &str, column: &str, value: &str) -> Result<(), EditError> {
        let unknown = || EditError::Unknown(username.to_owned());
        let (names, target) =
            self.column("username").zip(self.column(column)).ok_or_else(unknown)?;
        let mut found = false;
        for row in self.rows.iter_mut().filter(|row| row.get(names) == Some(username)) {
            let width = row.len().max(target + 1);
            let cells = (0..width)
                .map(|at| if at == target { value } else { row.get(at).unwrap_or_default() });
            *row = cells.collect();
            found = true;
        }
        if found { Ok(()) } else { Err(unknown()) }
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.headers.iter().position(|header| header == name)
    }

    fn cell<'a>(&self, row: &'a StringRecord, column: &str) -> Option<&'a str> {
        row.get(self.column(column)?)
    }

    pub(super) fn write_to(&self, target: &mut impl Write) -> io::Result<()> {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(target);
        writer.write_record(&self.headers)?;
        for row in &self.rows {
            writer.write_record(row)?;
        }
        writer.flush()
    }
}

/// The line with a quote that is still open at the end of the file (RFC 4180 section 2: a quoted cell may span lines).
fn unclosed_quote(bytes: &[u8]) -> Option<u64> {
    let (mut line, mut opened, mut is_cell_start) = (1, None, true);
    let mut rest = bytes.iter().peekable();
    while let Some(byte) = rest.next() {
        match (byte, opened) {
            (b'"', Some(_)) if rest.peek() == Some(&&b'"') => {
                rest.next();
            }
            (b'"', Some(_)) => opened = None,
            (b'"', None) if is_cell_start => opened = Some(line),
            _ => {}
        }
        is_cell_start = opened.is_none() && b",\r\n".contains(byte);
        let is_line_end = *byte == b'\n' || (*byte == b'\r' && rest.peek() != Some(&&b'\n'));
        line += u64::from(is_line_end);
    }
    opened
}

/// Where a row really begins: the reader stands before the empty lines above it.
fn past_empty_lines(bytes: &[u8], position: &csv::Position) -> csv::Position {
    let before = usize::try_from(position.byte()).ok().and_then(|at| bytes.get(at..));
    let ends = before.unwrap_or_default().iter().take_while(|byte| b"\r\n".contains(byte));
    let passed = ends.filter(|byte| **byte == b'\n').count();
    let mut found = position.clone();
    found.set_line(position.line() + passed as u64);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &str = "\u{feff}is_active,note,username,hashed_password\r\nTrue,\"a, \"\"b\"\"\",alice,h1\r\nFalse,,bob\r\n";

    fn text(table: &UsersTable) -> String {
        let mut bytes = Vec::new();
        table.write_to(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_edit_keeps_all_other_columns_and_rows() {
        let mut table = UsersTable::parse(ODD.as_bytes()).unwrap();

        table.add("carol", "c@example.com", "h3").unwrap();
        table.set_active("alice", false).unwrap();
        table.set_hash("alice", "h9").unwrap();

        assert_eq!(
            text(&table),
            "is_active,note,username,hashed_password\nFalse,\"a, \"\"b\"\"\",alice,h9\nFalse,,bob\nTrue,,carol,h3\n"
        );
    }

    #[test]
    fn an_account_can_be_disabled_in_a_file_without_that_column() {
        let mut table = UsersTable::parse(b"username,hashed_password\nalice,h1\nbob,h2\n").unwrap();

        table.set_active("bob", false).unwrap();

        assert_eq!(
            text(&table),
            "username,hashed_password,is_active\nalice,h1,True\nbob,h2,False\n"
        );
    }

    #[test]
    fn a_quoted_cell_may_span_lines() {
        let text =
            "username,hashed_password,note\nalice,h1,\"two\nlines, \"\"quoted\"\"\"\nbob,h2,a\"b\n";

        let table = UsersTable::parse(text.as_bytes()).unwrap();

        let names: Vec<_> = table.rows().map(|row| (row.username, row.line)).collect();
        assert_eq!(names, [("alice", 2), ("bob", 4)]);
    }

    #[test]
    fn an_invalid_file_is_an_error_that_names_the_line() {
        for (bytes, line, word) in [
            (&b""[..], 1, "empty"),
            (b"\n\n", 1, "empty"),
            (b"{\"users\":[]}", 1, "username"),
            (b"username,email\nalice,a@b\n", 1, "hashed_password"),
            (b"username;hashed_password\nalice;x\n", 1, "it must have \",\""),
            (b"username\thashed_password\nalice\tx\n", 1, "has a tab"),
            (b"username,hashed_password\nalice,x\n\xff\xfe,y\n", 3, "UTF-8"),
            (b"username,email,hashed_password\nalice,\"a@b,x\nbob,b@b,y\n", 2, "quote"),
            (b"username,hashed_password\nalice,x\n\"bob,y\ncarol,z\n", 3, "quote"),
            (b"\nusername,hashed_password\r\n\r\n\nalice,x\n\n\xff,y\n", 7, "UTF-8"),
            (b"username,hashed_password\r\n\r\n\"alice,x\r\n", 3, "quote"),
        ] {
            let (at, fault) = UsersTable::parse(bytes).unwrap_err();

            assert!(at == line && fault.contains(word), "{at}: {fault}");
        }
    }
}
