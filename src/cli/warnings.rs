//! Warnings in the log about settings, files and passwords that are accepted and dangerous.

use tokio::task::spawn_blocking;

use crate::{
    config::{self, Environment, ReloadableSettings, StartupSettings},
    doctor,
    state::AppState,
};

/// Logs a warning for each setting that is accepted and dangerous.
pub(super) fn log_dangerous_settings(startup: &StartupSettings, reloadable: &ReloadableSettings) {
    for danger in doctor::dangers(startup, reloadable) {
        tracing::warn!(warning = danger.line(), "dangerous setting");
    }
}

/// Logs a warning for each line of `.env` that has no effect.
pub(super) fn log_ignored_lines(environment: &Environment) {
    for warning in environment.ignored_lines() {
        tracing::warn!(%warning, "line of .env has no effect");
    }
}

/// Logs which file the settings come from.
pub(super) fn log_env_file(environment: &Environment) {
    match environment.found_file() {
        Some(file) => tracing::info!(file = %file.display(), "settings read"),
        None => {
            let folder = environment.folder();
            tracing::info!(folder, "no .env: settings come from the environment and defaults");
        }
    }
}

/// Logs the files that others may read, and the folders in which the server cannot write.
pub(super) fn log_file_modes(startup: &StartupSettings, environment: &Environment) {
    for warning in config::unwritable_folders(startup) {
        tracing::warn!(%warning, "folder cannot be written");
    }
    if startup.process.debug {
        return;
    }
    for exposed in config::exposed_files(startup, environment.file()) {
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
