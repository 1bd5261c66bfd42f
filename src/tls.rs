//! TLS on our own port: certificate and key from files, read again when they change.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::parse_x509_certificate;

use crate::{config::TlsFiles, metrics::Metrics, watched::Watched};

/// Why there is no TLS. The text is what the operator reads.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// A file is not what it should be, or the two do not belong together.
    #[error("{0}: {1}")]
    Pem(String, String),
}

/// The certificate in force. Connections keep the one that they began with.
pub struct Tls {
    files: TlsFiles,
    watched: Watched,
    served: RwLock<Served>,
    /// Held from reading the files until what was read is served, so that nothing older comes after it.
    reading: Mutex<()>,
}

/// What is served, or would be.
pub struct Served {
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
    /// When the first of the chain expires, in whole seconds since the Unix epoch.
    expires_at: i64,
}

/// Certificate and key as the files have them, which are not served yet.
pub struct FreshTls<'a> {
    tls: &'a Tls,
    served: Served,
    _reading: MutexGuard<'a, ()>,
}

impl FreshTls<'_> {
    /// Serves them to connections that begin from now on; whether it is another certificate than before.
    pub fn adopt(self) -> bool {
        let mut served = self.tls.served.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = served.chain != self.served.chain;
        *served = self.served;
        is_new
    }
}

impl Tls {
    /// Reads certificate and key, after making them where that is asked for.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        if files.self_signed && !files.certificate.exists() && !files.key.exists() {
            make_self_signed(&files)?;
        }
        let watched = Watched::new([files.certificate.clone(), files.key.clone()]);
        let served = RwLock::new(read(&files)?);
        Ok(Self { files, watched, served, reading: Mutex::new(()) })
    }

    /// What a new connection begins with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(served.config.clone())
    }

    /// Reads certificate and key again.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; the ones before stay in force.
    pub fn read_again(&self) -> Result<FreshTls<'_>, TlsError> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(FreshTls { tls: self, served: read(&self.files)?, _reading: reading })
    }

    /// Takes up new files for as long as it is polled, and notes in `metrics` until when what is in force is good.
    pub async fn keep_fresh(self: Arc<Self>, metrics: Arc<Metrics>, poll_interval: Duration) {
        loop {
            metrics.certificate_expires(
                self.served.read().unwrap_or_else(PoisonError::into_inner).expires_at,
            );
            tokio::time::sleep(poll_interval).await;
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.look()).await {
                Ok(Ok(true)) => tracing::info!("certificate read again"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "certificate not read; the old one stays in force")
                }
            }
        }
    }

    /// Looks whether the files have changed (see [`Watched::changed`]) and takes them up if they
    /// make sense; says whether it did.
    fn look(&self) -> Result<bool, TlsError> {
        if !self.watched.changed() {
            return Ok(false);
        }
        self.read_again()?.adopt();
        Ok(true)
    }
}

/// What TLS there would be with these files.
///
/// # Errors
///
/// [`TlsError`].
pub fn read(files: &TlsFiles) -> Result<Served, TlsError> {
    let (certificate, key) =
        (files.certificate.display().to_string(), files.key.display().to_string());
    let pem = |path: &str, fault: &dyn std::fmt::Display| {
        TlsError::Pem(path.to_owned(), fault.to_string())
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem(&certificate, &error))?;
    if chain.is_empty() {
        return Err(pem(&certificate, &"no certificate in it"));
    }
    let expiries = chain.iter().map(|link| {
        let (_, parsed) =
            parse_x509_certificate(link).map_err(|error| pem(&certificate, &error))?;
        Ok(parsed.validity().not_after.timestamp())
    });
    let expiries = expiries.collect::<Result<Vec<_>, TlsError>>()?;
    let private = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| pem(&key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), private)
        .map_err(|error| pem(&certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let expires_at = expiries.into_iter().min().unwrap_or_default();
    Ok(Served { chain, config: Arc::new(config), expires_at })
}

fn make_self_signed(files: &TlsFiles) -> Result<(), TlsError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let certificate = files.certificate.display().to_string();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Pem(certificate, error.to_string()))?;
    write(&files.certificate, &made.cert.pem(), 0o644)?;
    write(&files.key, &made.signing_key.serialize_pem(), 0o600)?;
    tracing::warn!(certificate = %files.certificate.display(), "self-signed certificate made: browsers will warn");
    Ok(())
}

/// Writes a file that is never, not for a moment, more open than `mode`.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let io = |error| TlsError::Io(path.display().to_string(), error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let mut file =
        File::options().create_new(true).write(true).mode(mode).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_make_no_sense_leave_the_old_certificate_in_force() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        let tls = Tls::load(TlsFiles { certificate, key: key.clone(), self_signed: true }).unwrap();
        let in_force = || Arc::as_ptr(&tls.served.read().unwrap().config);
        let before = in_force();

        fs::write(&key, "half a k").unwrap();
        let looks = [tls.look(), tls.look(), tls.look()];

        assert!(matches!(looks, [Ok(false), Err(TlsError::Pem(..)), Ok(false)]), "{looks:?}");
        assert_eq!(in_force(), before);
    }

    #[test]
    fn a_key_without_its_certificate_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        fs::write(&key, "mine").unwrap();

        assert!(Tls::load(TlsFiles { certificate, key: key.clone(), self_signed: true }).is_err());

        assert_eq!(fs::read_to_string(&key).unwrap(), "mine");
    }
}
