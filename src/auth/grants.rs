//! Which open sockets stand on which token, so that the end of a token ends them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::token::{Claims, Fingerprint};
use crate::outbox::{Dismissal, Outbox};

/// Every socket that was let in with a token.
#[derive(Clone, Default)]
pub struct Grants(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// By number, of which each is higher than the one before.
    by_user: HashMap<String, Vec<Entry>>,
    last: u64,
}

struct Entry {
    number: u64,
    claims: Box<Claims>,
    outbox: Outbox,
}

/// One socket's leave to be here; ends when dropped.
pub struct Grant {
    grants: Grants,
    username: String,
    number: u64,
}

impl Grants {
    /// Notes that the connection behind `outbox` stands on this token.
    ///
    /// Note it first and check token and account after that: then whatever ends them meanwhile
    /// either fails the check or finds the note.
    pub fn note(&self, claims: &Claims, outbox: Outbox) -> Grant {
        let username = &claims.username;
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let number = table.last;
        let entries = table.by_user.entry(username.clone()).or_default();
        entries.push(Entry { number, claims: Box::new(claims.clone()), outbox });
        drop(table);
        Grant { grants: self.clone(), username: username.clone(), number }
    }

    /// Ends the sockets that stand on this token.
    pub fn end_token(&self, username: &str, fingerprint: Fingerprint) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.get(username).into_iter().flatten() {
            if entry.claims.fingerprint == fingerprint {
                entry.outbox.dismiss(Dismissal::LoggedOut);
            }
        }
    }

    /// Ends the sockets of every token that no longer stands, as `fallen` says.
    pub fn end_fallen(&self, fallen: impl Fn(&Claims) -> Option<Dismissal>) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.values().flatten() {
            if let Some(why) = fallen(&entry.claims) {
                entry.outbox.dismiss(why);
            }
        }
    }
}

impl Drop for Grant {
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
