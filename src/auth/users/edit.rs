//! Edits the users file: under a lock, replaced in one step.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use super::{
    error::{EditError, FileError},
    file::UsersTable,
};
use crate::auth::password;

/// The accounts that `DEBUG=true` and `start_dev.sh` create: username and password.
pub const DEFAULT_ACCOUNTS: [(&str, &str); 3] =
    [("admin", "admin123"), ("user1", "password123"), ("user2", "password123")];

/// Writes the default accounts to a new file at `path`. Blocks while hashing.
///
/// # Errors
///
/// The error of the system.
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

/// Edits the file under a lock. Readers find the old file or the new one, never a part, also after a crash at any moment.
/// A missing file is an empty one.
///
/// The lock is on `<path>.lock` (`flock`), since the file itself is replaced.
///
/// # Errors
///
/// The error of `change` or of the system; the file is then as it was.
pub fn edit(
    path: &Path,
    change: impl FnOnce(&mut UsersTable) -> Result<(), EditError>,
) -> Result<(), EditError> {
    let io = |source| FileError::Io { path: path.into(), source };
    // A symbolic link stays: the file that it points to is replaced.
    let target = sibling_path(path, "");
    let lock_name = sibling_path(path, ".lock");
    // Read-only is enough to lock: the lock file may be owned by root, who edited first. Other users may not open it, or
    // they could hold the lock forever.
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

/// A new lock file, with the owner of the users file.
fn open_lock_file(lock_name: &Path, users_csv: &Path) -> io::Result<File> {
    let lock = File::options().create(true).append(true).mode(0o600).open(lock_name)?;
    if let Ok(users) = fs::metadata(users_csv) {
        let _ = fchown(&lock, Some(users.uid()), Some(users.gid()));
    }
    Ok(lock)
}

/// The path of the users file with `suffix` appended. Symbolic links are followed: it is beside the real file.
pub fn sibling_path(users_csv: &Path, suffix: &str) -> PathBuf {
    let mut name =
        fs::canonicalize(users_csv).unwrap_or_else(|_| users_csv.to_owned()).into_os_string();
    name.push(suffix);
    name.into()
}

/// Replaces a file in one step and keeps its owner and mode; a new file is readable by its owner only. One caller at a
/// time: temporary files that a killed process left behind are removed.
///
/// # Errors
///
/// The error of the system; the file is then as it was.
pub fn replace_file(
    target: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let (start, end) = (format!(".{name}."), ".new");
    for left in fs::read_dir(folder)?.filter_map(Result::ok) {
        let left_name = left.file_name();
        let left_name = left_name.to_string_lossy();
        let middle = left_name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(end));
        // With a dot in the middle it belongs to a sibling of the target.
        if middle.is_some_and(|middle| !middle.contains('.')) {
            fs::remove_file(left.path())?;
        }
    }
    let mut fresh = tempfile::Builder::new().prefix(&start).suffix(end).tempfile_in(folder)?; // mode 0600
    if let Ok(old) = fs::metadata(target) {
        let new = fresh.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // An operator who is root must not take the file away from the server's own user.
            fchown(fresh.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        fresh.as_file().set_permissions(old.permissions())?;
    }
    write(fresh.as_file_mut())?;
    fresh.as_file().sync_all()?;
    fresh.persist(target)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
