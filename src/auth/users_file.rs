//! `users.csv` as it stands on disk: read whole, changed under a lock, replaced in one step.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use csv::StringRecord;
use secrecy::{ExposeSecret, SecretString};

use crate::storage::atomic_file::{replace_file, sibling_path};

use super::password::MAX_PASSWORD_BYTES;

/// The columns of a new file, in order.
const COLUMNS: [&str; 4] = ["username", "email", "hashed_password", "is_active"];

/// The accounts that `DEBUG=true` and `start_dev.sh` begin with: name and password.
pub const DEFAULT_ACCOUNTS: [(&str, &str); 3] =
    [("admin", "admin123"), ("user1", "password123"), ("user2", "password123")];

/// Why the users file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened, or not be written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no table of users at all.
    #[error("{path}, line {line}: {fault}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        fault: String,
    },
}

/// Why an account was not changed. The text is what the operator reads.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file itself is the problem.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is such an account already.
    #[error("user \"{0}\" exists already; `manage_users passwd` changes a password")]
    Exists(String),
    /// There is no such account.
    #[error("there is no user \"{0}\"; `manage_users list` shows who there is")]
    Unknown(String),
    /// A name, password or email that is not accepted.
    #[error("{0}")]
    Refused(String),
}

/// Every line of the file, with columns that this program does not know and rows that it cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersTable {
    headers: StringRecord,
    rows: Vec<StringRecord>,
}

/// The cells of a row that this program knows.
pub struct UserRow<'a> {
    /// Where it stands, counted from 1.
    pub line: u64,
    /// Whether it has a cell for each column.
    pub whole: bool,
    /// Account name.
    pub username: &'a str,
    /// Mail address; empty where the file has no such column.
    pub email: &'a str,
    /// bcrypt hash.
    pub hashed_password: &'a str,
    /// As spelled in the file; `None` where the file has no such column.
    pub is_active: Option<&'a str>,
}

