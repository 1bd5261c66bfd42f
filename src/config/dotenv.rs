//! Where the settings come from: the environment, and `.env` in the working folder.

use std::{collections::HashMap, path::Path};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::Faults;

/// Settings from the process's environment, and from `.env` in the working folder where that has none.
///
/// # Errors
///
/// [`Faults`] where `.env` cannot be read.
#[expect(
    clippy::disallowed_methods,
    reason = "for the two binaries, which hand it to everything else"
)]
pub fn environment() -> Result<impl Fn(&str) -> Option<String>, Faults> {
    let file = dotenv(Path::new(".env"))?;
    let in_file = move |name: &str| file.get(name).map(|value| value.expose_secret().to_owned());
    Ok(move |name: &str| std::env::var(name).ok().or_else(|| in_file(name)))
}

fn dotenv(path: &Path) -> Result<HashMap<String, SecretString>, Faults> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(Faults(vec![format!("{}: {error}", path.display())])),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut variables, mut faults) = (HashMap::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        match read_assignment(line) {
            Ok(Some((name, value))) => _ = variables.insert(name, value.into()),
            Ok(None) => {}
            Err(fault) => faults.push(format!("{}, line {}: {fault}", path.display(), number + 1)),
        }
    }
    if faults.is_empty() { Ok(variables) } else { Err(Faults(faults)) }
}

/// One line of `.env` as python-dotenv reads it, without substitution: nothing in a secret is special.
pub(crate) fn read_assignment(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("no \"=\"; a line is NAME=value")?;
    let value = value.trim();
    let value = if let Some(quoted) = value.strip_prefix('\'') {
        let (quoted, _) = quoted.split_once('\'').ok_or("a quote is opened and not closed")?;
        quoted.to_owned()
    } else if let Some(quoted) = value.strip_prefix('"') {
        read_double_quoted(quoted).ok_or("a quote is opened and not closed")?
    } else if value.starts_with('#') {
        String::new()
    } else {
        value.split_once(" #").map_or(value, |(value, _)| value).trim_end().to_owned()
    };
    Ok(Some((name.trim().to_owned(), value)))
}

fn read_double_quoted(quoted: &str) -> Option<String> {
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
            assert_eq!(
                read_assignment(line),
                Ok(Some(("X".to_owned(), value.to_owned()))),
                "{line}"
            );
        }
        assert_eq!(read_assignment("  # X=1"), Ok(None));
        assert!(read_assignment("nonsense").is_err() && read_assignment("X='open").is_err());
    }
}
