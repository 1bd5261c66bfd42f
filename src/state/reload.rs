//! Applies settings and accounts that were read again.

use std::sync::{Arc, PoisonError};

use super::AppStateInner;
use crate::{
    auth::users::{PendingUsers, RowFault},
    clock::unix_now,
    config::ReloadableSettings,
    protocol::MessageLimits,
};

impl AppStateInner {
    /// The settings in force that SIGHUP may change. They are read here each time they are needed, but not for each
    /// message: this takes a lock.
    pub fn settings(&self) -> Arc<ReloadableSettings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The limits of each client's messages.
    pub fn message_limits(&self) -> MessageLimits {
        let limits = &self.settings().limits;
        MessageLimits {
            max_message_bytes: limits.max_message_bytes,
            messages_per_second: limits.messages_per_second,
            message_burst: limits.message_burst,
            bytes_per_second: limits.bytes_per_second,
        }
    }

    /// Applies `settings` that were [read again](crate::config::reload). Members get other STUN and TURN servers and other limits
    /// of their messages at their next deadline, so not all at once.
    pub fn apply_settings(&self, settings: ReloadableSettings) {
        let ReloadableSettings { auth, limits, .. } = &settings;
        self.http_rate.apply_settings(limits.requests_per_minute);
        self.joins.apply_settings(limits.joins_per_minute, limits.max_connections_per_ip);
        self.connection_rate.apply_settings(limits.max_connections_per_ip);
        self.lockouts().apply_settings(auth.max_failures, auth.lockout);
        self.sockets.apply_settings(limits.max_connections_per_ip);
        self.user_sockets.apply_settings(limits.max_connections_per_user);
        self.resume_slots
            .apply_settings(limits.max_detached_per_user(), limits.max_connections_per_ip);
        self.rooms.set_default_capacity(limits.max_connections_per_room);
        let mut current = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let has_other_ice = current.ice != settings.ice;
        *current = Arc::new(settings);
        if has_other_ice {
            self.replace_ice_servers();
        }
    }

    /// Applies accounts that were read again, and ends the sessions of those that are no longer valid. Returns whether any
    /// account changed.
    pub fn apply_users(&self, pending: PendingUsers<'_>) -> bool {
        let (changes, faults) = pending.apply();
        self.end_revoked_sessions(&faults);
        changes.is_any()
    }

    pub(super) fn end_revoked_sessions(&self, faults: &[RowFault]) {
        log_row_faults(faults);
        self.end_tokens_of_disabled();
        self.token_sessions.end_revoked(|claims| self.revocation_reason(claims));
    }
}

impl AppStateInner {
    /// Ends the tokens of disabled accounts that were issued until now, so that they stay ended when the account is enabled
    /// again.
    pub fn end_tokens_of_disabled(&self) {
        let now = unix_now();
        for username in self.users.inactive_names() {
            self.revoked_tokens.insert(&self.end_issued_until(&username, now));
        }
        // Logged where it fails; the next eviction tries again.
        let _ = self.write_revoked();
    }
}

/// Logs the rows of the users file that make no account.
pub fn log_row_faults(faults: &[RowFault]) {
    for RowFault { line, fault } in faults {
        tracing::error!(line, fault, fix = RowFault::FIX, "invalid row of the users file ignored");
    }
}
