//! A file of lines beside the users file, for records that outlive the process.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::atomic_file::{replace_file, sibling_path};

/// The file, and whether it is up to date with the records in memory.
pub struct LineFile {
    path: PathBuf,
    /// Counts changes of the records.
    version: AtomicU64,
    /// The version on disk. Held while the file is written, so that one write serves all callers that wait.
    saved: Mutex<u64>,
}

impl LineFile {
    /// Reads the file that is named after the users file and ends in `suffix`. `parse` makes a record of a line;
    /// `content` names the records in an error, for the operator.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read, or one of its lines cannot be parsed.
    pub fn load<T>(
        users_csv: &Path,
        suffix: &str,
        content: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> io::Result<(Self, Vec<T>)> {
        let path = sibling_path(users_csv, suffix);
        let fault = |problem: &dyn std::fmt::Display| {
            let path = path.display();
            io::Error::other(format!(
                "{path}: {problem}. The file holds {content}: correct it, or remove it and lose them"
            ))
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(fault(&error)),
        };
        let records = text.lines().enumerate().map(|(number, line)| {
            parse(line).ok_or_else(|| fault(&format!("line {} cannot be parsed", number + 1)))
        });
        let records = records.collect::<io::Result<_>>()?;
        Ok((Self { path, version: 0.into(), saved: Mutex::new(0) }, records))
    }

    /// Notes that the records have changed, so that the next [`save`](Self::save) writes the file.
    pub fn mark_dirty(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes `lines` to the file if the records have changed since the last save. Blocks on disk I/O.
    ///
    /// # Errors
    ///
    /// What the system returns; the file is then as it was.
    pub fn save(&self, lines: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        let wanted = self.version.load(Ordering::Relaxed);
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        if *saved >= wanted {
            return Ok(());
        }
        let version = self.version.load(Ordering::Relaxed);
        let lines = lines();
        replace_file(&self.path, |file| {
            let mut buffered = io::BufWriter::new(file);
            lines.iter().try_for_each(|line| writeln!(buffered, "{line}"))?;
            buffered.flush()
        })?;
        *saved = version;
        Ok(())
    }
}
