//! Processes that end, in order or not, and the next one on the same port.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::harness::{
    CHEAP, compile_clock, folder_with_users,
    process::{RestartableServer, manage_ok},
    resumable::{RESUME, RESUME_AND_STATES, ResumableClient, client_ids, of_type},
};

/// Members of one room, all of whom have heard of each other.
async fn members<const N: usize>(
    server: &RestartableServer,
    who: [(&str, &[&str]); N],
) -> [ResumableClient; N] {
    let mut members: Vec<ResumableClient> = Vec::new();
    for (username, features) in who {
        members.push(server.join(username, features).await);
    }
    for member in &mut members {
        member.receive_pending().await;
    }
    members.try_into().unwrap_or_else(|_| unreachable!())
}

#[tokio::test]
async fn after_a_crash_no_client_resumes_and_all_join_anew_on_the_same_sockets() {
    let mut server = RestartableServer::start(&[]).await;
    let [mut alice, mut bob] = members(&server, [("alice", RESUME), ("bob", RESUME)]).await;
    let tokens = [server.token("alice").await, server.token("bob").await];

    server.process.kill().await;
    assert_eq!(alice.receive_until_closed().await, [] as [Value; 0]);
    server.restart().await;
    alice.assert_resume_fails(server.address()).await;
    bob.assert_resume_fails(server.address()).await;

    assert_eq!(alice.authenticate("alice", &tokens[0], RESUME).await, [] as [&str; 0]);
    assert_eq!(bob.authenticate("bob", &tokens[1], RESUME).await, ["alice"]);
    assert_eq!(alice.receive_type("user_joined").await["client_id"], "bob");
    bob.send(json!({"type":"message","data":"again","to":"alice"})).await;
    assert_eq!(alice.receive_data().await, "again");
    assert_eq!(server.health().await["active_connections"], 2);
}

/// Alice does not read what bob says just before the end, and bob does not know whether it arrived.
#[tokio::test]
async fn a_restart_loses_no_message_and_announces_no_leave() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "seats")]).await;
    let who = [("alice", RESUME), ("bob", RESUME), ("carol", &[])];
    let [mut alice, mut bob, mut carol] = members(&server, who).await;
    let state_file = server.folder.path().join("seats");
    let say = |number| json!({"type":"message","data":number,"id":number,"to":"alice"});

    for number in 0..100 {
        bob.send(say(number)).await;
    }
    let (errors, bobs_end, carols_end) =
        tokio::join!(server.stop(), bob.receive_until_closed(), carol.receive_until_closed());
    let mode = fs::metadata(&state_file).unwrap().permissions().mode();
    server.restart().await;
    alice.resume(server.address()).await;
    let is_gone = !state_file.exists();
    bob.resume(server.address()).await;
    for number in 0..100 {
        bob.send(say(number)).await;
    }
    let bob_heard = bob.receive_pending().await;
    let alice_heard = alice.receive_pending().await;

    assert_eq!((mode & 0o777, is_gone, errors), (0o600, true, vec![]));
    for end in [bobs_end, carols_end] {
        let [shutdown, error] = &end[..] else { panic!("{end:?}") };
        assert_eq!(
            (&shutdown["type"], &error["code"], &error["retry"]),
            (&json!("server_shutdown"), &json!("server_restarting"), &json!(true))
        );
    }
    let numbers: Vec<_> = (0..100).map(Value::from).collect();
    assert_eq!(of_type(&alice_heard, "message", "data"), numbers);
    for heard in [alice_heard, bob_heard] {
        assert_eq!(of_type(&heard, "user_left", "client_id"), ["carol"]);
        assert_eq!(of_type(&heard, "user_joined", "client_id"), [] as [Value; 0]);
    }
    assert_eq!(server.health().await["active_connections"], 2);
}

/// The window is 100 seconds. The wall clock is moved by 50 while there is no process, and by 49 more while there is none again.
#[tokio::test]
async fn a_resume_window_spans_two_restarts_and_its_end_is_announced_once() {
    let folder = folder_with_users(CHEAP);
    let clock = compile_clock(&folder).await;
    let window = ("RESUME_WINDOW_SECONDS", "100");
    let mut server = RestartableServer::start_in(folder, &[&clock[..], &[window]].concat()).await;
    let offset = server.folder.path().join("offset");
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&server, who).await;

    tokio::join!(server.stop(), alice.receive_until_closed(), dave.receive_until_closed());
    fs::write(&offset, "50").unwrap();
    server.restart().await;
    let resumed = alice.resume(server.address()).await;
    assert_eq!(client_ids(&resumed), ["dave"], "half of its window is left");
    tokio::join!(server.stop(), alice.receive_until_closed());
    fs::write(&offset, "99").unwrap();
    server.restart().await;

    // It may have left before she resumes.
    alice.resume(server.address()).await;
    assert_eq!(alice.receive_type("user_left").await["client_id"], "dave");
    alice.assert_no_more_messages().await;
    dave.assert_resume_fails(server.address()).await;
}

#[tokio::test]
async fn a_user_disabled_between_two_processes_cannot_resume_and_its_leave_is_announced() {
    let mut server = RestartableServer::start(&[]).await;
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&server, who).await;

    tokio::join!(server.stop(), alice.receive_until_closed(), dave.receive_until_closed());
    manage_ok(&server.folder, &["disable", "dave"], "").await;
    server.restart().await;
    dave.assert_resume_fails(server.address()).await;
    let answer = alice.resume(server.address()).await;
    let heard = alice.receive_pending().await;

    assert_eq!(client_ids(&answer), [] as [&str; 0]);
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["dave"], "{heard:?}");
}

#[tokio::test]
async fn a_resume_window_that_ends_between_two_processes_is_announced_to_those_that_resume() {
    let mut server = RestartableServer::start(&[("STATE_FILE", "seats")]).await;
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&server, who).await;

    tokio::join!(server.stop(), alice.receive_until_closed(), dave.receive_until_closed());
    let state_file = server.folder.path().join("seats");
    let seats = fs::read_to_string(&state_file).unwrap();
    let (before, of_dave) = seats.split_once(r#""client_id":"dave""#).unwrap();
    let (until, rest) = of_dave.split_once(r#""until":"#).unwrap();
    let rest = rest.trim_start_matches(|char: char| char.is_ascii_digit());
    fs::write(&state_file, format!(r#"{before}"client_id":"dave"{until}"until":1{rest}"#)).unwrap();
    server.restart().await;
    let answer = alice.resume(server.address()).await;
    let heard = alice.receive_pending().await;

    assert_eq!(client_ids(&answer), [] as [&str; 0]);
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["dave"], "{heard:?}");
}

#[tokio::test]
async fn the_first_client_to_resume_after_a_restart_receives_which_peers_are_detached() {
    let mut server = RestartableServer::start(&[]).await;
    let who = [("alice", RESUME_AND_STATES), ("bob", RESUME)];
    let [mut alice, mut bob] = members(&server, who).await;

    tokio::join!(server.stop(), alice.receive_until_closed(), bob.receive_until_closed());
    server.restart().await;
    let answer = alice.resume(server.address()).await;
    let before = alice.receive_pending().await;
    bob.resume(server.address()).await;
    let after = alice.receive_pending().await;

    assert_eq!(client_ids(&answer), ["bob"]);
    assert_eq!(of_type(&before, "peer_state", "state"), ["reconnecting"], "{before:?}");
    assert_eq!(of_type(&after, "peer_state", "state"), ["connected"], "{after:?}");
}
