//! Members that outlive the process, in a file (setting `STATE_FILE`). It holds what they say to each other:
//! it is its owner's only, and gone as soon as it was read.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::atomic_file::replace;

/// So much of frames is written in a fraction of a second, and read again: the next process is waited for.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Keeps as many as [`MOST_BYTES`] reaches for: those first for whom least is kept.
pub fn keep_fitting<T>(members: &mut Vec<T>, bytes: impl Fn(&T) -> usize) {
    members.sort_by_key(&bytes);
    let mut sum = 0;
    let fitting = members.iter().take_while(|member| {
        sum += bytes(member);
        sum <= MOST_BYTES
    });
    members.truncate(fitting.count());
}

/// The form of the file; another is not read.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    members: &'a [T],
}

#[derive(Deserialize)]
struct Read<T> {
    version: u32,
    members: Vec<T>,
}

/// Writes them down, in one step, as far as they are [fitting](keep_fitting). Says how many that is.
///
/// # Errors
///
/// What the system says.
pub fn save<T: Serialize>(
    path: &Path,
    mut members: Vec<T>,
    bytes: impl Fn(&T) -> usize,
) -> io::Result<usize> {
    keep_fitting(&mut members, bytes);
    let written = Written { version: VERSION, members: &members };
    // Nobody may read the new one who might read the one before.
    if is_plain(path)? {
        fs::remove_file(path)?;
    }
    replace(path, |file| {
        let mut buffered = io::BufWriter::new(file);
        serde_json::to_writer(&mut buffered, &written)?;
        io::Write::flush(&mut buffered)
    })?;
    Ok(members.len())
}

/// Reads them, and removes the file: nobody is to come back twice to the same place.
///
/// # Errors
///
/// What the system says of a file that is there and cannot be read or removed, or that it is no such
/// file.
pub fn take<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    if !is_plain(path)? {
        return Ok(Vec::new());
    }
    let text = fs::read(path)?;
    fs::remove_file(path)?;
    // Not what serde says, which may repeat what stands in the file.
    let read: Result<Read<T>, _> = serde_json::from_slice(&text);
    match read {
        Ok(Read { version: VERSION, members }) => Ok(members),
        Ok(_) | Err(_) => Err(io::Error::other("not written by this version of the server")),
    }
}

/// Whether there is a file; a device or a pipe is none that may be read to its end, or replaced.
fn is_plain(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(io::Error::other("not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
