//! Why the users file cannot be read or edited.

use std::{io, path::PathBuf};

/// Why the users file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Its rows are at fault, and too many accounts would be lost by that.
    #[error("{path}: {lost} of {known} accounts would be lost to invalid rows; line {line}: {fault}", path = path.display())]
    TooManyFaults {
        /// The file.
        path: PathBuf,
        /// Accounts that are in force and would be gone.
        lost: usize,
        /// Accounts that are in force.
        known: usize,
        /// The first line at fault.
        line: u64,
        /// What is wrong with it.
        fault: String,
    },
    /// It is not a table of users.
    #[error("{path}, line {line}: {fault}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with this line.
        fault: String,
    },
}

/// Why an account was not changed, as a text for the operator.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file itself is the problem.
    #[error(transparent)]
    File(#[from] FileError),
    /// The account exists already.
    #[error("user \"{0}\" exists already; `manage_users passwd` changes a password")]
    Exists(String),
    /// The account does not exist.
    #[error("there is no user \"{0}\"; `manage_users list` shows who there is")]
    Unknown(String),
    /// A username, password or email address is not accepted.
    #[error("{0}")]
    Refused(String),
}
