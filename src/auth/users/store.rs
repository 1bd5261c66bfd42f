//! The accounts in force: those of the users file when it last was readable.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{error::FileError, file::UsersTable};
use crate::{auth::password, watched::Watched};

/// Somebody who may log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// As it is logged in with, case and all.
    pub username: String,
    /// For others to show; nothing is sent there.
    pub email: String,
    /// bcrypt.
    pub hashed_password: String,
    /// Whether it may do anything.
    pub is_active: bool,
}

impl Account {
    /// What binds a token to the password that it was logged in with: another one for every hash,
    /// and the hash cannot be told from it.
    pub fn stamp(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.hashed_password.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default())
    }
}

/// A row that was kept out, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFault {
    /// Counted from 1.
    pub line: u64,
    /// In the operator's words.
    pub fault: String,
}

/// The accounts, read from a file and again whenever it changes.
pub struct Users {
    path: PathBuf,
    watched: Watched,
    accounts: RwLock<HashMap<String, Account>>,
    /// Held from reading the file until what was read counts, so that nothing older comes after it.
    reading: Mutex<()>,
}

/// Accounts as the file has them, which do not count yet.
pub struct PendingUsers<'a> {
    users: &'a Users,
    accounts: HashMap<String, Account>,
    faults: Vec<RowFault>,
    _reading: MutexGuard<'a, ()>,
}

/// What a look at the file brought.
pub enum UsersReload {
    /// The version in force is the one on disk, or the file is still being written.
    Nothing,
    /// New accounts are in force, and these rows were kept out.
    Changed(Vec<RowFault>),
    /// The last good accounts stay in force.
    Refused(FileError),
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`FileError`] where there is nothing to start with; rows that were kept out come along.
    pub fn load(path: &Path) -> Result<(Self, Vec<RowFault>), FileError> {
        let watched = Watched::new([path.to_owned()]);
        let (accounts, faults) = accounts_of(&UsersTable::read(path)?);
        let accounts = RwLock::new(accounts);
        let users = Self { path: path.to_owned(), watched, accounts, reading: Mutex::new(()) };
        Ok((users, faults))
    }

    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// [`FileError`]; the accounts stay as they are.
    pub fn reload(&self) -> Result<PendingUsers<'_>, FileError> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (accounts, faults) = accounts_of(&UsersTable::read(&self.path)?);
        Ok(PendingUsers { users: self, accounts, faults, _reading: reading })
    }

    /// The active account of that name.
    pub fn active(&self, username: &str) -> Option<Account> {
        self.find(username).filter(|account| account.is_active)
    }

    /// The account of that name, active or not.
    pub fn find(&self, username: &str) -> Option<Account> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(username).cloned()
    }

    /// How many accounts are active.
    pub fn active_count(&self) -> usize {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().filter(|account| account.is_active).count()
    }

    /// What most hashes cost, so that a name without an account can be made to cost the same.
    pub fn usual_cost(&self) -> u32 {
        let mut counts = BTreeMap::<u32, usize>::new();
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::iter_over_hash_type, reason = "only counting")]
        for account in accounts.values() {
            *counts
                .entry(password::cost_of(&account.hashed_password).unwrap_or(password::COST))
                .or_default() += 1;
        }
        let usual = counts.into_iter().max_by_key(|&(_, count)| count);
        usual.map_or(password::COST, |(cost, _)| cost)
    }

    /// Looks whether the file has changed; see [`Watched::changed`].
    pub fn poll_file(&self) -> UsersReload {
        if !self.watched.changed() {
            return UsersReload::Nothing;
        }
        match self.reload() {
            Ok(fresh) => UsersReload::Changed(fresh.apply().1),
            Err(error) => UsersReload::Refused(error),
        }
    }
}

impl PendingUsers<'_> {
    /// Lets them count; whether they are others than before, and the rows that were kept out.
    pub fn apply(self) -> (bool, Vec<RowFault>) {
        let mut accounts = self.users.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *accounts != self.accounts;
        *accounts = self.accounts;
        (is_new, self.faults)
    }
}

/// The accounts of a table, by name, and the rows that are none.
pub fn accounts_of(table: &UsersTable) -> (HashMap<String, Account>, Vec<RowFault>) {
    let (mut accounts, mut faults) = (HashMap::<String, Account>::new(), Vec::new());
    for row in table.rows() {
        let active = row.is_active.map_or(Some(true), read_flag);
        let fault = if !row.whole {
            "fewer cells than the first line has columns"
        } else if row.username.is_empty() || row.username.chars().any(char::is_control) {
            "the username is empty or has control characters"
        } else if !password::is_hash(row.hashed_password) {
            "hashed_password is no bcrypt hash ($2a$, $2b$ or $2y$) of a cost up to 16"
        } else if active.is_none() {
            "is_active is neither True nor False"
        } else if accounts.contains_key(row.username) {
            "a username that stands further up already"
        } else {
            let account = Account {
                username: row.username.to_owned(),
                email: row.email.to_owned(),
                hashed_password: row.hashed_password.to_owned(),
                is_active: active == Some(true),
            };
            accounts.insert(account.username.clone(), account);
            continue;
        };
        faults.push(RowFault { line: row.line, fault: fault.to_owned() });
    }
    (accounts, faults)
}

fn read_flag(spelled: &str) -> Option<bool> {
    match spelled.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
