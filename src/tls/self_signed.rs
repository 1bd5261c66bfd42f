//! Makes a self-signed certificate for development.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{error::TlsError, files::TlsFiles};

/// Writes a certificate for localhost and its key to `files`, which must not exist.
///
/// # Errors
///
/// [`TlsError`].
pub(super) fn create(files: &TlsFiles) -> Result<(), TlsError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let certificate = files.certificate.display().to_string();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError::Pem(certificate, error.to_string()))?;
    write(&files.certificate, &made.cert.pem(), 0o644)?;
    write(&files.key, &made.signing_key.serialize_pem(), 0o600)?;
    tracing::warn!(certificate = %files.certificate.display(), "self-signed certificate created; browsers will warn");
    Ok(())
}

/// Writes a new file, which has this mode from its creation on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let io = |error| TlsError::Io(path.display().to_string(), error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let mut file =
        File::options().create_new(true).write(true).mode(mode).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)
}
