//! One result of `doctor`: what was checked, how it is, and how to fix it.

use std::fmt;

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warning,
    /// It does not work, or is a danger.
    Fault,
    /// It could not be checked.
    NotChecked,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnostic {
    /// What was checked: a setting by its variable, a server by its URL, else a name such as "clock".
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do; empty if the verdict is [`Verdict::Ok`].
    pub fix: String,
}

impl Diagnostic {
    pub(super) fn new(
        subject: impl Into<String>,
        verdict: Verdict,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), verdict, message: message.into(), fix: fix.into() }
    }

    pub(super) fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Ok, message, "")
    }

    pub(super) fn warning(
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Warning, message, fix)
    }

    pub(super) fn fault(
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Fault, message, fix)
    }

    /// Subject, message and fix on one line.
    pub fn line(&self) -> String {
        format!("{}; {}", self.headline(), self.fix)
    }

    /// Subject and message on one line.
    pub fn headline(&self) -> String {
        let Self { subject, message, .. } = self;
        // Some messages begin with the variable that they are about.
        if message.starts_with(subject) { message.clone() } else { format!("{subject}: {message}") }
    }
}

/// Verdict and message on one line, and the fix on the next.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fix, verdict, .. } = self;
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
            Verdict::NotChecked => "not checked",
        };
        write!(f, "{verdict:<12}{}", self.headline())?;
        if fix.is_empty() { Ok(()) } else { write!(f, "\n{:12}{fix}", "") }
    }
}
