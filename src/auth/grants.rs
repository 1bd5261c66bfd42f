//! Which open sockets stand on which token, so that the end of a token ends them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::token::Fingerprint;
use crate::outbox::{Dismissal, Outbox};

/// Every socket that was let in with a token.
#[derive(Clone, Default)]
pub struct Grants(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    by_user: HashMap<String, Vec<Entry>>,
    last: u64,
}

struct Entry {
    number: u64,
    fingerprint: Fingerprint,
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
    pub fn note(&self, username: &str, fingerprint: Fingerprint, outbox: Outbox) -> Grant {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.last += 1;
        let number = table.last;
        let entries = table.by_user.entry(username.to_owned()).or_default();
        entries.push(Entry { number, fingerprint, outbox });
        drop(table);
        Grant { grants: self.clone(), username: username.to_owned(), number }
    }

    /// Ends the sockets that stand on this token.
    pub fn end_token(&self, username: &str, fingerprint: &Fingerprint) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in table.by_user.get(username).into_iter().flatten() {
            if entry.fingerprint == *fingerprint {
                entry.outbox.dismiss(Dismissal::LoggedOut);
            }
        }
    }

    /// Ends the sockets of everybody who is `gone`.
    pub fn end_users(&self, gone: impl Fn(&str) -> bool) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = table.by_user.iter().filter(|(username, _)| gone(username));
        gone.flat_map(|(_, entries)| entries)
            .for_each(|entry| entry.outbox.dismiss(Dismissal::AccountGone));
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut table = self.grants.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = table.by_user.get_mut(&self.username) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                table.by_user.remove(&self.username);
            }
        }
    }
}
