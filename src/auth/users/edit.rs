//! Edits the users file: under a lock, replaced in one step.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

use super::{
    error::{EditError, FileError},
    file::UsersTable,
};
use crate::{
    auth::password,
    storage::atomic_file::{replace_file, sibling_path},
};

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
    replace_file(&target, |file| table.write_to(file)).map_err(|error| {
        // A mount point cannot be replaced, and a file that is written in place could be read when it is half written.
        if error.kind() == io::ErrorKind::ResourceBusy {
            let target = target.display();
            let fault = "is a mount point and cannot be replaced; mount its folder, not the file";
            return EditError::Refused(format!("{target} {fault}"));
        }
        io(error).into()
    })
}

/// A new lock file, with the owner of the users file.
fn open_lock_file(lock_name: &Path, users_csv: &Path) -> io::Result<File> {
    let lock = File::options().create(true).append(true).mode(0o600).open(lock_name)?;
    if let Ok(users) = fs::metadata(users_csv) {
        let _ = fchown(&lock, Some(users.uid()), Some(users.gid()));
    }
    Ok(lock)
}

#[cfg(test)]
mod tests;
