//! Networks that break, and clients that come back through them.

use std::{iter, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::harness::{
    process::RestartableServer,
    proxy::{FaultyProxy, LinkState},
    resumable::{RESUME, RESUME_AND_STATES, ResumableClient, of_type},
};

/// For sockets that must be noticed to be dead.
const IMPATIENT: [(&str, &str); 2] = [("WEBSOCKET_TIMEOUT", "2"), ("RESUME_WINDOW_SECONDS", "2")];

/// Alice, whose network may break, and bob, whose does not.
async fn pair(
    server: &RestartableServer,
    features: &[&str],
) -> (FaultyProxy, ResumableClient, ResumableClient) {
    let network = FaultyProxy::before(server.address()).await;
    let mut alice = server.join_through(network.address, "alice", RESUME).await;
    let bob = server.join("bob", features).await;
    alice.receive_type("user_joined").await;
    (network, alice, bob)
}

fn replayed(answer: &Value) -> u64 {
    answer["replayed"].as_u64().unwrap()
}

/// Alice hears as many numbers from bob as there are, each once and in order, while her network breaks
/// again and again; she comes back each time, and bob notices nothing.
async fn is_told_everything(numbers: u64, cuts: impl IntoIterator<Item = LinkState>) {
    let server = RestartableServer::start(&[]).await;
    let (network, mut alice, mut bob) = pair(&server, &[]).await;
    let (heard, progress) = watch::channel(0);
    let mut cuts = cuts.into_iter().collect::<Vec<_>>();
    let between = numbers / (cuts.len() as u64 + 1);

    let speaking = async {
        for number in 0..numbers {
            // Far less is on its way than the server keeps for her.
            progress.clone().wait_for(|heard| number < heard + 500).await.unwrap();
            bob.send(json!({"type":"message","data":number,"to":"alice"})).await;
        }
    };
    let listening = async {
        let (mut next, mut missed) = (0, 0);
        while next < numbers {
            match alice.try_receive().await {
                Some(message) => {
                    assert_eq!(
                        (&message["type"], &message["data"]),
                        (&json!("message"), &json!(next))
                    );
                    next += 1;
                    heard.send_replace(next);
                    if next.is_multiple_of(between)
                        && let Some(cut) = cuts.pop()
                    {
                        network.set_open(cut);
                        if cut == LinkState::Silent {
                            missed += replayed(&alice.resume(network.address).await);
                        }
                    }
                }
                None => missed += replayed(&alice.resume(network.address).await),
            }
        }
        assert!(cuts.is_empty() && missed > 0, "nothing was lost on the way");
    };
    tokio::join!(speaking, listening);

    // The last cut may have come after the last number.
    alice.resume(server.address()).await;
    alice.assert_no_more_messages().await;
    bob.assert_no_more_messages().await;
}

/// Frames lost: 0.
#[tokio::test]
async fn a_reset_connection_loses_no_message() {
    is_told_everything(1000, [LinkState::Reset]).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_frame_loses_no_message() {
    is_told_everything(1000, [LinkState::Truncated]).await;
}

#[tokio::test]
async fn twenty_one_cuts_of_all_kinds_lose_no_message() {
    let kinds = [LinkState::Reset, LinkState::Truncated, LinkState::Silent];
    is_told_everything(6000, iter::repeat_n(kinds, 7).flatten()).await;
}

#[tokio::test]
async fn a_slow_network_loses_no_message() {
    let server = RestartableServer::start(&[]).await;
    let (network, mut alice, mut bob) = pair(&server, &[]).await;
    let delay = Duration::from_millis(300);
    network.set_open(LinkState::Delayed(delay));

    let began = Instant::now();
    for number in 0..100 {
        bob.send(json!({"type":"message","data":number,"to":"alice"})).await;
    }
    for number in 0..100 {
        assert_eq!(alice.receive_data().await, number);
    }

    assert!(began.elapsed() >= delay);
    alice.assert_no_more_messages().await;
    bob.assert_no_more_messages().await;
}

/// There is no acknowledgement for senders: after each return alice says her last 256 messages again.
#[tokio::test]
async fn messages_that_are_repeated_after_a_resume_arrive_once() {
    const ROUNDS: u64 = 20;
    const EACH: u64 = 100;
    let server = RestartableServer::start(&[]).await;
    let (network, mut alice, mut bob) = pair(&server, &[]).await;
    let say = |number: u64| json!({"type":"message","data":number,"to":"bob","id":number});

    let speaking = async {
        for round in 0..ROUNDS {
            let said = round * EACH;
            for number in said.saturating_sub(256)..said + EACH / 2 {
                alice.send(say(number)).await;
            }
            alice.assert_no_more_messages().await;
            for number in said + EACH / 2..said + EACH {
                if number == said + EACH * 3 / 4 {
                    network.set_open(if round % 2 == 0 {
                        LinkState::Truncated
                    } else {
                        LinkState::Reset
                    });
                }
                alice.try_send(say(number)).await;
            }
            alice.resume(network.address).await;
        }
        for number in (ROUNDS - 1) * EACH..ROUNDS * EACH {
            alice.send(say(number)).await;
        }
    };
    let listening = async {
        for number in 0..ROUNDS * EACH {
            assert_eq!(bob.receive_data().await, number);
        }
    };
    tokio::join!(speaking, listening);

    alice.assert_no_more_messages().await;
    bob.assert_no_more_messages().await;
}

/// "Not passed on a second time": what was refused was not passed on the first time.
#[tokio::test]
async fn a_rejected_message_may_be_sent_again_after_a_resume() {
    let server = RestartableServer::start(&[]).await;
    let mut alice = server.join("alice", RESUME).await;
    let offer = json!({"type":"offer","offer":{},"to":"bob","id":1});
    alice.send(offer.clone()).await;
    assert_eq!(alice.receive_type("error").await["code"], "target_not_found");
    let mut bob = server.join("bob", &[]).await;

    alice.resume(server.address()).await;
    alice.receive_type("user_joined").await;
    alice.send(offer).await;

    alice.assert_no_more_messages().await;
    let heard = bob.receive_pending().await;
    assert_eq!(heard.iter().filter(|it| it["type"] == "offer").count(), 1, "{heard:?}");
}

/// `WEBSOCKET_TIMEOUT` and `RESUME_WINDOW_SECONDS` are two seconds each.
#[tokio::test]
async fn peers_of_a_dead_connection_receive_reconnecting_at_the_timeout_and_user_left_after_the_window()
 {
    let server = RestartableServer::start(&IMPATIENT).await;
    let (network, mut alice, mut bob) = pair(&server, &["peer_state"]).await;
    let mut dave = server.join_through(network.address, "dave", &[]).await;
    bob.receive_type("user_joined").await;
    alice.receive_type("user_joined").await;
    alice.assert_no_more_messages().await;
    dave.assert_no_more_messages().await;

    let began = Instant::now();
    network.set_open(LinkState::Silent);
    let at_time_out = [bob.receive().await, bob.receive().await];
    let noticed = began.elapsed();
    let at_the_end = bob.receive_type("user_left").await;
    let given_up = began.elapsed();

    let states = of_type(&at_time_out, "peer_state", "state");
    let gone = of_type(&at_time_out, "user_left", "client_id");
    assert_eq!((states, gone), (vec![json!("reconnecting")], vec![json!("dave")]));
    assert_eq!(at_the_end["client_id"], "alice");
    assert!(noticed >= Duration::from_secs(1), "before the time-out: {noticed:?}");
    assert!(given_up >= Duration::from_secs(3), "before the window's end: {given_up:?}");
    bob.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_resume_before_the_timeout_is_not_announced() {
    let server = RestartableServer::start(&[]).await;
    let (network, mut old, mut bob) = pair(&server, RESUME_AND_STATES).await;
    network.set_open(LinkState::Silent);
    bob.send(json!({"type":"message","data":"into the void"})).await;
    bob.assert_no_more_messages().await;

    let (mut alice, answer) = old.try_resume(server.address()).await;

    assert_eq!((&answer["type"], &answer["replayed"]), (&json!("resumed"), &json!(1)));
    assert_eq!(alice.receive_data().await, "into the void");
    bob.send(json!({"type":"message","data":"welcome back"})).await;
    assert_eq!(alice.receive_data().await, "welcome back");
    alice.send(json!({"type":"message","data":"thanks"})).await;
    assert_eq!(bob.receive_data().await, "thanks");
    bob.assert_no_more_messages().await;

    network.set_open(LinkState::Normal);
    let last = old.receive_until_closed().await.pop().unwrap();
    assert_eq!((&last["code"], &last["retry"]), (&json!("replaced"), &json!(false)));
}
