//! Tells TLS from plain HTTP on one port by a connection's first byte.

use std::io;

use super::connection::CountedStream;
use crate::tls::{ServerCertificate, TlsStream};

/// The first byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection to a port with TLS, once its first byte shows whether the client uses TLS.
pub(super) enum Sniffed {
    Plain(CountedStream),
    Tls(Box<TlsStream<CountedStream>>),
}

/// Looks at the first byte of `stream` without consuming it, and completes a TLS handshake where it begins one.
pub(super) async fn sniff(stream: CountedStream, tls: &ServerCertificate) -> io::Result<Sniffed> {
    let mut first_byte = [0];
    stream.socket.peek(&mut first_byte).await?;
    if first_byte != [TLS_HANDSHAKE] {
        return Ok(Sniffed::Plain(stream));
    }
    Ok(Sniffed::Tls(Box::new(TlsStream::accept(stream, tls.config()).await?)))
}
