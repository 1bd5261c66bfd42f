//! Where the certificate and the key of this server are.

use std::path::PathBuf;

/// The files of a certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whether to create both for localhost if neither exists.
    pub self_signed: bool,
}

impl TlsFiles {
    /// Whether the next start creates both files.
    pub fn will_be_created(&self) -> bool {
        self.self_signed && !self.certificate.exists() && !self.key.exists()
    }
}
