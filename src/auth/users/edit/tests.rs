//! Edits of a users file on disk.

use std::os::unix::fs::PermissionsExt;

use super::*;

const ODD: &str = "\u{feff}is_active,note,username,hashed_password\r\nTrue,\"a, \"\"b\"\"\",alice,h1\r\nFalse,,bob\r\n";

#[test]
fn the_file_keeps_its_mode_and_a_link_stays_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.csv"), folder.path().join("users.csv"));
    fs::write(&real, "username,hashed_password\nalice,h1\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();

    edit(&link, |table| table.remove("alice")).unwrap();

    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_to_string(&real).unwrap(), "username,hashed_password\n");
}

#[test]
fn a_new_file_is_for_its_owner_only() {
    let path = tempfile::tempdir().unwrap().keep().join("users.csv");

    edit(&path, |table| table.add("alice", "a@b", "h1")).unwrap();

    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn temporary_files_of_a_killed_writer_are_removed_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    let others = [".other.csv.a1b2c3.new", ".users.csv.backup", ".users.csv.revoked.a1b2c3.new"];
    for name in [".users.csv.a1b2c3.new"].into_iter().chain(others) {
        fs::write(folder.path().join(name), "x").unwrap();
    }

    edit(&path, |table| table.add("alice", "a@b", "h1")).unwrap();

    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names[..3], others);
    assert_eq!(names[3..], ["users.csv", "users.csv.lock"]);
}

#[test]
fn a_rejected_edit_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, ODD).unwrap();

    assert!(matches!(edit(&path, |table| table.add("alice", "", "")), Err(EditError::Exists(_))));
    assert!(matches!(edit(&path, |table| table.remove("nobody")), Err(EditError::Unknown(_))));

    assert_eq!(fs::read_to_string(&path).unwrap(), ODD);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and its lock");
}

#[test]
fn concurrent_edits_are_all_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");

    std::thread::scope(|scope| {
        for number in 0..16 {
            let path = &path;
            scope.spawn(move || {
                edit(path, |table| table.add(&format!("user{number}"), "", "h")).unwrap()
            });
        }
    });

    assert_eq!(UsersTable::read(&path).unwrap().rows().count(), 16);
}
