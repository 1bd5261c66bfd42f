//! Replaces a file in one step, so that readers see the old content or the new, never a part.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

/// The path of `file` with `suffix` appended to its name. Symbolic links are followed: the result is beside the real
/// file.
pub fn sibling_path(file: &Path, suffix: &str) -> PathBuf {
    let mut name = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()).into_os_string();
    name.push(suffix);
    name.into()
}

/// Replaces `target` with what `write` writes, and syncs it to disk. Owner and mode stay; a new file is readable by its
/// owner only.
///
/// One caller at a time: temporary files that a killed process left behind are removed.
///
/// # Errors
///
/// What the system returns; the file is then as it was.
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
