//! Wall clocks that jump while a member is detached.

use std::{fs, time::Duration};

use serde_json::json;
use signaling_client::{Event, Options, connect};

use crate::harness::{
    CHEAP, PASSWORD, compile_clock, folder_with_users,
    process::{ROOM, RestartableServer},
    resumable::{RESUME, ResumableClient, client_ids},
};

const DAY: i64 = 24 * 60 * 60;

/// A server whose wall clock a test can move.
struct ClockedServer(RestartableServer);

impl ClockedServer {
    async fn start(window: &str) -> Self {
        let folder = folder_with_users(CHEAP);
        let clock = compile_clock(&folder).await;
        let window = ("RESUME_WINDOW_SECONDS", window);
        Self(RestartableServer::start_in(folder, &[&clock[..], &[window]].concat()).await)
    }

    /// Moves the wall clock by so many seconds from the real time.
    fn move_clock(&self, seconds: i64) {
        fs::write(self.0.folder.path().join("offset"), seconds.to_string()).unwrap();
    }
}

/// bob, and alice who is detached.
async fn bob_and_detached_alice(server: &RestartableServer) -> (ResumableClient, ResumableClient) {
    let mut bob = server.join("bob", &["peer_state"]).await;
    let mut alice = server.join("alice", RESUME).await;
    bob.receive_type("user_joined").await;
    alice.drop_connection().await;
    assert_eq!(bob.receive_peer_state().await, ("alice".into(), "reconnecting".into()));
    (bob, alice)
}

#[tokio::test]
async fn a_wall_clock_that_skips_a_day_does_not_shorten_the_resume_window() {
    let clocked = ClockedServer::start("60").await;
    let server = &clocked.0;

    for jump in [DAY, -DAY] {
        let (mut bob, mut alice) = bob_and_detached_alice(server).await;

        clocked.move_clock(jump);
        bob.send(json!({"type":"message","data":"the clock has jumped"})).await;
        alice.resume(server.address()).await;

        assert_eq!(alice.receive_data().await, "the clock has jumped");
        assert_eq!(bob.receive_peer_state().await, ("alice".into(), "connected".into()));
        bob.assert_no_more_messages().await;
        clocked.move_clock(0);
        alice.client.leave().await;
        bob.client.leave().await;
    }
}

/// A window of a second that a day is added to does not end while the test waits.
#[tokio::test]
async fn a_wall_clock_that_repeats_a_day_does_not_lengthen_the_resume_window() {
    let clocked = ClockedServer::start("1").await;
    let server = &clocked.0;

    for jump in [DAY, -DAY] {
        let (mut bob, mut alice) = bob_and_detached_alice(server).await;

        clocked.move_clock(jump);

        assert_eq!(bob.receive_type("user_left").await["client_id"], "alice");
        alice.assert_resume_fails(server.address()).await;
        clocked.move_clock(0);
        bob.assert_no_more_messages().await;
        bob.client.leave().await;
    }
}

/// Two hours between the clocks of client and server, either way. The server says how long a token is valid, and that counts
/// from its receipt: nobody logs in or refreshes again and again, and each token is renewed in time.
#[tokio::test]
async fn a_client_whose_clock_is_hours_off_logs_in_once() {
    for offset in [2 * 3600, -2 * 3600] {
        let clocked = ClockedServer::start("60").await;
        clocked.move_clock(offset);
        let url = format!("http://{}", clocked.0.address());
        let (session, mut events) =
            connect(Options::new(&*url, ROOM).login("alice", PASSWORD)).await.unwrap();

        session.send("warming up", None).unwrap();
        let more = tokio::time::timeout(Duration::from_secs(3), async {
            while let Some(event) = events.next().await {
                assert!(!matches!(event, Event::Error(_) | Event::State(_)), "{offset}: {event:?}");
            }
        });
        assert!(more.await.is_err(), "{offset}: the session has ended");
        session.close().await;

        assert_eq!(clocked.0.process.log.count("\"logged in\""), 1, "{offset}");
    }
}

/// Between two processes there is only the wall clock, which may be wrong.
#[tokio::test]
async fn a_wall_clock_that_goes_back_a_day_between_two_processes_loses_no_member() {
    let mut clocked = ClockedServer::start("60").await;
    let server = &mut clocked.0;
    let mut alice = server.join("alice", RESUME).await;
    let mut bob = server.join("bob", RESUME).await;
    alice.receive_type("user_joined").await;

    tokio::join!(server.stop(), alice.receive_until_closed(), bob.receive_until_closed());
    clocked.move_clock(-DAY);
    let server = &mut clocked.0;
    server.restart().await;

    let resumed = alice.resume(server.address()).await;
    assert_eq!(client_ids(&resumed), ["bob"]);
    bob.resume(server.address()).await;
}

/// The window of a second has a day added where the wall clock alone counts.
#[tokio::test]
async fn a_wall_clock_that_goes_back_a_day_between_two_processes_does_not_lengthen_the_window() {
    let mut clocked = ClockedServer::start("1").await;
    let server = &mut clocked.0;
    let mut bob = server.join("bob", RESUME).await;

    tokio::join!(server.stop(), bob.receive_until_closed());
    clocked.move_clock(-DAY);
    let server = &mut clocked.0;
    server.restart().await;

    // Where the window has not ended before alice joins, she receives its end.
    let token = server.token("alice").await;
    let (mut alice, peers) =
        ResumableClient::join_and_list(server.address(), "den", "alice", &token, &[]).await;
    if peers == ["bob"] {
        assert_eq!(alice.receive_type("user_left").await["client_id"], "bob");
    }
    alice.assert_no_more_messages().await;
    bob.assert_resume_fails(server.address()).await;
}
