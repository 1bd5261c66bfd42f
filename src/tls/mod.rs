//! TLS: the certificate of this server's own port, and the verification of others' certificates.

mod server;
pub mod verify;

pub use server::{FreshTls, Tls, TlsError, read};