impl UsersTable {
    /// A table without accounts.
    pub fn empty() -> Self {
        Self { headers: StringRecord::from(COLUMNS.as_slice()), rows: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`FileError`], naming the line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io { path: path.into(), source };
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(io::Error::other("not a regular file")));
        }
        let bytes = fs::read(path).map_err(io)?;
        Self::parse(&bytes).map_err(|(line, fault)| FileError::Syntax {
            path: path.into(),
            line,
            fault,
        })
    }

    /// Reads the contents of the file: RFC 4180, with or without a byte order mark, any line end.
    ///
    /// # Errors
    ///
    /// The line (from 1) and what is wrong there.
    pub fn parse(bytes: &[u8]) -> Result<Self, (u64, String)> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let mut records = reader.records().map(|record| match record {
            Ok(mut record) => {
                let found = record.position().map(|position| past_empty_lines(bytes, position));
                record.set_position(found);
                Ok(record)
            }
            Err(error) => {
                let found = error.position().map(|position| past_empty_lines(bytes, position));
                Err((found.map_or(0, |found| found.line()), "not UTF-8 text".to_owned()))
            }
        });
        let first = records
            .next()
            .ok_or((1, "the file is empty; the first line names the columns".to_owned()))??;
        // A byte order mark that stays in the first name would be lost when this is written again.
        let blank = |char: char| char.is_whitespace() || char == '\u{feff}';
        let headers: StringRecord = first.iter().map(|header| header.trim_matches(blank)).collect();
        for column in ["username", "hashed_password"] {
            if !headers.iter().any(|header| header == column) {
                return Err((
                    1,
                    format!("no column \"{column}\"; the first line is {}", COLUMNS.join(",")),
                ));
            }
        }
        let table = Self { headers, rows: records.collect::<Result<_, _>>()? };
        // A quote that is never closed swallows every row below it.
        let swallows = |row: &UserRow<'_>| {
            [row.username, row.email, row.hashed_password, row.is_active.unwrap_or_default()]
                .iter()
                .any(|cell| cell.contains('\n'))
        };
        let swallower = table.rows().find(swallows).map(|row| row.line);
        swallower.map_or(Ok(table), |line| {
            Err((line, "a quote is opened here and not closed".to_owned()))
        })
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> impl Iterator<Item = UserRow<'_>> {
        self.rows.iter().map(|row| UserRow {
            line: row.position().map_or(0, csv::Position::line),
            whole: row.len() >= self.headers.len(),
            username: self.cell(row, "username").unwrap_or_default(),
            email: self.cell(row, "email").unwrap_or_default(),
            hashed_password: self.cell(row, "hashed_password").unwrap_or_default(),
            is_active: self.column("is_active").map(|column| row.get(column).unwrap_or_default()),
        })
    }

    /// Adds an active account. Name, password and email have been checked.
    ///
    /// # Errors
    ///
    /// [`EditError::Exists`].
    pub fn add(&mut self, username: &str, email: &str, hash: &str) -> Result<(), EditError> {
        if self.rows().any(|row| row.username == username) {
            return Err(EditError::Exists(username.to_owned()));
        }
        let cell = |column: &str| match column {
            "username" => username,
            "email" => email,
            "hashed_password" => hash,
            "is_active" => "True",
            _ => "",
        };
        self.rows.push(self.headers.iter().map(cell).collect());
        Ok(())
    }

    /// Removes an account.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn remove(&mut self, username: &str) -> Result<(), EditError> {
        let (column, before) = (self.column("username"), self.rows.len());
        self.rows.retain(|row| column.and_then(|column| row.get(column)) != Some(username));
        if self.rows.len() == before {
            return Err(EditError::Unknown(username.to_owned()));
        }
        Ok(())
    }

    /// Gives an account another password.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn set_hash(&mut self, username: &str, hash: &str) -> Result<(), EditError> {
        self.set(username, "hashed_password", hash)
    }

    /// Lets an account in, or keeps it out.
    ///
    /// # Errors
    ///
    /// [`EditError::Unknown`].
    pub fn set_active(&mut self, username: &str, active: bool) -> Result<(), EditError> {
        if self.column("is_active").is_none() {
            let width = self.headers.len();
            self.headers.push_field("is_active");
            for row in self.rows.iter_mut().filter(|row| row.len() >= width) {
                row.truncate(width);
                row.push_field("True");
            }
        }
        self.set(username, "is_active", if active { "True" } else { "False" })
    }

    fn set(&mut self, username: &str, column: &str, value: &str) -> Result<(), EditError> {
        let unknown = || EditError::Unknown(username.to_owned());
        let (names, target) =
            self.column("username").zip(self.column(column)).ok_or_else(unknown)?;
        let mut found = false;
        for row in self.rows.iter_mut().filter(|row| row.get(names) == Some(username)) {
            let width = row.len().max(target + 1);
            let cells = (0..width)
                .map(|at| if at == target { value } else { row.get(at).unwrap_or_default() });
            *row = cells.collect();
            found = true;
        }
        if found { Ok(()) } else { Err(unknown()) }
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.headers.iter().position(|header| header == name)
    }

    fn cell<'a>(&self, row: &'a StringRecord, column: &str) -> Option<&'a str> {
        row.get(self.column(column)?)
    }

    fn write_to(&self, target: &mut impl Write) -> io::Result<()> {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(target);
        writer.write_record(&self.headers)?;
        for row in &self.rows {
            writer.write_record(row)?;
        }
        writer.flush()
    }
}

/// Where a row really begins: the reader stands before the empty lines above it.
fn past_empty_lines(bytes: &[u8], position: &csv::Position) -> csv::Position {
    let before = usize::try_from(position.byte()).ok().and_then(|at| bytes.get(at..));
    let ends = before.unwrap_or_default().iter().take_while(|byte| b"\r\n".contains(byte));
    let passed = ends.filter(|byte| **byte == b'\n').count();
    let mut found = position.clone();
    found.set_line(position.line() + passed as u64);
    found
}

