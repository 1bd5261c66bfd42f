//! Applies settings and accounts that were read again.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::AppStateInner;
use crate::{
    auth::users::{PendingUsers, RowFault},
    config::Config,
};

impl AppStateInner {
    /// The settings as they are now: what [`READ_AGAIN`](crate::config::READ_AGAIN) names is to be asked for here, whenever it is
    /// needed. Not for each message: this takes a lock.
    pub fn settings(&self) -> Arc<Config> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets `settings` count, that were [read again](Config::read_again). Whoever is in hears of other STUN and
    /// TURN servers at its next deadline, so not all at once, and keeps to the limits that it came in under.
    pub fn apply_settings(&self, settings: Config) {
        self.http_rate.apply_settings(settings.rate_limit_per_minute);
        self.lockouts().apply_settings(settings.auth_max_failures, settings.auth_lockout);
        self.sockets.apply_settings(settings.max_connections_per_ip);
        self.detached_permits.apply_settings(settings.max_connections_per_ip);
        self.rooms.set_default_capacity(settings.max_connections_per_room);
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let has_other_ice = held.ice != settings.ice;
        *held = Arc::new(settings);
        if has_other_ice {
            self.ice_version.fetch_add(1, Ordering::Relaxed);
            self.ice_replaced.notify_one();
        }
    }

    /// Lets accounts count that were read again, and ends the sockets of those that no longer do; whether there
    /// was anything new.
    pub fn apply_users(&self, fresh: PendingUsers<'_>) -> bool {
        let (is_new, faults) = fresh.apply();
        self.end_revoked_sessions(&faults);
        is_new
    }

    pub(super) fn end_revoked_sessions(&self, faults: &[RowFault]) {
        log_row_faults(faults);
        self.token_sessions.end_revoked(|claims| self.revocation_reason(claims));
    }
}

/// Names rows that were kept out of the accounts.
pub fn log_row_faults(faults: &[RowFault]) {
    for RowFault { line, fault } in faults {
        tracing::error!(line, fault, "a row of the users file is kept out");
    }
}
