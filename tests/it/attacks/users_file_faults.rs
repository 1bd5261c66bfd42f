//! `manage_users` that is killed, or has no room to write, beside a server that runs (N07, U08).

use std::{
    collections::BTreeSet, fs, os::unix::process::ExitStatusExt, path::Path, process::Stdio,
    time::Duration,
};

use reqwest::Method;
use signaling::auth::users::UsersTable;
use tokio::time::sleep;

use super::attacked_server::AttackedServer;
use crate::harness::process::{command, manage_ok, text};

/// Rounds of "random" moments: the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn names(path: &Path) -> BTreeSet<String> {
    let table = UsersTable::read(path).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<_> = table.rows().map(|row| row.username.to_owned()).collect();
    let once: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(once.len(), names.len(), "nobody is there twice");
    assert!(table.rows().all(|row| row.whole && row.hashed_password.len() == 60), "no row is cut");
    once
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// N07, U07: 320 of the catalogue's thousand kills, at moments from before the start to after the end;
/// forty of them while an account is added.
#[tokio::test]
async fn a_killed_manage_users_leaves_the_old_file_or_the_new_one() {
    let server = AttackedServer::start(&[]).await;
    let path = server.folder.path().join("users.csv");
    let mut dice = Dice(7);
    let mut must_be_there: BTreeSet<String> = names(&path);
    let mut maybe_there = BTreeSet::new();
    let (mut killed, mut finished) = (0, 0);
    // How long an edit and an addition take, in microseconds: what is found out by the way.
    let mut longest = [15_000, 400_000];

    for round in 0..320_u64 {
        let user = ["alice", "bob", "carol", "dave"][dice.below(4) as usize];
        let added = format!("added{round}");
        let arguments = match round % 8 {
            0 => vec!["add".to_owned(), format!("{added}:secret1")],
            1..=4 => vec!["enable".to_owned(), user.to_owned()],
            // The bystanders stay active: these two are not of them.
            _ => vec!["disable".to_owned(), ["carol", "dave"][dice.below(2) as usize].to_owned()],
        };
        let longest = &mut longest[usize::from(round % 8 == 0)];
        let mut child = command(env!("CARGO_BIN_EXE_manage_users"), &server.folder);
        let mut child =
            child.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_micros(dice.below(*longest))).await;
        let _ = child.start_kill();
        let ended = child.wait().await.unwrap();

        match (ended.signal(), ended.code()) {
            (Some(9), _) => {
                killed += 1;
                *longest += *longest / 8;
            }
            (_, Some(0)) => {
                finished += 1;
                *longest -= *longest / 8;
            }
            other => panic!("{arguments:?}: {other:?}"),
        }
        if round % 8 == 0 {
            match ended.success() {
                true => must_be_there.insert(added),
                false => maybe_there.insert(added),
            };
        }
        let now = names(&path);
        assert!(must_be_there.is_subset(&now), "lost: {:?}", must_be_there.difference(&now));
        assert!(now.iter().all(|name| must_be_there.contains(name) || maybe_there.contains(name)));
    }

    assert!(killed > 100 && finished > 100, "{killed} killed, {finished} finished");
    manage_ok(&server.folder, &["enable", "alice"], "").await;
    let expected = ["users.csv", "users.csv.lock", "users.csv.revoked"];
    assert_eq!(files(server.folder.path()), expected, "leftovers");
    server.assert_unharmed().await;
}

/// N07, E20: logouts are written beside the users file; edits and kills next to it lose none, and do
/// not take the half-written one away from the server.
#[tokio::test]
async fn logouts_are_saved_while_accounts_are_changed() {
    let server = AttackedServer::start(&[]).await;
    let tokens: Vec<_> = (0..60).map(|_| server.token("carol")).collect();

    let changing = async {
        for _ in 0..60 {
            manage_ok(&server.folder, &["disable", "dave"], "").await;
            manage_ok(&server.folder, &["enable", "dave"], "").await;
        }
    };
    let leaving = async {
        for token in &tokens {
            let out = server.request(Method::POST, "/auth/logout").bearer_auth(token).send().await;
            assert_eq!(out.unwrap().status(), 200);
            let me = server.request(Method::GET, "/auth/me").bearer_auth(token).send().await;
            assert_eq!(me.unwrap().status(), 401);
        }
    };
    tokio::join!(changing, leaving);

    let folder = server.assert_unharmed().await.folder;
    let kept = fs::read_to_string(folder.path().join("users.csv.revoked")).unwrap();
    // Beside the times at which accounts were disabled.
    let logouts = kept.lines().filter(|line| line.ends_with(" carol"));
    assert_eq!(logouts.count(), tokens.len());
    assert_eq!(files(folder.path()), ["users.csv", "users.csv.lock", "users.csv.revoked"]);
}

