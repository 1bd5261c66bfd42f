//! The lines of `.env`.
//!
//! The reader is our own because `dotenvy` changes values that python-dotenv, and so an `.env` of the FastAPI server, keeps
//! as they are: it removes the quotes of `["*"]` and replaces `$HOME` in a secret. A test below shows it.

use secrecy::SecretString;

use super::error::{ConfigError, ConfigErrors};

/// A line of `.env` that assigns a value.
#[derive(Debug)]
pub(super) struct Assignment {
    /// Its number, from 1 on.
    pub line: usize,
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: SecretString,
}

/// The assignments of a whole file, in order; `path` names it in errors.
///
/// # Errors
///
/// [`ConfigErrors`] for each line that is no assignment.
pub(super) fn parse_file(path: &str, text: &str) -> Result<Vec<Assignment>, ConfigErrors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut assignments, mut errors) = (Vec::new(), Vec::new());
    for (line, content) in (1..).zip(text.lines()) {
        match parse_line(content) {
            Ok(Some((name, value))) => {
                assignments.push(Assignment { line, name, value: value.into() });
            }
            Ok(None) => {}
            Err(error) => {
                let name = format!("{path}, line {line}");
                errors.push(ConfigError::new(name, error.to_string(), error.fix()));
            }
        }
    }
    if errors.is_empty() { Ok(assignments) } else { Err(ConfigErrors(errors)) }
}

/// Why a line of `.env` is no assignment. It repeats nothing of the line, which may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    #[error("has no \"=\"")]
    NoAssignment,
    #[error("opens a quote and does not close it")]
    OpenQuote,
}

impl BadLine {
    fn fix(self) -> &'static str {
        match self {
            Self::NoAssignment => "write NAME=value",
            Self::OpenQuote => "close the quote on the same line",
        }
    }
}

/// One line of `.env` as python-dotenv reads it, but without substitution, so that no character of a secret is special.
/// `None` for an empty line or a comment.
pub(super) fn parse_line(line: &str) -> Result<Option<(String, String)>, BadLine> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or(BadLine::NoAssignment)?;
    let value = value.trim();
    let value = if let Some(quoted) = value.strip_prefix('\'') {
        let (quoted, _) = quoted.split_once('\'').ok_or(BadLine::OpenQuote)?;
        quoted.to_owned()
    } else if let Some(quoted) = value.strip_prefix('"') {
        parse_double_quoted(quoted).ok_or(BadLine::OpenQuote)?
    } else if value.starts_with('#') {
        String::new()
    } else {
        value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned()
    };
    Ok(Some((name.trim().to_owned(), value)))
}

fn parse_double_quoted(quoted: &str) -> Option<String> {
    let (mut value, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: what python-dotenv 1.0 answers for these lines.
    #[test]
    fn dotenv_lines_are_read_as_python_reads_them() {
        for (line, value) in [
            (r#"X=["*"]"#, r#"["*"]"#),
            (r#"X=["a", "b"]"#, r#"["a", "b"]"#),
            ("X=pa$$word$HOME", "pa$$word$HOME"),
            ("X=a#b", "a#b"),
            ("X=a b # comment", "a b"),
            ("X=  spaced  ", "spaced"),
            ("X='single # quoted' # comment", "single # quoted"),
            (r#"X="double \" # quoted""#, "double \" # quoted"),
            ("export X=exported", "exported"),
            ("X=", ""),
            ("X = a=b", "a=b"),
        ] {
            assert_eq!(parse_line(line), Ok(Some(("X".to_owned(), value.to_owned()))), "{line}");
        }
        assert_eq!(parse_line("  # X=1"), Ok(None));
        assert!(parse_line("nonsense").is_err() && parse_line("X='open").is_err());
    }

    /// Why `dotenvy` is no replacement: the lines are of the FastAPI server's `env.example`, with a password that has dollar signs.
    #[test]
    fn dotenvy_misreads_values_that_python_keeps() {
        let read = |line: &str| {
            let mut read = dotenvy::from_read_iter(line.as_bytes());
            read.next().unwrap().map(|(_, value)| value).ok()
        };
        for (line, value, misread) in [
            (r#"CORS_ORIGINS=["*"]"#, r#"["*"]"#, Some("[*]")),
            (r#"TURNSERVER_URLS=["turn:a", "turn:b"]"#, r#"["turn:a", "turn:b"]"#, None),
        ] {
            assert_eq!(parse_line(line).unwrap().unwrap().1, value);
            assert_eq!(read(line).as_deref(), misread, "{line}");
        }
        let line = "TURNSERVER_SECRET=pa$$word$HOME";
        assert_eq!(parse_line(line).unwrap().unwrap().1, "pa$$word$HOME");
        assert_ne!(read(line).as_deref(), Some("pa$$word$HOME"));
    }
}
