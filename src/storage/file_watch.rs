//! Files that somebody else may replace while we run.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Notices when one of a few files was replaced, rewritten or resized.
///
/// By looking: a notification would be lost when an editor renames, and does not come at all over
/// NFS or into a container's bind mount.
pub struct Watched {
    paths: Vec<PathBuf>,
    seen: Mutex<Seen>,
}

struct Seen {
    /// The version that was last reported, or was there at the start.
    reported: Vec<Option<Stamp>>,
    /// At the last look.
    looked: Vec<Option<Stamp>>,
    /// Whether that found other files than the look before.
    was_replaced: bool,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// Inodes are given out again at once; with the time of its making it is one file.
    file: (u64, Option<SystemTime>),
    modified: (i64, i64),
    /// Owner and mode count as well: they decide whether it can be read.
    changed: (i64, i64),
    length: u64,
}

impl Watched {
    /// Watches `paths`, as they are now; read them after this.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<_> = paths.into_iter().collect();
        let now = stamps(&paths);
        Self {
            paths,
            seen: Mutex::new(Seen { reported: now.clone(), looked: now, was_replaced: false }),
        }
    }

    /// Whether there is a version that was not reported yet; call it a few times within two seconds.
    ///
    /// An editor that writes in place is let finish: a version counts when two looks in a row
    /// found it the same. Files that are replaced all the time never come to rest, and need not:
    /// the second other file in a row counts as well.
    pub fn changed(&self) -> bool {
        let now = stamps(&self.paths);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_replaced = files(&seen.looked) != files(&now);
        let settled = seen.looked == now || (is_replaced && seen.was_replaced);
        seen.was_replaced = is_replaced;
        seen.looked = now;
        if !settled || seen.looked == seen.reported {
            return false;
        }
        seen.reported = seen.looked.clone();
        true
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn files(stamps: &[Option<Stamp>]) -> Vec<Option<(u64, Option<SystemTime>)>> {
    stamps.iter().map(|stamp| Some(stamp.as_ref()?.file)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        file: (file.ino(), file.created().ok()),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
        length: file.len(),
    })
}
