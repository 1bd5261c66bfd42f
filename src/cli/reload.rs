//! SIGHUP: reads settings, users file and certificate again, and applies all of them or none.

use std::{error::Error, sync::Arc};

use tokio::signal::unix::Signal;
use tracing::level_filters::LevelFilter;

use super::warnings::log_dangerous_settings;
use crate::{
    config::{self, SettingChanges, dotenv},
    state::AppState,
    telemetry::LogLevelHandle,
    tls::{PendingCertificate, ServerCertificate},
};

/// Reloads at each `hangup`, for as long as it is polled. Without a reload, a closed terminal would end calls.
pub(super) async fn reload_on_hangup(
    mut hangup: Signal,
    app: AppState,
    tls: Option<Arc<ServerCertificate>>,
    log_level: LogLevelHandle,
) {
    while hangup.recv().await.is_some() {
        let (app, tls, log_level) = (app.clone(), tls.clone(), log_level.clone());
        let reload = move || reload(&app, tls.as_deref(), &log_level);
        let _ = tokio::task::spawn_blocking(reload).await;
    }
}

fn reload(app: &AppState, tls: Option<&ServerCertificate>, log_level: &LogLevelHandle) {
    let before = app.settings().telemetry.log_level;
    match try_reload(app, tls) {
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
    tls: Option<&ServerCertificate>,
) -> Result<SettingChanges, Box<dyn Error>> {
    let (settings, mut changes) =
        config::reload(&app.config, &app.settings(), dotenv::environment()?)?;
    let users = app.users.reload().map_err(|error| format!("USERS_CSV: {error}"))?;
    let certificate = tls.map(ServerCertificate::reload).transpose();
    let certificate =
        certificate.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?;

    // From here on nothing fails.
    if !changes.changed.is_empty() {
        log_dangerous_settings(&config::warnings(&app.config, &settings));
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
