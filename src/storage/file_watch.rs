//! Detects by polling that another program has changed a file.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Detects that one of a few files was replaced, rewritten or resized.
///
/// It polls: a notification is lost when an editor renames the file, and never comes over NFS or into a container's bind
/// mount.
pub struct FileWatch {
    paths: Vec<PathBuf>,
    state: Mutex<WatchState>,
}

struct WatchState {
    /// The version that was last reported, or was there at the start.
    reported: Vec<Option<FileVersion>>,
    /// The version that the last poll found.
    polled: Vec<Option<FileVersion>>,
    /// Whether the last poll found other files than the poll before it.
    was_replaced: bool,
}

/// What distinguishes one version of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    /// The system reuses inode numbers at once; together with the time of creation they identify a file.
    file: (u64, Option<SystemTime>),
    modified: (i64, i64),
    /// Owner and mode count as well: they decide whether the file can be read.
    changed: (i64, i64),
    length: u64,
}

impl FileWatch {
    /// Watches `paths` from their present versions on. Read the files after this call.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        let now = versions(&paths);
        let state = WatchState { reported: now.clone(), polled: now, was_replaced: false };
        Self { paths, state: Mutex::new(state) }
    }

    /// Polls the files and returns whether there is a version that no earlier poll has reported. Call it a few times
    /// within two seconds.
    ///
    /// An editor that writes in place is given time to finish: a version is reported when two polls in a row have found
    /// it. Files that are replaced continuously never come to rest, and need not: they are also reported when two polls
    /// in a row have each found other files than the poll before.
    pub fn poll_change(&self) -> bool {
        let now = versions(&self.paths);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_replaced = identities(&state.polled) != identities(&now);
        let is_settled = state.polled == now || (is_replaced && state.was_replaced);
        state.was_replaced = is_replaced;
        state.polled = now;
        if !is_settled || state.polled == state.reported {
            return false;
        }
        state.reported = state.polled.clone();
        true
    }
}

fn versions(paths: &[PathBuf]) -> Vec<Option<FileVersion>> {
    paths.iter().map(|path| version(path)).collect()
}

fn identities(versions: &[Option<FileVersion>]) -> Vec<Option<(u64, Option<SystemTime>)>> {
    versions.iter().map(|version| Some(version.as_ref()?.file)).collect()
}

fn version(path: &Path) -> Option<FileVersion> {
    let file = fs::metadata(path).ok()?;
    Some(FileVersion {
        file: (file.ino(), file.created().ok()),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
        length: file.len(),
    })
}
