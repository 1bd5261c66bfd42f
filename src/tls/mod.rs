//! TLS: the certificate of this server's own port, and the verification of other servers' certificates.

mod certificate;
mod error;
mod files;
mod self_signed;
mod stream;
mod tickets;
pub mod verify;

/// What to do where certificate and key cannot be served.
pub const PAIR_FIX: &str =
    "name a PEM file with the chain, the server's own certificate first, and one with its key";

pub use certificate::{LoadedCertificate, PendingCertificate, ServerCertificate, load_certificate};
pub use error::TlsError;
pub use files::TlsFiles;
pub use stream::TlsStream;
pub use tickets::{HOURS_KEPT, SealedTicketKey, TicketKeys};
