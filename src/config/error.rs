//! What is wrong with settings, as values. The edges (command line, log, `doctor`) turn them into text.

use std::{borrow::Cow, fmt};

/// Why the server does not start with these settings: one problem of one setting, or of a line of `.env`.
///
/// Its text is one line, `NAME: problem; fix`, and never repeats the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable, or the file and the number of the line.
    pub name: Cow<'static, str>,
    /// What is wrong, without a full stop.
    pub problem: String,
    /// What to do about it, in the imperative.
    pub fix: String,
}

impl ConfigError {
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        problem: impl AsRef<str>,
        fix: impl AsRef<str>,
    ) -> Self {
        Self {
            name: name.into(),
            problem: on_one_line(problem.as_ref()),
            fix: on_one_line(fix.as_ref()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.name, self.problem, self.fix)
    }
}

impl std::error::Error for ConfigError {}

/// Every problem of the settings at once. Its text has a line for each of them.
#[derive(Clone, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ConfigError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// What the server accepts but an operator should know: a dangerous setting, or a file that others may read.
///
/// Its text is one line, `NAME: problem; fix`, and never repeats the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The variable, the path of the file, or the user.
    pub name: Cow<'static, str>,
    /// What is dangerous about it, without a full stop.
    pub problem: String,
    /// What to do about it, in the imperative.
    pub fix: String,
}

impl ConfigWarning {
    pub(crate) fn new(
        name: impl Into<Cow<'static, str>>,
        problem: impl AsRef<str>,
        fix: impl AsRef<str>,
    ) -> Self {
        let ConfigError { name, problem, fix } = ConfigError::new(name, problem, fix);
        Self { name, problem, fix }
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.name, self.problem, self.fix)
    }
}

/// Replaces what would start another line, for a quoted value in `.env` may hold anything.
pub(super) fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
