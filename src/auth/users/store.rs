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
    /// A user who needs no row in the users file, and cannot log in with a password.
    pub fn foreign(username: String) -> Self {
        Self { username, email: String::new(), hashed_password: String::new(), is_active: true }
    }

    /// Whether the users file has it.
    pub fn is_foreign(&self) -> bool {
        self.hashed_password.is_empty()
    }

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

impl RowFault {
    /// What the operator can do about any of them.
    pub const FIX: &str = "correct that row, or `manage_users remove` it";
}

/// The accounts in force, loaded from a file and reloaded when it changes.
pub struct Users {
    path: PathBuf,
    /// Whether there may be no file, which then has no accounts.
    is_optional: bool,
    watch: FileWatch,
    accounts: RwLock<HashMap<String, Account>>,
    /// Held from reading the file until its accounts are applied, so that an older version never replaces a newer one.
    reading: Mutex<()>,
}

/// How many accounts a reload has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserChanges {
    /// Accounts that are new.
    pub added: usize,
    /// Accounts that are gone.
    pub removed: usize,
    /// Accounts with another password, address or flag.
    pub changed: usize,
}

impl UserChanges {
    /// Whether there is any.
    pub fn is_any(&self) -> bool {
        *self != Self { added: 0, removed: 0, changed: 0 }
    }
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
    Changed(UserChanges, Vec<RowFault>),
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
        let path = path.to_owned();
        let users = Self { path, is_optional: false, watch, accounts, reading: Mutex::new(()) };
        Ok((users, faults))
    }

    /// The same where accounts are optional: without a file there are none, and one that is made later is read.
    ///
    /// # Errors
    ///
    /// [`FileError`] when there is a file and it cannot be read.
    pub fn load_optional(path: &Path) -> Result<(Self, Vec<RowFault>), FileError> {
        if path.exists() {
            let (users, faults) = Self::load(path)?;
            return Ok((Self { is_optional: true, ..users }, faults));
        }
        let watch = FileWatch::new([path.to_owned()]);
        let (path, accounts) = (path.to_owned(), RwLock::new(HashMap::new()));
        Ok((Self { path, is_optional: true, watch, accounts, reading: Mutex::new(()) }, Vec::new()))
    }

    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// [`FileError`]; the accounts stay as they are.
    pub fn reload(&self) -> Result<PendingUsers<'_>, FileError> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let table = if self.is_optional && !self.path.exists() {
            UsersTable::empty()
        } else {
            UsersTable::read(&self.path)?
        };
        let (accounts, faults) = accounts_of(&table);
        self.check_losses(&accounts, &faults)?;
        Ok(PendingUsers { users: self, accounts, faults, _reading: reading })
    }

    /// Refuses a file that loses all accounts, or more than half of them, to invalid rows: it was written wrongly, and its
    /// users did not leave.
    fn check_losses(
        &self,
        accounts: &HashMap<String, Account>,
        faults: &[RowFault],
    ) -> Result<(), FileError> {
        let Some(RowFault { line, fault }) = faults.first() else { return Ok(()) };
        let current = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let known = current.len();
        let gone = current.keys().filter(|name| !accounts.contains_key(*name)).count();
        let lost = gone.min(faults.len());
        if known == 0 || (2 * lost <= known && !accounts.is_empty()) {
            return Ok(());
        }
        let (path, line, fault) = (self.path.clone(), *line, fault.clone());
        Err(FileError::TooManyFaults { path, lost, known, line, fault })
    }

    /// The account with this username, if it is active.
    pub fn active(&self, username: &str) -> Option<Account> {
        self.find(username).filter(|account| account.is_active)
    }

    /// The account with this username, active or not.
    pub fn find(&self, username: &str) -> Option<Account> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(username).cloned()
    }

    /// The usernames of disabled accounts.
    pub fn inactive_names(&self) -> Vec<String> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let inactive = accounts.values().filter(|account| !account.is_active);
        inactive.map(|account| account.username.clone()).collect()
    }

    /// How many accounts are active.
    pub fn active_count(&self) -> usize {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().filter(|account| account.is_active).count()
    }

    /// The highest cost of a hash: a login without an account is made to take as long, so that it does not reveal by its time
    /// which names exist.
    pub fn highest_cost(&self) -> u32 {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let costs = accounts.values().filter_map(|it| password::cost_of(&it.hashed_password));
        costs.max().unwrap_or(password::COST)
    }

    /// The accounts whose hash has another cost than new ones, with that cost, by name.
    pub fn unusual_costs(&self) -> BTreeMap<String, u32> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let cost = |account: &Account| password::cost_of(&account.hashed_password);
        let unusual = accounts.values().filter_map(|account| {
            let cost = cost(account).filter(|cost| *cost != password::COST)?;
            Some((account.username.clone(), cost))
        });
        unusual.collect()
    }

    /// The usernames, sorted.
    pub fn names(&self) -> Vec<String> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = accounts.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Reloads the file if it has changed; see [`FileWatch::poll_change`].
    pub fn poll_file(&self) -> UsersReload {
        if !self.watch.poll_change() {
            return UsersReload::Nothing;
        }
        match self.reload() {
            Ok(pending) => {
                let (changes, faults) = pending.apply();
                UsersReload::Changed(changes, faults)
            }
            Err(error) => UsersReload::Refused(error),
        }
    }
}

impl PendingUsers<'_> {
    /// Puts them into force. Returns what changed, and the rows that make no account.
    pub fn apply(self) -> (UserChanges, Vec<RowFault>) {
        let mut accounts = self.users.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let added = self.accounts.keys().filter(|name| !accounts.contains_key(*name)).count();
        let kept = self.accounts.len() - added;
        let is_changed = |(name, account): (&String, &Account)| {
            accounts.get(name).is_some_and(|before| before != account)
        };
        let changed = self.accounts.iter().filter(|&entry| is_changed(entry)).count();
        let changes = UserChanges { added, removed: accounts.len() - kept, changed };
        *accounts = self.accounts;
        (changes, self.faults)
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

/// Also as PostgreSQL (`t`), pandas (`1.0`) and a German Excel (`WAHR`) write it. Empty is neither.
fn read_flag(spelled: &str) -> Option<bool> {
    match spelled.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "t" | "y" | "1.0" | "wahr" => Some(true),
        "false" | "0" | "no" | "off" | "f" | "n" | "0.0" | "falsch" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
