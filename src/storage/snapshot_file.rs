//! The shutdown snapshot: members that outlive the process, in a file (setting `STATE_FILE`).
//!
//! The file holds what members send each other. It is readable by its owner only, and removed as soon as it was read.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::atomic_file::replace_file;

/// The most that a snapshot holds, in bytes: so much is written in a second, and read again, and clients wait for the next
/// process meanwhile.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What a member takes in the file beside its frames, in bytes: its token, mostly.
const MEMBER_BYTES: usize = 640;

/// The version of the file's format. Files of other versions are not read.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct WrittenSnapshot<'a, T> {
    version: u32,
    members: &'a [T],
}

#[derive(Deserialize)]
struct ReadSnapshot<T> {
    version: u32,
    members: Vec<T>,
}

/// Removes the members that do not fit into a snapshot, those with the most `bytes` of frames first, and returns them.
pub fn retain_fitting<T>(members: &mut Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let bytes = |member: &T| MEMBER_BYTES + bytes(member);
    if members.iter().map(bytes).sum::<usize>() <= MAX_BYTES {
        return Vec::new();
    }
    members.sort_by_cached_key(bytes);
    let mut sum = 0;
    let fitting = members.iter().take_while(|member| {
        sum += bytes(member);
        sum <= MAX_BYTES
    });
    let fitting = fitting.count();
    members.split_off(fitting)
}

/// Writes the members that [fit](retain_fitting) to `path` in one step, and returns how many these are.
///
/// # Errors
///
/// What the system returns.
pub fn save<T: Serialize>(
    path: &Path,
    mut members: Vec<T>,
    bytes: impl Fn(&T) -> usize,
) -> io::Result<usize> {
    retain_fitting(&mut members, bytes);
    let written = WrittenSnapshot { version: VERSION, members: &members };
    // A new file is readable by its owner only, whatever the mode of the old one.
    if check_regular_file(path)? {
        fs::remove_file(path)?;
    }
    replace_file(path, |file| {
        let mut buffered = io::BufWriter::new(file);
        serde_json::to_writer(&mut buffered, &written)?;
        io::Write::flush(&mut buffered)
    })?;
    Ok(members.len())
}

/// Reads the members at `path` and removes the file, so that no member is restored twice. No file means no members.
///
/// # Errors
///
/// The file exists and cannot be read or removed, or is no snapshot of this version.
pub fn take<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    if !check_regular_file(path)? {
        return Ok(Vec::new());
    }
    let text = fs::read(path)?;
    fs::remove_file(path)?;
    // Without serde's own message, which may quote the file.
    let read: Result<ReadSnapshot<T>, _> = serde_json::from_slice(&text);
    match read {
        Ok(ReadSnapshot { version: VERSION, members }) => Ok(members),
        Ok(_) | Err(_) => Err(io::Error::other("not written by this version of the server")),
    }
}

/// Whether there is a regular file at `path`.
///
/// # Errors
///
/// What the system returns; or that `path` is a device, a pipe or a folder, which must not be read to its end or
/// replaced.
fn check_regular_file(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        Ok(_) => Err(io::Error::other("not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_with_the_most_frames_are_removed_until_the_others_fit() {
        const FRAMES: usize = MAX_BYTES / 4;
        let mut members = vec![FRAMES, 3 * FRAMES, 0, FRAMES];
        assert_eq!(retain_fitting(&mut members, |frames| *frames), [3 * FRAMES]);
        assert_eq!(members, [0, FRAMES, FRAMES]);

        let many = MAX_BYTES / MEMBER_BYTES;
        let mut members = vec![0; many];
        assert!(retain_fitting(&mut members, |frames| *frames).is_empty());
        members.push(0);
        assert_eq!(retain_fitting(&mut members, |frames| *frames), [0]);
        assert_eq!(members.len(), many, "a member without frames takes space, too");
    }
}
