//! Why TLS cannot be served.

use std::io;

/// Why a certificate cannot be served. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written: its path, and what the system returns.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// A file holds no certificate or no key, or the two do not match: its path, and the problem.
    #[error("{0}: {1}")]
    Pem(String, String),
}