/// Changes the file: nobody else changes it meanwhile, and whoever reads it (also after a crash at
/// any moment) finds the old or the new one, never a part. A missing file is an empty one.
///
/// The lock is on `<path>.lock` (`flock`), since the file itself is replaced.
///
/// # Errors
///
/// What `change` answers, or what the system says; then the file is as it was.
pub fn edit(
    path: &Path,
    change: impl FnOnce(&mut UsersTable) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let io = |source| FileError::Io { path: path.into(), source };
    // A link to the file stays one: what it points to is replaced.
    let target = sibling_path(path, "");
    let lock_name = sibling_path(path, ".lock");
    // Read-only is enough to lock: the file may be root's, who came first. Nobody else may open it, or
    // he could hold the lock for ever.
    let lock = File::open(&lock_name)
        .or_else(|_| open_lock_file(&lock_name, &target))
        .map_err(|source| FileError::Io { path: lock_name.clone(), source })?;
    lock.lock().map_err(io)?;

    let mut table = match fs::exists(&target) {
        Ok(false) => UsersTable::empty(),
        Ok(true) | Err(_) => UsersTable::read(&target)?,
    };
    change(&mut table)?;
    replace_file(&target, |file| table.write_to(file)).map_err(io)?;
    Ok(())
}

/// A new lock for whoever owns the users file.
fn open_lock_file(lock_name: &Path, users_csv: &Path) -> io::Result<File> {
    let lock = File::options().create(true).append(true).mode(0o600).open(lock_name)?;
    if let Ok(users) = fs::metadata(users_csv) {
        let _ = fchown(&lock, Some(users.uid()), Some(users.gid()));
    }
    Ok(lock)
}

/// Whether somebody may be called that (contract section 4).
///
/// # Errors
///
/// What is accepted.
pub fn check_username(username: &str) -> Result<(), EditError> {
    let fits = (3..=64).contains(&username.chars().count())
        && username.trim() == username
        && !username.chars().any(|char| char == ':' || char.is_control());
    if fits {
        return Ok(());
    }
    Err(EditError::Refused(
        "a username has 3 to 64 characters, no \":\", no control characters and no space at either end".into(),
    ))
}

/// Whether that may be a password (contract section 4).
///
/// # Errors
///
/// What is accepted.
pub fn check_password(password: &SecretString) -> Result<(), EditError> {
    let bytes = password.expose_secret().as_bytes();
    if (6..=MAX_PASSWORD_BYTES).contains(&bytes.len()) && !bytes.contains(&0) {
        return Ok(());
    }
    Err(EditError::Refused(format!(
        "a password has 6 to {MAX_PASSWORD_BYTES} bytes (bcrypt reads no more) and no NUL; this one has {}",
        bytes.len()
    )))
}

