//! Why the users file cannot be read or edited.

use std::{io, path::PathBuf};

/// Why the users file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened, or not be written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no table of users at all.
    #[error("{path}, line {line}: {fault}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        fault: String,
    },
}

/// Why an account was not changed. The text is what the operator reads.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file itself is the problem.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is such an account already.
    #[error("user \"{0}\" exists already; `manage_users passwd` changes a password")]
    Exists(String),
    /// There is no such account.
    #[error("there is no user \"{0}\"; `manage_users list` shows who there is")]
    Unknown(String),
    /// A name, password or email that is not accepted.
    #[error("{0}")]
    Refused(String),
}
