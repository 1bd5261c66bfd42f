//! The certificate and key of this server's own port, loaded from files and reloaded when these change.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::parse_x509_certificate;

use super::{error::TlsError, files::TlsFiles, self_signed, tickets::TicketKeys};
use crate::{metrics::Metrics, storage::file_watch::FileWatch};

/// The certificate that the server presents. Connections keep the one that they began with.
pub struct ServerCertificate {
    files: TlsFiles,
    /// Those of all certificates: a ticket outlives a renewal.
    tickets: Option<Arc<TicketKeys>>,
    watch: FileWatch,
    served: RwLock<LoadedCertificate>,
    /// Held from reading the files until their content is served, so that nothing older replaces it.
    loading: Mutex<()>,
}

/// A certificate chain with its key, ready to be served.
pub struct LoadedCertificate {
    chain: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain expires, in whole seconds since the Unix epoch.
    expires_at: i64,
}

/// A certificate that was loaded and is not served yet.
pub struct PendingCertificate<'a> {
    server: &'a ServerCertificate,
    loaded: LoadedCertificate,
    _loading: MutexGuard<'a, ()>,
}

impl PendingCertificate<'_> {
    /// Serves the certificate to connections that begin from now on. Returns whether it differs from the one before.
    pub fn apply(self) -> bool {
        let mut served = self.server.served.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = served.chain != self.loaded.chain;
        *served = self.loaded;
        is_new
    }
}

impl ServerCertificate {
    /// Loads certificate and key. Creates self-signed ones first if the settings ask for it and neither file exists. With `tickets`
    /// clients that come back resume their TLS session.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn load(files: TlsFiles, tickets: Option<Arc<TicketKeys>>) -> Result<Self, TlsError> {
        if files.will_be_created() {
            self_signed::create(&files)?;
        }
        let watch = FileWatch::new([files.certificate.clone(), files.key.clone()]);
        let served = RwLock::new(load_certificate(&files, tickets.clone())?);
        Ok(Self { files, tickets, watch, served, loading: Mutex::new(()) })
    }

    /// The keys of session tickets, if there are any.
    pub fn tickets(&self) -> Option<Arc<TicketKeys>> {
        self.tickets.clone()
    }

    /// What a new connection is accepted with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Loads certificate and key again, without serving them yet.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; the certificate in force stays.
    pub fn reload(&self) -> Result<PendingCertificate<'_>, TlsError> {
        let loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load_certificate(&self.files, self.tickets.clone())?;
        Ok(PendingCertificate { server: self, loaded, _loading: loading })
    }

    /// Reloads changed files for as long as it is polled, and records in `metrics` when the certificate in force
    /// expires.
    pub async fn run_reload(self: Arc<Self>, metrics: Arc<Metrics>, poll_interval: Duration) {
        loop {
            metrics.set_certificate_expiry(
                self.served.read().unwrap_or_else(PoisonError::into_inner).expires_at,
            );
            tokio::time::sleep(poll_interval).await;
            let server = self.clone();
            match tokio::task::spawn_blocking(move || server.reload_if_changed()).await {
                Ok(Ok(true)) => tracing::info!("certificate reloaded"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "certificate not reloaded; the previous one stays in force")
                }
            }
        }
    }

    /// Serves the files' content if they have changed (see [`FileWatch::poll_change`]) and are valid. Returns whether it
    /// did.
    fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if !self.watch.poll_change() {
            return Ok(false);
        }
        self.reload()?.apply();
        Ok(true)
    }
}

/// Loads certificate and key from `files`, to be served with `tickets` if there are any.
///
/// # Errors
///
/// [`TlsError`].
pub fn load_certificate(
    files: &TlsFiles,
    tickets: Option<Arc<TicketKeys>>,
) -> Result<LoadedCertificate, TlsError> {
    let (certificate, key) =
        (files.certificate.display().to_string(), files.key.display().to_string());
    let pem = |path: &str, problem: &dyn std::fmt::Display| {
        TlsError::Pem(path.to_owned(), problem.to_string())
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem(&certificate, &error))?;
    if chain.is_empty() {
        return Err(pem(&certificate, &"it contains no certificate"));
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
        .map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                pem(&key, &format!("it is not the key of the certificate in {certificate}"))
            } else {
                pem(&certificate, &error)
            }
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
    }
    let expires_at = expiries.into_iter().min().unwrap_or_default();
    Ok(LoadedCertificate { chain, config: Arc::new(config), expires_at })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn invalid_files_leave_the_old_certificate_in_force() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        let server = ServerCertificate::load(
            TlsFiles { certificate, key: key.clone(), self_signed: true },
            None,
        )
        .unwrap();
        let in_force = || Arc::as_ptr(&server.served.read().unwrap().config);
        let before = in_force();

        fs::write(&key, "half a k").unwrap();
        let reloads =
            [server.reload_if_changed(), server.reload_if_changed(), server.reload_if_changed()];

        assert!(matches!(reloads, [Ok(false), Err(TlsError::Pem(..)), Ok(false)]), "{reloads:?}");
        assert_eq!(in_force(), before);
    }

    #[test]
    fn a_key_without_its_certificate_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.crt"), folder.path().join("a.key"));
        fs::write(&key, "mine").unwrap();

        assert!(
            ServerCertificate::load(
                TlsFiles { certificate, key: key.clone(), self_signed: true },
                None
            )
            .is_err()
        );

        assert_eq!(fs::read_to_string(&key).unwrap(), "mine");
    }
}
