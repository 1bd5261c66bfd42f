//! Housekeeping: takes up a changed users file, and drops table entries that have expired.

use std::time::Duration;

use tokio::time::Instant;

use super::{AppState, AppStateInner, NotPersisted};
use crate::{
    auth::users::{UserChanges, UsersReload},
    clock::unix_now,
    limits::{RefusalKind, count_fault, log_counted_refusals},
};

/// How often tables drop expired entries.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

impl AppState {
    /// Reloads the users file when it changes, and drops expired table entries, for as long as it is polled.
    pub async fn run_maintenance(self) {
        let mut evict_at = Instant::now() + EVICTION_INTERVAL;
        loop {
            tokio::time::sleep(self.config.intervals.file_poll).await;
            log_counted_refusals(Instant::now());
            let app = self.clone();
            let reload = tokio::task::spawn_blocking(move || app.users.poll_file()).await;
            match reload.unwrap_or(UsersReload::Nothing) {
                UsersReload::Nothing => {}
                UsersReload::Changed(UserChanges { added, removed, changed }, faults) => {
                    tracing::info!(added, removed, changed, "users file reloaded");
                    self.end_revoked_sessions(&faults);
                }
                UsersReload::Refused(error) => {
                    tracing::error!(%error, "users file not reloaded; accounts are unchanged");
                }
            }
            if Instant::now() >= evict_at {
                evict_at += EVICTION_INTERVAL;
                let app = self.clone();
                let _ = tokio::task::spawn_blocking(move || app.evict_expired()).await;
                let _ = self.save_revoked().await;
                let _ = self.save_rules().await;
            }
        }
    }

    /// Writes the moderation rules to disk, where that is not done.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`]; the cause is logged.
    pub(super) async fn save_rules(&self) -> Result<(), NotPersisted> {
        let app = self.clone();
        self.rule_writes.run(move || app.write_rules()).await
    }

    /// The same for logouts.
    pub(super) async fn save_revoked(&self) -> Result<(), NotPersisted> {
        let app = self.clone();
        self.revocation_writes.run(move || app.write_revoked()).await
    }
}

impl AppStateInner {
    fn evict_expired(&self) {
        self.lockouts().evict_expired(Instant::now());
        self.revoked_tokens.evict_expired(unix_now());
        self.moderation_rules.evict_expired(unix_now());
        self.rooms.evict_expired();
        self.http_rate.evict_expired();
        self.joins.evict_expired(Instant::now());
        self.rule_rate.evict_expired(Instant::now());
        self.connection_rate.evict_expired(Instant::now());
        self.message_budgets.evict_expired(Instant::now());
    }
    fn write_rules(&self) -> Result<(), NotPersisted> {
        self.moderation_rules.save().map_err(|error| {
            if let Some(count) = count_fault(RefusalKind::RulesNotSaved, Instant::now()) {
                tracing::error!(%error, count, "moderation rules not saved: a restart would undo them");
            }
            NotPersisted
        })
    }

    /// Writes the logouts to disk, and blocks meanwhile.
    pub(super) fn write_revoked(&self) -> Result<(), NotPersisted> {
        self.revoked_tokens.save().map_err(|error| {
            if let Some(count) = count_fault(RefusalKind::LogoutsNotSaved, Instant::now()) {
                tracing::error!(%error, count, "logouts not saved: a restart would undo them");
            }
            NotPersisted
        })
    }
}
