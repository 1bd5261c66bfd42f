//! The sessions of each access token, so that revoking a token ends them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::access_token::Claims;
use crate::delivery::{ClientQueue, DisconnectReason};

/// Every session that was authorized with an access token.
#[derive(Clone, Default)]
pub struct TokenSessions(Arc<Mutex<SessionTable>>);

#[derive(Default)]
struct SessionTable {
    /// In ascending order of their numbers.
    by_user: HashMap<Arc<str>, Vec<TokenSession>>,
    last: u64,
}

struct TokenSession {
    number: u64,
    claims: Box<Claims>,
    queue: ClientQueue,
}

/// One session's entry in [`TokenSessions`]; removes it when dropped.
pub struct TokenSessionGuard {
    sessions: TokenSessions,
    username: Arc<str>,
    number: u64,
}

impl TokenSessions {
    /// Registers the session behind `queue` under this token.
    ///
    /// Register first, and check token and account after that: a revocation in between then either fails the check or
    /// finds the entry.
    pub fn register(&self, claims: &Claims, queue: ClientQueue) -> TokenSessionGuard {
        let username = &claims.username;
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let number = table.last;
        let entries = table.by_user.entry(username.clone()).or_default();
        entries.push(TokenSession { number, claims: Box::new(claims.clone()), queue });
        drop(table);
        TokenSessionGuard { sessions: self.clone(), username: username.clone(), number }
    }

    /// Ends the sessions of a user whose tokens are ended.
    pub fn end_of_user(&self, username: &str, is_ended: impl Fn(&Claims) -> bool) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.get(username).into_iter().flatten() {
            if is_ended(&entry.claims) {
                entry.queue.disconnect(DisconnectReason::LoggedOut);
            }
        }
    }

    /// Ends the sessions of every token that `revocation_reason` gives a reason for.
    pub fn end_revoked(&self, revocation_reason: impl Fn(&Claims) -> Option<DisconnectReason>) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.values().flatten() {
            if let Some(reason) = revocation_reason(&entry.claims) {
                entry.queue.disconnect(reason);
            }
        }
    }
}

impl Drop for TokenSessionGuard {
    fn drop(&mut self) {
        let mut table = self.sessions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = table.by_user.get_mut(&self.username) {
            // Bots may have thousands under one username.
            if let Ok(index) = entries.binary_search_by_key(&self.number, |entry| entry.number) {
                entries.remove(index);
            }
            if entries.is_empty() {
                table.by_user.remove(&self.username);
            }
        }
    }
}
