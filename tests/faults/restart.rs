//! Processes that end, in order or not, and the next one on the same port.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{House, Member, RESUME, RESUME_AND_STATES, ids, of_type};
use crate::process::managed;

/// Members of one room, all of whom have heard of each other.
async fn members<const N: usize>(house: &House, who: [(&str, &[&str]); N]) -> [Member; N] {
    let mut members: Vec<Member> = Vec::new();
    for (username, features) in who {
        members.push(house.join(username, features).await);
    }
    for member in &mut members {
        member.hears_the_rest().await;
    }
    members.try_into().unwrap_or_else(|_| unreachable!())
}

#[tokio::test]
async fn after_a_crash_nobody_resumes_and_on_the_same_sockets_all_find_each_other_again() {
    let mut house = House::open(&[]).await;
    let [mut alice, mut bob] = members(&house, [("alice", RESUME), ("bob", RESUME)]).await;
    let tokens = [house.token("alice").await, house.token("bob").await];

    house.server.child.kill().await.unwrap();
    assert_eq!(alice.hears_the_end().await, [] as [Value; 0]);
    house.opens_again().await;
    alice.fails_to_resume(house.address()).await;
    bob.fails_to_resume(house.address()).await;

    assert_eq!(alice.introduces_itself("alice", &tokens[0], RESUME).await, [] as [&str; 0]);
    assert_eq!(bob.introduces_itself("bob", &tokens[1], RESUME).await, ["alice"]);
    assert_eq!(alice.hears_a("user_joined").await["client_id"], "bob");
    bob.says(json!({"type":"message","data":"again","to":"alice"})).await;
    assert_eq!(alice.hears_data().await, "again");
    assert_eq!(house.health().await["active_connections"], 2);
}

/// Alice does not read what bob says just before the end, and bob does not know whether it arrived.
#[tokio::test]
async fn a_restart_loses_nothing_that_was_said_before_it_and_nobody_seems_to_leave() {
    let mut house = House::open(&[("STATE_FILE", "seats")]).await;
    let who = [("alice", RESUME), ("bob", RESUME), ("carol", &[])];
    let [mut alice, mut bob, mut carol] = members(&house, who).await;
    let state_file = house.folder.path().join("seats");
    let say = |number| json!({"type":"message","data":number,"id":number,"to":"alice"});

    for number in 0..100 {
        bob.says(say(number)).await;
    }
    let (errors, bobs_end, carols_end) =
        tokio::join!(house.stops(), bob.hears_the_end(), carol.hears_the_end());
    let mode = fs::metadata(&state_file).unwrap().permissions().mode();
    house.opens_again().await;
    alice.resumes(house.address()).await;
    let is_gone = !state_file.exists();
    bob.resumes(house.address()).await;
    for number in 0..100 {
        bob.says(say(number)).await;
    }
    let bob_heard = bob.hears_the_rest().await;
    let alice_heard = alice.hears_the_rest().await;

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
    assert_eq!(house.health().await["active_connections"], 2);
}

/// The window, of four seconds, goes on while there is no process, and from one to the next.
#[tokio::test]
async fn who_does_not_come_back_after_two_restarts_leaves_once_when_the_window_is_over() {
    let mut house = House::open(&[("RESUME_WINDOW_SECONDS", "4")]).await;
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&house, who).await;

    let began = Instant::now();
    tokio::join!(house.stops(), alice.hears_the_end(), dave.hears_the_end());
    house.opens_again().await;
    house.stops().await;
    house.opens_again().await;
    let told = alice.resumes(house.address()).await;
    let left = alice.hears_a("user_left").await;
    let after = began.elapsed();

    assert_eq!((ids(&told), &left["client_id"]), (vec!["dave".to_owned()], &json!("dave")));
    assert!((3.9..8.0).contains(&after.as_secs_f32()), "{after:?}");
    alice.hears_nothing_else().await;
    dave.fails_to_resume(house.address()).await;
}

#[tokio::test]
async fn who_was_disabled_while_there_was_no_process_cannot_resume_and_the_others_hear_it_left() {
    let mut house = House::open(&[]).await;
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&house, who).await;

    tokio::join!(house.stops(), alice.hears_the_end(), dave.hears_the_end());
    managed(&house.folder, &["disable", "dave"], "").await;
    house.opens_again().await;
    dave.fails_to_resume(house.address()).await;
    let told = alice.resumes(house.address()).await;
    let heard = alice.hears_the_rest().await;

    assert_eq!(ids(&told), [] as [&str; 0]);
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["dave"], "{heard:?}");
}

#[tokio::test]
async fn whose_window_ends_while_there_is_no_process_has_left_for_those_who_come_back() {
    let mut house = House::open(&[("STATE_FILE", "seats")]).await;
    let who = [("alice", RESUME), ("dave", RESUME)];
    let [mut alice, mut dave] = members(&house, who).await;

    tokio::join!(house.stops(), alice.hears_the_end(), dave.hears_the_end());
    let state_file = house.folder.path().join("seats");
    let seats = fs::read_to_string(&state_file).unwrap();
    let (before, of_dave) = seats.split_once(r#""client_id":"dave""#).unwrap();
    let (until, rest) = of_dave.split_once(r#""until":"#).unwrap();
    let rest = rest.trim_start_matches(|char: char| char.is_ascii_digit());
    fs::write(&state_file, format!(r#"{before}"client_id":"dave"{until}"until":1{rest}"#)).unwrap();
    house.opens_again().await;
    let told = alice.resumes(house.address()).await;
    let heard = alice.hears_the_rest().await;

    assert_eq!(ids(&told), [] as [&str; 0]);
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["dave"], "{heard:?}");
}

#[tokio::test]
async fn who_is_back_first_after_a_restart_hears_who_is_still_away() {
    let mut house = House::open(&[]).await;
    let who = [("alice", RESUME_AND_STATES), ("bob", RESUME)];
    let [mut alice, mut bob] = members(&house, who).await;

    tokio::join!(house.stops(), alice.hears_the_end(), bob.hears_the_end());
    house.opens_again().await;
    let told = alice.resumes(house.address()).await;
    let before = alice.hears_the_rest().await;
    bob.resumes(house.address()).await;
    let after = alice.hears_the_rest().await;

    assert_eq!(ids(&told), ["bob"]);
    assert_eq!(of_type(&before, "peer_state", "state"), ["reconnecting"], "{before:?}");
    assert_eq!(of_type(&after, "peer_state", "state"), ["connected"], "{after:?}");
}
