//! SIGHUP: reads settings, users file and certificate again, and applies all of them or none.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::Signal;
use tracing::level_filters::LevelFilter;

use super::warnings::{log_dangerous_settings, log_ignored_lines};
use crate::{
    config::{self, Environment, SettingChanges},
    state::AppState,
    telemetry::LogLevelHandle,
    tls::{PendingCertificate, ServerCertificate},
};

/// Reloads at each `hangup`, for as long as it is polled. Without a reload, a closed terminal would end calls.
pub(super) async fn reload_on_hangup(
    mut hangup: Signal,
    env_file: Option<PathBuf>,
    app: AppState,
    tls: Option<Arc<ServerCertificate>>,
    log_level: LogLevelHandle,
) {
    while hangup.recv().await.is_some() {
        let (app, tls, log_level) = (app.clone(), tls.clone(), log_level.clone());
        let env_file = env_file.clone();
        let reload = move || reload(&app, env_file.as_deref(), tls.as_deref(), &log_level);
        let _ = tokio::task::spawn_blocking(reload).await;
    }
}

fn reload(
    app: &AppState,
    env_file: Option<&Path>,
    tls: Option<&ServerCertificate>,
    log_level: &LogLevelHandle,
) {
    let before = app.settings().telemetry.log_level;
    match try_reload(app, env_file, tls) {
        Ok(SettingChanges { changed, need_restart }) => {
            let (changed, need_restart) = (changed.join(", "), need_restart.join(", "));
            let level = app.settings().telemetry.log_level;
            // Logged at any LOG_LEVEL: an operator waits for this line.
            log_level.set(level.max(before).max(LevelFilter::INFO));
            tracing::info!(changed, need_restart, "settings reloaded");
            log_level.set(level);
        }
        Err(error) => {
            let error = error.to_string().replace('\n', "; ");
            tracing::error!(
                error,
                "settings not reloaded: settings, users and certificate are unchanged"
            );
        }
    }
}

fn try_reload(
    app: &AppState,
    env_file: Option<&Path>,
    tls: Option<&ServerCertificate>,
) -> Result<SettingChanges, Box<dyn Error>> {
    let environment = Environment::read(env_file)?;
    let (settings, mut changes) =
        config::reload(&app.config, &app.settings(), |name| environment.variable(name))?;
    let users = app.users.reload().map_err(|error| format!("USERS_CSV: {error}"))?;
    let certificate = tls.map(ServerCertificate::reload).transpose();
    let certificate =
        certificate.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?;

    // From here on nothing fails.
    log_ignored_lines(&environment);
    if !changes.changed.is_empty() {
        log_dangerous_settings(&app.config, &settings);
    }
    app.apply_settings(settings);
    if app.apply_users(users) {
        changes.changed.push("the users file".to_owned());
    }
    if certificate.is_some_and(PendingCertificate::apply) {
        changes.changed.push("the certificate".to_owned());
    }
    Ok(changes)
}
