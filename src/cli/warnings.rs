//! Warnings in the log about settings, files and passwords that are accepted and dangerous.

use tokio::task::spawn_blocking;

use crate::{
    config::{self, ConfigWarning, StartupSettings},
    doctor,
    state::AppState,
};

/// Logs a warning for each setting that is accepted and dangerous.
pub(super) fn log_dangerous_settings(warnings: &[ConfigWarning]) {
    for warning in warnings {
        tracing::warn!(%warning, "dangerous setting");
    }
}

pub(super) fn log_exposed_files(startup: &StartupSettings) {
    if startup.process.debug {
        return;
    }
    for exposed in config::exposed_files(startup) {
        tracing::warn!(%exposed, "secret file is readable by other users");
    }
}

/// In the background: each account of a default name costs a password hash.
pub(super) fn log_default_passwords(app: &AppState) {
    if app.config.process.debug {
        return;
    }
    let app = app.clone();
    spawn_blocking(move || {
        for fault in doctor::default_passwords(&app.users) {
            tracing::warn!(%fault, "account has a default password");
        }
    });
}
