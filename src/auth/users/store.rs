//! The accounts in force: those of the users file when it last was readable.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{error::FileError, file::UsersTable};
use crate::{auth::password, storage::file_watch::FileWatch};

/// A user's account.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The username, case sensitive.
    pub username: String,
    /// Returned to clients; the server sends no mail.
    pub email: String,
    /// A bcrypt hash.
    pub hashed_password: String,
    /// Whether the account is enabled.
    pub is_active: bool,
}

impl Account {
    /// Binds a token to the password of its login: each hash has another stamp, which does not reveal the hash.
    pub fn stamp(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.hashed_password.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default())
    }
}

/// A row that makes no account, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct RowFault {
    /// The line of the file, counted from 1.
    pub line: u64,
    /// What is wrong, for the operator.
    pub fault: String,
}

/// The accounts in force, loaded from a file and reloaded when it changes.
pub struct Users {
    path: PathBuf,
    watch: FileWatch,
    accounts: RwLock<HashMap<String, Account>>,
    /// Held from reading the file until its accounts are applied, so that an older version never replaces a newer one.
    reading: Mutex<()>,
}

/// Accounts that were read and are not in force yet.
pub struct PendingUsers<'a> {
    users: &'a Users,
    accounts: HashMap<String, Account>,
    faults: Vec<RowFault>,
    _reading: MutexGuard<'a, ()>,
}

/// The result of [`Users::poll_file`].
pub enum UsersReload {
    /// The file is unchanged, or is still being written.
    Nothing,
    /// New accounts are in force; these rows make none.
    Changed(Vec<RowFault>),
    /// The file is invalid; the last valid accounts stay in force.
    Refused(FileError),
}

impl Users {
    /// Loads the file. Rows that make no account are returned beside the accounts.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the file cannot be read.
    pub fn load(path: &Path) -> Result<(Self, Vec<RowFault>), FileError> {
        let watch = FileWatch::new([path.to_owned()]);
        let (accounts, faults) = accounts_of(&UsersTable::read(path)?);
        let accounts = RwLock::new(accounts);
        let users = Self { path: path.to_owned(), watch, accounts, reading: Mutex::new(()) };
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

    /// The account with this username, if it is active.
    pub fn active(&self, username: &str) -> Option<Account> {
        self.find(username).filter(|account| account.is_active)
    }

    /// The account with this username, active or not.
    pub fn find(&self, username: &str) -> Option<Account> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(username).cloned()
    }

    /// How many accounts are active.
    pub fn active_count(&self) -> usize {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().filter(|account| account.is_active).count()
    }

    /// The cost of most hashes: a login without an account is made to take as long.
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

    /// Reloads the file if it has changed; see [`FileWatch::poll_change`].
    pub fn poll_file(&self) -> UsersReload {
        if !self.watch.poll_change() {
            return UsersReload::Nothing;
        }
        match self.reload() {
            Ok(pending) => UsersReload::Changed(pending.apply().1),
            Err(error) => UsersReload::Refused(error),
        }
    }
}

impl PendingUsers<'_> {
    /// Puts them into force. Returns whether any account changed, and the rows that make none.
    pub fn apply(self) -> (bool, Vec<RowFault>) {
        let mut accounts = self.users.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let has_changed = *accounts != self.accounts;
        *accounts = self.accounts;
        (has_changed, self.faults)
    }
}

/// The accounts of a table by username, and the rows that make none.
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
