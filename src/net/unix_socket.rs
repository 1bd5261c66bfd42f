//! The server's own Unix socket: a file that a process creates, gives to a group, and removes when it ends.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The groups of the system, for names.
const GROUPS: &str = "/etc/group";

/// The file of a Unix socket, and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocketFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions, such as `0o660`.
    pub mode: u32,
    /// The name or the number of its group; none for the group of the process.
    pub group: Option<String>,
}

/// Removes the file of a socket at the end of the process, unless another process has put its own there.
#[derive(Debug)]
pub struct UnixSocketGuard {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Drop for UnixSocketGuard {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.device_and_inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on the socket `file`. A socket that a process left behind is replaced.
///
/// # Errors
///
/// When another process listens there, when the path is no socket, when there is no such group, and the errors of the
/// system.
pub fn listen_on_unix_socket(file: &UnixSocketFile) -> io::Result<(UnixListener, UnixSocketGuard)> {
    check_replaceable(&file.path)?;
    // Under another name until its mode and group are set: at no moment may others connect.
    let mut name = OsString::from(".");
    name.push(file.path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let unfinished = file.path.with_file_name(name);
    if check_replaceable(&unfinished).is_ok() {
        let _ = fs::remove_file(&unfinished);
    }
    let listener = UnixListener::bind(&unfinished)?;
    let finish = || {
        rustix::net::listen(&listener, i32::MAX)?;
        if let Some(group) = &file.group {
            chown(&unfinished, None, Some(group_id(group)?))?;
        }
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(file.mode))?;
        let device_and_inode = identity(&unfinished)?;
        fs::rename(&unfinished, &file.path)?;
        Ok(UnixSocketGuard { path: file.path.clone(), device_and_inode })
    };
    match finish() {
        Ok(guard) => Ok((listener, guard)),
        Err(error) => {
            let _ = fs::remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Whether a socket may be made at `path`: nothing is there, or a socket on which no process listens.
///
/// # Errors
///
/// [`io::ErrorKind::AddrInUse`] where a process listens, [`io::ErrorKind::AlreadyExists`] where the path is no socket.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let problem = "a file is there that is no socket; remove it, or name another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
    }
}

/// The number of a group, which may be written as its number.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no group {group}"));
    find_group(&fs::read_to_string(GROUPS)?, group).ok_or_else(unknown)
}

/// The number of a group in a file such as `/etc/group` (group(5)). A static binary has no other source of names.
fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: PathBuf, mode: u32) -> UnixSocketFile {
        UnixSocketFile { path, mode, group: None }
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");

        for mode in [0o660, 0o600, 0o666] {
            let (_listener, guard) = listen_on_unix_socket(&file(path.clone(), mode)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
            let taken = listen_on_unix_socket(&file(path.clone(), mode)).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
            drop(guard);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_or_link_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (listener, first) = listen_on_unix_socket(&file(path.clone(), 0o600)).unwrap();
        drop(listener);

        let (_listener, second) = listen_on_unix_socket(&file(path.clone(), 0o600)).unwrap();
        drop(first);
        assert!(path.exists(), "the file of the next process stays");
        drop(second);
        fs::write(&path, "important").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [path.clone(), link] {
            let error = listen_on_unix_socket(&file(path, 0o600)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "important");
    }

    #[tokio::test]
    async fn a_group_that_does_not_exist_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let group = Some("no-such-group-here".to_owned());

        let error =
            listen_on_unix_socket(&UnixSocketFile { path, mode: 0o660, group }).unwrap_err();

        assert!(error.to_string().contains("no-such-group-here"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nwww:x:12\nwww-data:x:33:alice,bob\nbroken\n";

        assert_eq!(find_group(groups, "www-data"), Some(33));
        assert_eq!(find_group(groups, "www"), Some(12));
        assert_eq!(find_group(groups, "broken"), None);
        assert_eq!(find_group(groups, "ww"), None);
    }
}
