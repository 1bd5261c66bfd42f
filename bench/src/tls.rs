//! TLS for the clients and for the floor: connections that never block, with a certificate that the bench makes for the run.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

/// The domain of the bench: each client uses a name of its own in it, and so has session tickets of its own.
const DOMAIN: &str = "bench.test";

/// How many clients keep session tickets.
const MAX_SESSIONS: usize = 50_000;

/// Whether clients that come back resume their TLS session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tickets {
    /// They do.
    Used,
    /// Each connection has a whole handshake.
    Unused,
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

/// A certificate of a run, in a folder that is removed at its end.
pub struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    /// Makes one.
    pub fn create(folder: PathBuf, kind: KeyKind) -> io::Result<Self> {
        let key = match kind {
            KeyKind::Ecdsa => rcgen::KeyPair::generate(),
            KeyKind::Rsa => {
                rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
        };
        let key = key.map_err(io::Error::other)?;
        let signed = rcgen::CertificateParams::new([format!("*.{DOMAIN}")])
            .and_then(|parameters| parameters.self_signed(&key))
            .map_err(io::Error::other)?;
        let certificate = Self { folder };
        fs::write(certificate.chain(), signed.pem())?;
        fs::write(certificate.key(), key.serialize_pem())?;
        Ok(certificate)
    }

    /// The path of the certificate.
    pub fn chain(&self) -> PathBuf {
        self.folder.join("bench.crt")
    }

    /// The path of its key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("bench.key")
    }

    /// The clients' side.
    pub fn clients(&self, tickets: Tickets) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&self.chain())? {
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = match tickets {
            Tickets::Used => Resumption::in_memory_sessions(MAX_SESSIONS),
            Tickets::Unused => Resumption::disabled(),
        };
        Ok(Arc::new(config))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The floor's side: as plain as rustls allows, and with session tickets.
pub fn floor(chain_file: &Path, key_file: &Path) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(io::Error::other)?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain(chain_file)?, key)
        .map_err(io::Error::other)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

fn chain(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(io::Error::other)?;
    certificates.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// A connection, plain or TLS, that never blocks.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<Tls>),
}

/// A TLS connection and its socket.
pub struct Tls {
    socket: TcpStream,
    session: Connection,
    /// Whether the socket had no more data when it was read last.
    is_drained: bool,
}

impl Stream {
    /// A client's end; `name` is its own.
    pub fn client(socket: TcpStream, tls: Option<(Arc<ClientConfig>, &str)>) -> io::Result<Self> {
        let Some((config, name)) = tls else { return Ok(Self::Plain(socket)) };
        let name = ServerName::try_from(format!("{name}.{DOMAIN}")).map_err(io::Error::other)?;
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self::tls(socket, session.into()))
    }

    /// The floor's end.
    pub fn server(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(socket)) };
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::tls(socket, session.into()))
    }

    fn tls(socket: TcpStream, session: Connection) -> Self {
        Self::Tls(Box::new(Tls { socket, session, is_drained: false }))
    }

    /// The socket, to be registered.
    pub fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.socket,
        }
    }

    /// Waits for what this connection needs next; `unsent` is whether its owner has something to write.
    pub fn watch(&mut self, registry: &Registry, token: Token, unsent: bool) -> io::Result<()> {
        let wants_write = unsent || self.is_blocked();
        let both = Interest::READABLE | Interest::WRITABLE;
        let interest = if wants_write { both } else { Interest::READABLE };
        registry.reregister(self.socket(), token, interest)
    }

    /// Whether it holds bytes that its socket has not taken.
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.wants_write())
    }

    /// Reads what has arrived; `WouldBlock` if there is nothing.
    pub fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(bytes),
            Self::Tls(tls) => tls.read(bytes),
        }
    }

    /// Whether a read of `length` of `wanted` bytes was the last until epoll reports more.
    pub fn is_drained(&self, length: usize, wanted: usize) -> bool {
        matches!(self, Self::Plain(_)) && length < wanted
    }

    /// Writes as much as the socket takes, of nothing or of `bytes`; `WouldBlock` before the end of the handshake.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }
}

impl Tls {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            if std::mem::take(&mut self.is_drained) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut socket = Draining { socket: &mut self.socket, is_drained: false };
            if self.session.read_tls(&mut socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.is_drained = socket.is_drained;
            self.session.process_new_packets().map_err(io::Error::other)?;
            self.flush()?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        if self.session.is_handshaking() || self.session.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                outcome => outcome?,
            };
        }
        Ok(())
    }
}

/// Notes whether the socket had fewer bytes than there was room for: then it needs no further read.
struct Draining<'a> {
    socket: &'a mut TcpStream,
    is_drained: bool,
}

impl Read for Draining<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.socket.read(bytes)?;
        self.is_drained = length < bytes.len();
        Ok(length)
    }
}