/// Whether that may be a mail address: something on both sides of an `@`, and no spaces.
///
/// # Errors
///
/// What is accepted.
pub fn check_email(email: &str) -> Result<(), EditError> {
    let fits =
        email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            && !email.chars().any(|char| char.is_whitespace() || char.is_control());
    if fits {
        Ok(())
    } else {
        Err(EditError::Refused(format!("\"{email}\" is no email address (name@host)")))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ODD: &str = "\u{feff}is_active,note,username,hashed_password\r\nTrue,\"a, \"\"b\"\"\",alice,h1\r\nFalse,,bob\r\n";

    fn text(table: &UsersTable) -> String {
        let mut bytes = Vec::new();
        table.write_to(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_change_keeps_every_column_and_row_that_it_is_not_about() {
        let mut table = UsersTable::parse(ODD.as_bytes()).unwrap();

        table.add("carol", "c@example.com", "h3").unwrap();
        table.set_active("alice", false).unwrap();
        table.set_hash("alice", "h9").unwrap();

        assert_eq!(
            text(&table),
            "is_active,note,username,hashed_password\nFalse,\"a, \"\"b\"\"\",alice,h9\nFalse,,bob\nTrue,,carol,h3\n"
        );
    }

    #[test]
    fn somebody_can_be_disabled_in_a_file_without_that_column() {
        let mut table = UsersTable::parse(b"username,hashed_password\nalice,h1\nbob,h2\n").unwrap();

        table.set_active("bob", false).unwrap();

        assert_eq!(
            text(&table),
            "username,hashed_password,is_active\nalice,h1,True\nbob,h2,False\n"
        );
    }

    #[test]
    fn a_file_that_is_no_table_of_users_says_where() {
        for (bytes, line, word) in [
            (&b""[..], 1, "empty"),
            (b"\n\n", 1, "empty"),
            (b"{\"users\":[]}", 1, "username"),
            (b"username,email\nalice,a@b\n", 1, "hashed_password"),
            (b"username,hashed_password\nalice,x\n\xff\xfe,y\n", 3, "UTF-8"),
            (b"username,email,hashed_password\nalice,\"a@b,x\nbob,b@b,y\n", 2, "quote"),
            (b"username,hashed_password\nalice,x\n\"bob,y\ncarol,z\n", 3, "quote"),
            (b"\nusername,hashed_password\r\n\r\n\nalice,x\n\n\xff,y\n", 7, "UTF-8"),
            (b"username,hashed_password\r\n\r\n\"alice,x\r\n", 3, "quote"),
        ] {
            let (at, fault) = UsersTable::parse(bytes).unwrap_err();

            assert!(at == line && fault.contains(word), "{at}: {fault}");
        }
    }

    #[test]
    fn the_file_keeps_its_mode_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real.csv"), folder.path().join("users.csv"));
        fs::write(&real, "username,hashed_password\nalice,h1\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();

        edit(&link, |table| table.remove("alice")).unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&real).unwrap(), "username,hashed_password\n");
    }

    #[test]
    fn a_new_file_is_for_its_owner_only() {
        let path = tempfile::tempdir().unwrap().keep().join("users.csv");

        edit(&path, |table| table.add("alice", "a@b", "h1")).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_up_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        let others =
            [".other.csv.a1b2c3.new", ".users.csv.backup", ".users.csv.revoked.a1b2c3.new"];
        for name in [".users.csv.a1b2c3.new"].into_iter().chain(others) {
            fs::write(folder.path().join(name), "x").unwrap();
        }

        edit(&path, |table| table.add("alice", "a@b", "h1")).unwrap();

        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names[..3], others);
        assert_eq!(names[3..], ["users.csv", "users.csv.lock"]);
    }

    #[test]
    fn a_refused_change_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, ODD).unwrap();

        assert!(matches!(
            edit(&path, |table| table.add("alice", "", "")),
            Err(EditError::Exists(_))
        ));
        assert!(matches!(edit(&path, |table| table.remove("nobody")), Err(EditError::Unknown(_))));

        assert_eq!(fs::read_to_string(&path).unwrap(), ODD);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and its lock");
    }

    #[test]
    fn changes_at_the_same_time_are_all_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");

        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    edit(path, |table| table.add(&format!("user{number}"), "", "h")).unwrap()
                });
            }
        });

        assert_eq!(UsersTable::read(&path).unwrap().rows.len(), 16);
    }

    #[test]
    fn names_passwords_and_emails_have_limits() {
        for good in ["abc", "zoë", "a b", &"é".repeat(64)] {
            assert!(check_username(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "a:b", " abc", "abc ", "a\nb", &"a".repeat(65)] {
            assert!(check_username(bad).is_err(), "{bad}");
        }
        for (password, fits) in [
            ("12345", false),
            ("123456", true),
            (&*"é".repeat(36), true),
            (&*"é".repeat(37), false),
            ("123456\0", false),
        ] {
            assert_eq!(check_password(&password.into()).is_ok(), fits, "{password}");
        }
        assert!(
            check_email("a@b").is_ok()
                && check_email("@b").is_err()
                && check_email("a b@c").is_err()
                && check_email("ab").is_err()
        );
    }
}
