//! The accounts in force: what the users file said when it last made sense.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{
    password,
    users_file::{DEFAULT_ACCOUNTS, EditError, FileError, UsersTable, edit},
};
use crate::storage::file_watch::FileWatch;

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

/// The accounts, read from a file and again whenever it changes.
pub struct Users {
    path: PathBuf,
    watch: FileWatch,
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

impl PendingUsers<'_> {
    /// Lets them count; whether they are others than before, and the rows that were kept out.
    pub fn apply(self) -> (bool, Vec<RowFault>) {
        let mut accounts = self.users.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = *accounts != self.accounts;
        *accounts = self.accounts;
        (is_new, self.faults)
    }
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

    /// Looks whether the file has changed; see [`FileWatch::poll_change`].
    pub fn poll_file(&self) -> UsersReload {
        if !self.watch.poll_change() {
            return UsersReload::Nothing;
        }
        match self.reload() {
            Ok(fresh) => UsersReload::Changed(fresh.apply().1),
            Err(error) => UsersReload::Refused(error),
        }
    }
}

/// Writes the default accounts to `path`, which has no file yet. Blocks while hashing.
///
/// # Errors
///
/// What the system says.
pub fn create_default(path: &Path) -> Result<(), EditError> {
    edit(path, |table| {
        for (username, password) in DEFAULT_ACCOUNTS {
            let hash = password::hash(&password.into())
                .map_err(|error| EditError::Refused(error.to_string()))?;
            table.add(username, &format!("{username}@example.com"), &hash)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HASH: &str = "$2b$04$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy";

    fn names(accounts: &HashMap<String, Account>) -> Vec<&str> {
        let mut names: Vec<_> = accounts.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    fn parsed(text: &str) -> (HashMap<String, Account>, Vec<RowFault>) {
        accounts_of(&UsersTable::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_file_that_the_fastapi_server_wrote_serves_unchanged() {
        let (accounts, faults) = parsed(include_str!("../../tests/fixtures/fastapi_users.csv"));

        assert_eq!(names(&accounts), ["admin", "user1", "user2"]);
        assert_eq!(faults, []);
        assert_eq!(accounts["admin"].email, "admin@example.com");
        for (username, password) in DEFAULT_ACCOUNTS {
            assert!(password::has_hash(&password.into(), &accounts[username].hashed_password));
        }
    }

    #[test]
    fn odd_but_readable_files_serve() {
        let text = format!(
            "\u{feff}hashed_password, username ,extra,email\r\n{HASH},alice,\"a,\"\"b\r\nc\",\"A\" \r\n\r\n{HASH},bob,,\r\n"
        );

        let (accounts, faults) = parsed(&text);

        assert_eq!((names(&accounts), faults), (vec!["alice", "bob"], vec![]));
        assert!(accounts["bob"].is_active, "no is_active column");
    }

    #[test]
    fn a_bad_row_is_named_with_its_line_and_the_rest_serve() {
        let text = format!(
            "username,email,hashed_password,is_active\nalice,,{HASH},True\nalice,,{HASH},False\nbob,,{HASH}\n\
             carol,,5e884898da28047151d0e56f8dc62927,True\n,,{HASH},True\ndave,,{HASH},maybe\nerin,,{HASH},FALSE\nfred,,{HASH},\n"
        );

        let (accounts, faults) = parsed(&text);

        assert_eq!(names(&accounts), ["alice", "erin"]);
        assert!(accounts["alice"].is_active && !accounts["erin"].is_active);
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 9]);
    }

    #[test]
    fn a_changed_file_is_taken_up_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
        let (users, _) = Users::load(&path).unwrap();
        assert!(matches!(users.poll_file(), UsersReload::Nothing));

        edit(&path, |table| table.add("bob", "", HASH)).unwrap();

        assert!(matches!(users.poll_file(), UsersReload::Nothing), "seen for the first time");
        assert!(matches!(users.poll_file(), UsersReload::Changed(faults) if faults.is_empty()));
        assert!(users.active("bob").is_some());
        assert!(matches!(users.poll_file(), UsersReload::Nothing));
    }

    #[test]
    fn a_file_that_becomes_readable_is_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
        let (users, _) = Users::load(&path).unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        users.poll_file();

        assert!(matches!(users.poll_file(), UsersReload::Changed(_)), "owner or mode changed");
    }

    #[test]
    fn a_file_that_is_broken_or_gone_leaves_the_last_good_users_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
        let (users, _) = Users::load(&path).unwrap();

        for broken in [Some("garbage"), Some(""), None] {
            match broken {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            users.poll_file();
            assert!(matches!(users.poll_file(), UsersReload::Refused(_)), "{broken:?}");
            assert!(matches!(users.poll_file(), UsersReload::Nothing), "said once");
            assert!(users.active("alice").is_some());
        }
    }
}