/// U08: no room for the whole file (RLIMIT_FSIZE): by the signal that comes with it, and where that is
/// ignored by the error.
#[tokio::test]
async fn a_write_that_does_not_fit_leaves_the_old_file_whole() {
    let server = AttackedServer::start(&[]).await;
    let path = server.folder.path().join("users.csv");
    let before = fs::read(&path).unwrap();

    for limit in ["0", "64", "200"] {
        for (arguments, ignored) in [
            (["disable", "carol"], false),
            (["disable", "carol"], true),
            (["remove", "dave"], true),
            (["add", "erin:secret1"], true),
        ] {
            let ignoring = if ignored { "trap '' XFSZ" } else { ":" };
            let script = format!("{ignoring}; exec prlimit --fsize={limit} \"$@\"");
            let mut shell = command("sh", &server.folder);
            let manage_users = env!("CARGO_BIN_EXE_manage_users");
            let shell = shell.args(["-c", &script, "sh", manage_users]).args(arguments);
            let output = shell.env("PATH", "/usr/bin:/bin").output().await.unwrap();

            assert!(!output.status.success(), "{arguments:?} with {limit}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!ignored || said.contains("users.csv"), "{said}");
            assert_eq!(fs::read(&path).unwrap(), before, "{arguments:?} with {limit}");
        }
    }
    manage_ok(&server.folder, &["enable", "alice"], "").await;
    assert_eq!(files(server.folder.path()), ["users.csv", "users.csv.lock"], "leftovers");
    server.assert_unharmed().await;
}

/// Whether this machine lets us mount something that only our own processes see.
async fn may_mount(scene_folder: &tempfile::TempDir) -> bool {
    let mut may = command("unshare", scene_folder);
    let may = may.args(["-rm", "true"]).env("PATH", "/usr/bin:/bin").output().await;
    may.is_ok_and(|may| may.status.success())
}

/// N07: a disk that is full, and one that is read-only. Needs leave to make a mount namespace.
#[tokio::test]
async fn a_full_disk_leaves_the_old_file_whole() {
    const MAKE_DISK: &str = "set -e; mkdir disk; mount -t tmpfs -o size=64k tmpfs disk; cp users.csv disk; cd disk; before=$(cksum users.csv)";
    const FULL: &str = "dd if=/dev/zero of=filler bs=1k 2>/dev/null || true";
    const READ_ONLY: &str = "mount -o remount,ro .";
    const MUST_FAIL: &str = "for act in 'disable carol' 'remove dave' 'add erin:secret1' 'passwd --password-stdin bob'; do \
        if echo secret1 | \"$1\" $act; then echo \"$act: not refused\"; exit 1; fi; done; test \"$before\" = \"$(cksum users.csv)\"; echo kept";
    let server = AttackedServer::start(&[]).await;
    if !may_mount(&server.folder).await {
        eprintln!("not shown: this machine gives no mount namespace");
        return;
    }

    for fault in [FULL, READ_ONLY] {
        let script = format!("{MAKE_DISK}; {fault}; {MUST_FAIL}");
        let mut shell = command("unshare", &server.folder);
        let shell =
            shell.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_manage_users")]);
        let output = shell.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").output().await.unwrap();

        let said = text(&output);
        assert!(output.status.success() && said.contains("kept"), "{said}");
        assert!(said.contains("No space left") || said.contains("Read-only"), "{said}");
        fs::remove_dir(server.folder.path().join("disk")).unwrap();
    }
    server.assert_unharmed().await;
}

/// N07 for the server itself, on a read-only disk: a logout holds for as long as it runs, and the log
/// says that it will not hold longer.
#[tokio::test]
async fn a_logout_on_a_read_only_disk_lasts_as_long_as_the_process() {
    const READ_ONLY: &str =
        "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && cd \"$0\" && exec \"$@\"";
    if !may_mount(&tempfile::tempdir().unwrap()).await {
        eprintln!("not shown: this machine gives no mount namespace");
        return;
    }
    let server = AttackedServer::with(&[])
        .through(&["unshare", "-rm", "sh", "-c", READ_ONLY, "{folder}"])
        .may_log(&["logouts not saved"])
        .start()
        .await;
    let token = server.token("carol");

    let out =
        server.request(Method::POST, "/auth/logout").bearer_auth(&token).send().await.unwrap();

    assert_eq!(out.status(), 200);
    server.wait_for_log("logouts not saved").await;
    let me = server.request(Method::GET, "/auth/me").bearer_auth(&token).send().await.unwrap();
    assert_eq!(me.status(), 401);
    assert_eq!(files(server.folder.path()), ["users.csv"]);
    server.assert_unharmed().await;
}
