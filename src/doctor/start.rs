//! What stops a start after the settings are accepted: files that the server reads before it listens. The files are read as
//! the start reads them, and nothing is written.

use std::{io::ErrorKind, path::Path};

use super::{Diagnostic, issuer::KEY_FILE_FIX, settings::USERS};
use crate::{
    auth::{revocation::RevokedTokens, users::FileError},
    clock::unix_now,
    config::{Config, StartupSettings},
    moderation::ModerationRules,
    state,
    tls::{self, TlsFiles},
};

/// What stops the start with these settings, of which `found` has been said.
pub fn start_faults(config: &Config, found: &[Diagnostic]) -> Vec<Diagnostic> {
    let is_found = |name: &str| found.iter().any(|it| it.subject == name);
    let startup = &config.startup;
    let mut faults = file_faults(startup);
    if !is_found("SSL_CERT_FILE") && !is_found("SSL_KEY_FILE") {
        faults.extend(certificate_fault(startup));
    }
    if !is_found("JWT_PUBLIC_KEY_FILE") {
        faults.extend(public_key_fault(startup));
    }
    faults
}

/// What there is to say about a users file that cannot be read because of `error`.
pub fn users_file_fault(error: &FileError) -> Diagnostic {
    let fix = match error {
        FileError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "make the user of the server its owner (with the package `chown signaling:`), and run `manage_users` as that user"
        }
        FileError::Io { .. } => "name a file with accounts; `manage_users add` makes one",
        FileError::TooManyFaults { .. } | FileError::Syntax { .. } => {
            "make its first line username,email,hashed_password,is_active; `manage_users add` makes such a file"
        }
    };
    Diagnostic::fault(USERS, format!("USERS_CSV: {error}"), fix)
}

/// The files beside the users file that the server cannot read.
pub(super) fn file_faults(startup: &StartupSettings) -> Vec<Diagnostic> {
    const FIX: &str = "correct that line, or remove the file and lose what it holds";
    let users_csv = &startup.auth.users_csv;
    let revoked = RevokedTokens::load(users_csv, unix_now()).err();
    let rules = ModerationRules::load(users_csv).err();
    let errors = revoked.into_iter().chain(rules);
    errors.map(|error| Diagnostic::fault("files", error.to_string(), FIX)).collect()
}

fn certificate_fault(startup: &StartupSettings) -> Option<Diagnostic> {
    let files = startup.listen.tls.as_ref()?;
    if files.will_be_created() {
        return self_signed_fault(files);
    }
    let error = tls::load_certificate(files, None).err()?;
    Some(Diagnostic::fault("SSL_CERT_FILE, SSL_KEY_FILE", error.to_string(), tls::PAIR_FIX))
}

/// What keeps the start from creating a self-signed certificate.
pub(super) fn self_signed_fault(files: &TlsFiles) -> Option<Diagnostic> {
    // The nearest folder that exists; the start makes the others.
    let exists = |folder: &&Path| folder.as_os_str().is_empty() || folder.exists();
    let folder = files.certificate.ancestors().skip(1).find(exists)?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let error = tempfile::tempfile_in(folder).err()?;
    let message = format!("no certificate can be written in {}: {error}", folder.display());
    let fix = "set SSL_CERT_FILE and SSL_KEY_FILE, or let the server write there";
    Some(Diagnostic::fault("SSL_SELF_SIGNED", message, fix))
}

fn public_key_fault(startup: &StartupSettings) -> Option<Diagnostic> {
    let error = state::read_key_file(startup.tokens.public_key_file.as_ref()?).err()?;
    Some(Diagnostic::fault("JWT_PUBLIC_KEY_FILE", error, KEY_FILE_FIX))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_users_file_that_the_server_may_not_read_gets_another_owner_and_not_another_first_line() {
        let fix = |source: io::Error| {
            users_file_fault(&FileError::Io { path: "users.csv".into(), source }).fix
        };
        let syntax =
            FileError::Syntax { path: "users.csv".into(), line: 1, fault: "no column".into() };

        assert!(fix(ErrorKind::PermissionDenied.into()).contains("`chown signaling:`"));
        assert!(fix(io::Error::other("not a regular file")).starts_with("name a file"));
        assert!(users_file_fault(&syntax).fix.starts_with("make its first line"));
    }
}
