//! TLS: the certificate of this server's own port, and the verification of other servers' certificates.

mod certificate;
mod error;
mod files;
mod self_signed;
pub mod verify;

pub use certificate::{LoadedCertificate, PendingCertificate, ServerCertificate, load_certificate};
pub use error::TlsError;
pub use files::TlsFiles;
