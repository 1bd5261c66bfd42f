//! The users file under a server that runs, changed by `manage_users` and by worse (group U).

use std::{collections::BTreeSet, fs};

use reqwest::Method;
use serde_json::{Value, json};
use signaling::auth::users::UsersTable;

use super::attacked_server::AttackedServer;
use crate::harness::{
    Client, PASSWORD, eventually,
    process::{INTERVALS, command, manage_err, manage_ok},
    replace_file,
};

/// So that a test need not wait for the polls of the file.
const FAST_POLL: (&str, &str) = (INTERVALS, "file_poll=20");

async fn login_status(server: &AttackedServer, username: &str, password: &str) -> u16 {
    let body = json!({"username":username,"password":password});
    let request = server.request(Method::POST, "/auth/login").json(&body);
    request.send().await.unwrap().status().as_u16()
}

async fn me(server: &AttackedServer, token: &str) -> u16 {
    let request = server.request(Method::GET, "/auth/me").bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

async fn member(server: &AttackedServer, room: &str, username: &str, token: &str) -> Client {
    let mut client = server.connect(room).await;
    client.authenticate(username, token, Value::Null).await;
    client
}

/// The users file, with rows below those that it has.
fn add_rows(server: &AttackedServer, rows: &str) {
    let path = server.folder.path().join("users.csv");
    fs::write(&path, fs::read_to_string(&path).unwrap() + rows).unwrap();
}

/// U01, U02, U03, U11: what `manage_users` does to an account is done to its tokens and sockets, and
/// nobody else notices. Other services' tokens outlive a password, those of a login do not.
#[tokio::test]
async fn a_change_of_an_account_applies_to_its_tokens_and_sockets() {
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", "1000"), FAST_POLL]).await;
    let folder = &server.folder;
    assert_eq!(login_status(&server, "erin", "a new one").await, 401);

    manage_ok(folder, &["add", "--password-stdin", "erin"], "a new one").await;
    eventually("erin may log in", async || {
        match login_status(&server, "erin", "a new one").await {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;

    for (act, says) in [("disable", "enable"), ("remove", "add")] {
        let token = server.token("carol");
        let socket = member(&server, "den", "carol", &token).await;
        manage_ok(folder, &[act, "carol"], "").await;
        let (before, close) = socket.read_to_close().await;
        assert_eq!(close, (4003, "User disabled or removed".into()), "{act}");
        assert_eq!(before.last().unwrap()["code"], "user_disabled");
        assert_eq!(
            (me(&server, &token).await, login_status(&server, "carol", PASSWORD).await),
            (401, 401)
        );
        let mut again = server.connect("den").await;
        again.receive().await;
        again.send(json!({"type":"auth_token","token":token})).await;
        assert_eq!(again.rejection().await, (1008, "User not found or inactive".into()));

        match says {
            "enable" => manage_ok(folder, &["enable", "carol"], "").await,
            _ => manage_ok(folder, &["add", "--password-stdin", "carol"], PASSWORD).await,
        };
        let back = eventually("carol may log in", async || {
            match login_status(&server, "carol", PASSWORD).await {
                200 => Ok(()),
                other => Err(other),
            }
        });
        back.await;
    }

    let (logged_in, minted) = (server.log_in("dave").await, server.token("dave"));
    let ends = member(&server, "den", "dave", &logged_in).await;
    let mut stays = member(&server, "den", "dave", &minted).await;
    manage_ok(folder, &["passwd", "--password-stdin", "dave"], "another one").await;
    let (before, close) = ends.read_to_close().await;
    assert_eq!(close, (1008, "Invalid token".into()));
    assert_eq!(before.last().unwrap()["code"], "password_changed");
    assert_eq!((me(&server, &logged_in).await, me(&server, &minted).await), (401, 200));
    assert_eq!(stays.receive().await["type"], "user_left");
    stays.assert_no_more_messages().await;
    stays.leave().await;
    server.keep_secret("another one");
    server.assert_unharmed().await;
}

/// U03: twenty removals one after the other, with two sockets each.
#[tokio::test]
async fn a_removal_closes_every_socket_of_the_account() {
    let server = AttackedServer::start(&[FAST_POLL]).await;
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let names: Vec<_> = (0..20).map(|number| format!("user{number}")).collect();
    let rows: String = names.iter().map(|name| format!("{name},a@b,{hash},True\n")).collect();
    add_rows(&server, &rows);
    server.wait_for_log("users file reloaded").await;
    let mut sockets = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let token = server.token(name);
        let room = format!("room{}", number % 5);
        for _ in 0..2 {
            sockets.push((name, member(&server, &room, name, &token).await));
        }
    }

    let removing = async {
        for name in &names {
            manage_ok(&server.folder, &["remove", name], "").await;
        }
    };
    let closing = sockets.into_iter().map(async |(name, socket)| {
        assert_eq!(socket.read_to_close().await.1.0, 4003, "{name}");
    });
    tokio::join!(removing, futures_util::future::join_all(closing));

    server.assert_unharmed().await;
}

/// U02.
#[tokio::test]
async fn a_removal_applies_also_while_other_accounts_are_changed_all_the_time() {
    let server = AttackedServer::start(&[FAST_POLL]).await;
    let socket = member(&server, "den", "carol", &server.token("carol")).await;
    manage_ok(&server.folder, &["remove", "carol"], "").await;

    let changing = async {
        loop {
            manage_ok(&server.folder, &["disable", "dave"], "").await;
            manage_ok(&server.folder, &["enable", "dave"], "").await;
        }
    };
    let (_, close) = tokio::select! {
        closed = socket.read_to_close() => closed,
        () = changing => unreachable!(),
    };

    assert_eq!(close.0, 4003);
    server.assert_unharmed().await;
}

/// U04, U10: a file as a spreadsheet on Windows leaves it is taken up and edited; what this program
/// does not know stays in it.
#[tokio::test]
async fn a_file_of_another_shape_is_taken_up_and_edited() {
    let server = AttackedServer::start(&[FAST_POLL]).await;
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let rows = names.map(|name| format!("{hash},\"room 7, {name}\",{name}\r\n")).concat();
    let text = format!("\u{feff}hashed_password,note,username\r\n{rows}");
    replace_file(&server.folder.path().join("users.csv"), text);
    server.wait_for_log("users file reloaded").await;
    assert_eq!(login_status(&server, "erin", PASSWORD).await, 200);

    let socket = member(&server, "den", "erin", &server.token("erin")).await;
    manage_ok(&server.folder, &["disable", "erin"], "").await;
    assert_eq!(socket.read_to_close().await.1.0, 4003);
    manage_ok(&server.folder, &["add", "--password-stdin", "fred"], "a new one").await;
    let listed = manage_ok(&server.folder, &["list"], "").await;

    assert!(listed.contains("6 users") && listed.contains("erin"), "{listed}");
    let file = fs::read_to_string(server.folder.path().join("users.csv")).unwrap();
    assert!(file.starts_with("hashed_password,note,username,is_active\n"), "{file}");
    assert!(
        names.iter().all(|name| file.contains(&format!("\"room 7, {name}\",{name},"))),
        "{file}"
    );
    server.assert_unharmed().await;
}

/// U05, U06: a name that would break the file is refused and the file untouched, or it is kept whole.
#[tokio::test]
async fn a_name_cannot_break_the_users_file() {
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", "1000"), FAST_POLL]).await;
    let path = server.folder.path().join("users.csv");
    let before = fs::read(&path).unwrap();

    for name in [
        "al", "", "   ", "erin\n", "er\nin", "er\rin", "er\0in", " erin", "erin\t", "alice",
        "er:in",
    ] {
        let Ok(words) = std::ffi::CString::new(name) else { continue };
        let name = words.to_str().unwrap();
        manage_err(&server.folder, &["add", "--password-stdin", name], "a new one").await;
        assert_eq!(fs::read(&path).unwrap(), before, "{name:?}");
    }
    for email in ["a@b\n", "a b@c", "@", "a@b,True\nroot,a@b"] {
        manage_err(&server.folder, &["add", "--password-stdin", "erin", email], "a new one").await;
        assert_eq!(fs::read(&path).unwrap(), before, "{email:?}");
    }
    let kept =
        ["er,in", "er\"in", "\"erin\"", "=cmd|'/c calc'!A0", "erin,True", "--erin", "é,\"ö\""];
    for name in kept {
        manage_ok(&server.folder, &["add", "--password-stdin", "--", name], "a new one").await;
    }
    let table = UsersTable::read(&path).unwrap();
    let names: Vec<_> = table.rows().map(|row| row.username.to_owned()).collect();
    assert_eq!(names[..4], ["alice", "bob", "carol", "dave"]);
    assert_eq!(names[4..], kept);
    for name in kept {
        let login = async || match login_status(&server, name, "a new one").await {
            200 => Ok(()),
            other => Err(other),
        };
        eventually(&format!("{name:?} may log in"), login).await;
    }
    server.assert_unharmed().await;
}

/// U12: a file that is broken, empty, gone, a folder or far too long leaves everybody where he is; the
/// default accounts of a server in DEBUG do not come back.
#[tokio::test]
async fn an_invalid_users_file_leaves_the_accounts_unchanged() {
    let settings = [("AUTH_MAX_FAILURES", "1000"), FAST_POLL];
    let server =
        AttackedServer::with(&settings).may_log(&["users file not reloaded"]).start().await;
    let path = server.folder.path().join("users.csv");
    let good = fs::read_to_string(&path).unwrap();
    let mut carol = member(&server, "den", "carol", &server.token("carol")).await;
    let garbage: Vec<u8> =
        (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let no_end = good.replacen("bob,", "\"bob,", 1);

    let mut polls = 0;
    let mut poll_fails = async || {
        polls += 1;
        server.wait_for_log_lines("users file not reloaded", polls).await;
    };
    for broken in [&garbage[..], b"", b"\n\n\n", b"username\nalice\n", no_end.as_bytes()] {
        fs::write(&path, broken).unwrap();
        poll_fails().await;
        assert_eq!(login_status(&server, "alice", PASSWORD).await, 200);
        assert_eq!(login_status(&server, "admin", "admin123").await, 401);
        carol.assert_no_more_messages().await;
    }
    fs::remove_file(&path).unwrap();
    poll_fails().await;
    fs::create_dir(&path).unwrap();
    poll_fails().await;
    assert_eq!(login_status(&server, "alice", PASSWORD).await, 200);
    fs::remove_dir(&path).unwrap();
    poll_fails().await;
    assert_eq!(login_status(&server, "alice", PASSWORD).await, 200);
    assert_eq!(login_status(&server, "admin", "admin123").await, 401);
    assert!(!path.exists(), "the server does not create it");

    fs::write(&path, good.replace("carol", "karol")).unwrap();
    assert_eq!(carol.read_to_close().await.1.0, 4003);
    server.assert_unharmed().await;
}

/// U13: neither the list nor a refusal shows a hash or a password, and a list that cannot be written
/// is no success.
#[tokio::test]
async fn no_output_contains_a_secret() {
    let server = AttackedServer::with(&[FAST_POLL])
        .may_log(&["invalid row of the users file"])
        .start()
        .await;
    add_rows(&server, "erin,a@b,hunter2hunter2,True\nfred,a@b\n");
    let table = UsersTable::read(&server.folder.path().join("users.csv")).unwrap();
    let hashes: BTreeSet<_> = table.rows().map(|row| row.hashed_password.to_owned()).collect();

    let mut said = manage_ok(&server.folder, &["list"], "").await;
    said += &manage_ok(&server.folder, &["add", "--password-stdin", "gina"], "hunter2!").await;
    said += &manage_ok(&server.folder, &["add", "hank:hunter2!"], "").await;
    said += &manage_err(&server.folder, &["add", "hank:hunter2!"], "").await;
    said += &manage_err(&server.folder, &["add", "ivan:hunter2!:x"], "").await;
    said += &manage_err(&server.folder, &["add", &format!("ivan:hunter2!{}", "x".repeat(80))], "")
        .await;
    said +=
        &manage_err(&server.folder, &["passwd", "--password-stdin", "nobody"], "hunter2!").await;

    assert!(said.contains("is ignored") && said.contains("4 users"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("$2b$0"), "{said}");
    assert!(
        hashes.iter().filter(|hash| !hash.is_empty()).all(|hash| !said.contains(hash)),
        "{said}"
    );
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut list = command(env!("CARGO_BIN_EXE_manage_users"), &server.folder);
    let list = list.arg("list").stdout(full).status().await.unwrap();
    assert_eq!(list.code(), Some(1));
    server.assert_unharmed().await;
}
