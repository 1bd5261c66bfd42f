//! Lines that outlive the process, in a file beside the users file.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::atomic_file::{beside, replace};

/// The file, and whether it is up to date.
pub struct Kept {
    path: PathBuf,
    /// Counts changes.
    version: AtomicU64,
    /// The version on disk. Held while writing, so that one write serves all who wait for it.
    saved: Mutex<u64>,
}

impl Kept {
    /// The file that is named after the users file and ends in `suffix`, and what `read` makes of its lines.
    /// `holds` says what is lost with it.
    ///
    /// # Errors
    ///
    /// What the system says of a file that is there and cannot be read, or that one of its lines makes no sense.
    pub fn load<T>(
        users_csv: &Path,
        suffix: &str,
        holds: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> io::Result<(Self, Vec<T>)> {
        let path = beside(users_csv, suffix);
        let fault = |fault: &dyn std::fmt::Display| {
            let path = path.display();
            io::Error::other(format!(
                "{path}: {fault}; it holds {holds}: mend it, or remove it and with it those"
            ))
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(fault(&error)),
        };
        let lines = text.lines().enumerate().map(|(number, line)| {
            read(line).ok_or_else(|| fault(&format!("line {} makes no sense", number + 1)))
        });
        let lines = lines.collect::<io::Result<_>>()?;
        Ok((Self { path, version: 0.into(), saved: Mutex::new(0) }, lines))
    }

    /// What is to be kept has changed.
    pub fn has_changed(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Brings the file up to date with `lines`, where something has changed. Blocks while the disk works.
    ///
    /// # Errors
    ///
    /// What the system says; then the file is as it was.
    pub fn save(&self, lines: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        let wanted = self.version.load(Ordering::Relaxed);
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved >= wanted {
            return Ok(());
        }
        let version = self.version.load(Ordering::Relaxed);
        let lines = lines();
        replace(&self.path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))?;
        *saved = version;
        Ok(())
    }
}
