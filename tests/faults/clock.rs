//! Wall clocks that jump while somebody is away.

use std::fs;

use serde_json::json;
use tokio::{process::Command, time::Instant};

use crate::harness::{process::RestartableServer, resumable::RESUME};

const DAY: i64 = 24 * 60 * 60;

/// Moved by the seconds that the file `offset` in its folder holds; so far by none.
async fn house_with_a_clock(settings: &[(&str, &str)]) -> RestartableServer {
    let folder = tempfile::tempdir().unwrap();
    let mut compiler = Command::new("cc");
    let compiler = compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so"));
    let compiled = compiler.args(["tests/it/attacks/clock.c", "-ldl"]).status().await.unwrap();
    assert!(compiled.success());
    fs::write(folder.path().join("offset"), "0").unwrap();
    let preloaded = [("LD_PRELOAD", "{folder}/clock.so"), ("CLOCK_OFFSET", "{folder}/offset")];
    RestartableServer::start_in(folder, &[&preloaded, settings].concat()).await
}

/// `RESUME_WINDOW_SECONDS` is two.
#[tokio::test]
async fn a_day_that_is_skipped_or_repeated_makes_the_window_neither_shorter_nor_longer() {
    let house = house_with_a_clock(&[("RESUME_WINDOW_SECONDS", "2")]).await;
    let jumps = |seconds: i64| fs::write(house.folder.path().join("offset"), seconds.to_string());

    for jump in [DAY, -DAY] {
        let mut bob = house.join("bob", &["peer_state"]).await;
        let mut alice = house.join("alice", RESUME).await;
        bob.receive_type("user_joined").await;
        let away = (alice.client.id.clone(), "reconnecting".to_owned());
        let back = (alice.client.id.clone(), "connected".to_owned());

        alice.drop_connection().await;
        assert_eq!(bob.receive_peer_state().await, away);
        jumps(jump).unwrap();
        bob.send(json!({"type":"message","data":"the clock has jumped"})).await;
        alice.resume(house.address()).await;
        assert_eq!(alice.receive_data().await, "the clock has jumped");
        assert_eq!(bob.receive_peer_state().await, back);

        jumps(0).unwrap();
        alice.drop_connection().await;
        assert_eq!(bob.receive_peer_state().await, away);
        let began = Instant::now();
        jumps(jump).unwrap();
        assert_eq!(bob.receive_type("user_left").await["client_id"], "alice");
        let window = began.elapsed();
        assert!((1.9..4.0).contains(&window.as_secs_f32()), "{window:?}");
        alice.assert_resume_fails(house.address()).await;

        jumps(0).unwrap();
        bob.assert_no_more_messages().await;
        bob.client.leave().await;
    }
}

/// Between two processes there is only the wall clock, which may be wrong; the window is never longer than it is set.
#[tokio::test]
async fn a_clock_that_jumps_between_two_processes_makes_the_window_no_longer() {
    let mut house = house_with_a_clock(&[("RESUME_WINDOW_SECONDS", "2")]).await;
    let mut alice = house.join("alice", RESUME).await;
    let mut bob = house.join("bob", RESUME).await;
    alice.receive_type("user_joined").await;

    tokio::join!(house.stop(), alice.receive_until_closed(), bob.receive_until_closed());
    fs::write(house.folder.path().join("offset"), (-DAY).to_string()).unwrap();
    house.restart().await;
    let began = Instant::now();
    alice.resume(house.address()).await;

    assert_eq!(alice.receive_type("user_left").await["client_id"], "bob");
    assert!(began.elapsed().as_secs_f32() < 4.0);
}
