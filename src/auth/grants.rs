//! Which open sockets stand on which token, so that the end of a token ends them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::token::{Claims, TokenHash};
use crate::outbox::{ClientQueue, DisconnectReason};

/// Every socket that was let in with a token.
#[derive(Clone, Default)]
pub struct TokenSessions(Arc<Mutex<SessionTable>>);

#[derive(Default)]
struct SessionTable {
    /// By number, of which each is higher than the one before.
    by_user: HashMap<String, Vec<TokenSession>>,
    last: u64,
}

struct TokenSession {
    number: u64,
    claims: Box<Claims>,
    outbox: ClientQueue,
}

/// One socket's leave to be here; ends when dropped.
pub struct TokenSessionGuard {
    grants: TokenSessions,
    username: String,
    number: u64,
}

impl TokenSessions {
    /// Notes that the connection behind `outbox` stands on this token.
    ///
    /// Note it first and check token and account after that: then whatever ends them meanwhile
    /// either fails the check or finds the note.
    pub fn register(&self, claims: &Claims, outbox: ClientQueue) -> TokenSessionGuard {
        let username = &claims.username;
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let number = table.last;
        let entries = table.by_user.entry(username.clone()).or_default();
        entries.push(TokenSession { number, claims: Box::new(claims.clone()), outbox });
        drop(table);
        TokenSessionGuard { grants: self.clone(), username: username.clone(), number }
    }

    /// Ends the sockets that stand on this token.
    pub fn end_token(&self, username: &str, fingerprint: TokenHash) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.get(username).into_iter().flatten() {
            if entry.claims.fingerprint == fingerprint {
                entry.outbox.disconnect(DisconnectReason::LoggedOut);
            }
        }
    }

    /// Ends the sockets of every token that no longer stands, as `fallen` says.
    pub fn end_revoked(&self, fallen: impl Fn(&Claims) -> Option<DisconnectReason>) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.values().flatten() {
            if let Some(why) = fallen(&entry.claims) {
                entry.outbox.disconnect(why);
            }
        }
    }
}

impl Drop for TokenSessionGuard {
    fn drop(&mut self) {
        let mut table = self.grants.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = table.by_user.get_mut(&self.username) {
            // A user may have thousands: bots do.
            if let Ok(place) = entries.binary_search_by_key(&self.number, |entry| entry.number) {
                entries.remove(place);
            }
            if entries.is_empty() {
                table.by_user.remove(&self.username);
            }
        }
    }
}
