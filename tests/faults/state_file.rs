//! A `STATE_FILE` that cannot be written, and one that cannot be read.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use serde_json::json;

use crate::harness::{
    process::RestartableServer,
    resumable::{RESUME, ResumableClient},
};

/// A grace that no test waits out.
const LONG_GRACE: (&str, &str) = ("SHUTDOWN_GRACE_SECONDS", "600");

async fn pair(server: &RestartableServer) -> [ResumableClient; 2] {
    let mut alice = server.join("alice", RESUME).await;
    let bob = server.join("bob", RESUME).await;
    alice.receive_type("user_joined").await;
    [alice, bob]
}

/// The server stops long before its grace is over though it cannot save its members, logs that once, and the next process
/// has no members.
async fn stops_without_keeping_anybody(
    server: &mut RestartableServer,
    members: [ResumableClient; 2],
    named: &str,
) {
    let [mut alice, mut bob] = members;

    let (errors, ..) =
        tokio::join!(server.stop(), alice.receive_until_closed(), bob.receive_until_closed());
    server.restart().await;
    alice.assert_resume_fails(server.address()).await;
    bob.assert_resume_fails(server.address()).await;

    assert!(matches!(&errors[..], [error] if error.contains(named)), "{errors:?}");
    assert_eq!(server.stop().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_state_file_in_a_missing_folder_is_logged_and_loses_only_the_memberships() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "nowhere/seats"), LONG_GRACE]).await;
    let members = pair(&server).await;

    stops_without_keeping_anybody(&mut server, members, "nowhere/seats").await;
}

/// A file system of its own that is as small as can be.
struct FullDisk(PathBuf);

impl FullDisk {
    /// Nothing where only root may do that, which this is not.
    fn mount(folder: PathBuf) -> Option<Self> {
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"]).arg(&folder);
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then_some(Self(folder))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_only_the_memberships() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "disk/seats"), LONG_GRACE]).await;
    let Some(disk) = FullDisk::mount(server.folder.path().join("disk")) else {
        return eprintln!("SKIPPED: only root may mount a disk that is full");
    };
    let [alice, mut bob] = pair(&server).await;
    let large = "x".repeat(8 * 1024);
    bob.send(json!({"type":"message","data":large,"to":"alice"})).await;
    bob.assert_no_more_messages().await;

    stops_without_keeping_anybody(&mut server, [alice, bob], "disk/seats").await;

    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0, "half a file is left");
}

/// As a service may be started that is to write little (`LimitFSIZE=`).
#[tokio::test]
async fn a_limit_on_file_sizes_loses_only_the_memberships() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "seats"), LONG_GRACE]).await;
    let members = pair(&server).await;
    let pid = server.process.child.id().unwrap().to_string();
    let limited = Command::new("prlimit").args(["--fsize=100", "--pid", &pid]).status();
    assert!(limited.unwrap().success());

    stops_without_keeping_anybody(&mut server, members, "seats").await;
}

#[tokio::test]
async fn a_damaged_state_file_is_named_not_quoted_and_no_member_resumes() {
    const SAID: &str = "what bob said to alice";
    let mut server = RestartableServer::start(&[("STATE_FILE", "seats"), LONG_GRACE]).await;
    let path = server.folder.path().join("seats");
    let [alice, mut bob] = pair(&server).await;
    bob.send(json!({"type":"message","data":SAID,"to":"alice"})).await;
    bob.assert_no_more_messages().await;
    tokio::join!(server.stop(), bob.receive_until_closed());
    let whole = fs::read_to_string(&path).unwrap();
    assert!(whole.contains(SAID));

    let half = whole.split_once(SAID).unwrap().0.to_owned() + SAID;
    let other_version = whole.replacen("\"version\":1", "\"version\":2", 1);
    let other_form = whole.replacen("\"members\":[", &format!("\"members\":[\"{SAID}\","), 1);
    let nested = format!("{SAID}{}", "[".repeat(100_000));
    let cases =
        ["", SAID, "{}", "[]", &half, &other_version, &other_form, &nested].map(str::to_owned);
    let binary = [SAID.as_bytes(), &[0xff, 0, 0xfe]].concat();
    for text in cases.into_iter().map(String::into_bytes).chain([binary]) {
        fs::write(&path, &text).unwrap();

        server.restart().await;
        for member in [&alice, &bob] {
            let (_, answer) = member.try_resume(server.address()).await;
            assert_eq!(answer["code"], "resume_failed");
        }
        let errors = server.stop().await;

        assert!(!path.exists(), "it would be named at every start");
        assert!(matches!(&errors[..], [error] if error.contains("seats")), "{errors:?}");
        assert!(!server.process.log.lines().join("\n").contains(SAID));
    }
}

#[tokio::test]
async fn the_state_file_is_readable_by_its_owner_only() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "seats"), LONG_GRACE]).await;
    let path = server.folder.path().join("seats");
    let [_alice, mut bob] = pair(&server).await;
    fs::write(&path, "something else").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();

    tokio::join!(server.stop(), bob.receive_until_closed());

    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"version\":1"));
}
