//! Files that are replaced in one step.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

/// The file that stands beside the users file, where that really is, and is named after it.
pub fn beside(users_csv: &Path, suffix: &str) -> PathBuf {
    let mut name =
        fs::canonicalize(users_csv).unwrap_or_else(|_| users_csv.to_owned()).into_os_string();
    name.push(suffix);
    name.into()
}

/// Replaces a file in one step, keeping its owner and mode; a new one is its owner's only. One caller
/// at a time: what another left behind that was killed is swept up.
///
/// # Errors
///
/// What the system says; then the file is as it was.
pub fn replace(target: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
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
        // A dot in it, and the file is one beside the file.
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
