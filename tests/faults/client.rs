//! Members that come back by themselves: the Rust client, in everything a network and a server do.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use serde_json::Value;
use signaling_client::{Change, Event, Events, Options, Session, State, connect};
use tokio::{sync::watch, time::timeout};

use crate::harness::process::ROOM;
use crate::harness::{
    PASSWORD, TEST_TIMEOUT,
    process::RestartableServer,
    proxy::{FaultyProxy, LinkState},
};

pub const MEMBERS: usize = 6;
/// What each of them says to all the others.
pub const NUMBERS: usize = 300;
/// How many more somebody says than the slowest has heard of it: fewer than are kept for saying again.
const AHEAD: usize = 30;

/// What somebody has heard, and how it went.
#[derive(Debug, Default)]
pub struct Story {
    /// The next number from each.
    next: [usize; MEMBERS],
    pub resumed: usize,
}

/// Listens until all numbers of all others are heard: each once, in order.
async fn listens(mut events: Events, own: usize, heard: &watch::Sender<[usize; MEMBERS]>) -> Story {
    let mut story = Story::default();
    while (0..MEMBERS).any(|from| from != own && story.next[from] < NUMBERS) {
        let event = timeout(TEST_TIMEOUT, events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{own} hears nothing more: {story:?}"));
        match event.expect("the session is over") {
            Event::Message { from, data, .. } => {
                let from: usize = from.parse().unwrap();
                assert_eq!(data, Value::from(story.next[from]), "{own} hears {from}");
                story.next[from] += 1;
                heard.send_replace(story.next);
            }
            Event::State(Change { state: State::Connected, is_resumed, .. }) => {
                assert!(is_resumed, "{own} had to sit down anew");
                story.resumed += 1;
            }
            Event::PeerLeft { peer, .. } => panic!("{own} hears that {peer:?} has left"),
            Event::Error(error) => panic!("{own}: {error}"),
            _ => {}
        }
    }
    story
}

async fn speaks(session: Session, own: usize, all: Vec<watch::Receiver<[usize; MEMBERS]>>) {
    for number in 0..NUMBERS {
        for (_, mut heard) in all.iter().cloned().enumerate().filter(|(other, _)| *other != own) {
            heard.wait_for(|next| number < next[own] + AHEAD).await.unwrap();
        }
        session.send(number, None).unwrap();
    }
}

/// Six enter a room, each by its own address, and say their numbers to all; `weather` happens meanwhile, and sees
/// how far the last of them has heard.
pub async fn talk<W>(
    addresses: [SocketAddr; MEMBERS],
    weather: impl FnOnce(watch::Receiver<[usize; MEMBERS]>) -> W,
) -> (Vec<Story>, Vec<Session>)
where
    W: Future<Output = ()>,
{
    let (mut sessions, mut all_events) = (Vec::new(), Vec::new());
    for (own, address) in addresses.into_iter().enumerate() {
        let options = Options::new(format!("http://{address}"), ROOM);
        let options = options.login("alice", PASSWORD).client_id(own.to_string());
        let entered = timeout(TEST_TIMEOUT, connect(options)).await.expect("connection rejected");
        let (session, events) = entered.unwrap();
        sessions.push(session);
        all_events.push(events);
    }

    let heard: Vec<_> = (0..MEMBERS).map(|_| watch::Sender::new([0; MEMBERS])).collect();
    let progress: Vec<_> = heard.iter().map(watch::Sender::subscribe).collect();
    let speaking = sessions.iter().enumerate();
    let speaking = speaking.map(|(own, session)| speaks(session.clone(), own, progress.clone()));
    let listening = all_events.into_iter().enumerate();
    let listening = listening.map(|(own, events)| listens(events, own, &heard[own]));
    let weather = weather(progress[MEMBERS - 1].clone());
    let (stories, ..) = tokio::join!(join_all(listening), join_all(speaking), weather);
    (stories, sessions)
}

/// Six in a room hear every number of every other, each once and in order, while the network is cut
/// and the server restarts under them. None of them does anything for it.
#[tokio::test]
async fn clients_neither_lose_nor_repeat_messages_through_cuts_and_a_restart() {
    let mut server = RestartableServer::start(&[]).await;
    let network = FaultyProxy::before(server.address()).await;
    // Some are where nothing is cut.
    let addresses =
        [0, 1, 2, 3, 4, 5].map(|own| if own % 3 == 0 { server.address() } else { network.address });

    let (stories, _sessions) = talk(addresses, async |mut heard_by_last| {
        let kinds =
            [LinkState::Reset, LinkState::Truncated, LinkState::Delayed(Duration::from_millis(2))];
        for (step, kind) in kinds.into_iter().cycle().take(12).enumerate() {
            let so_far = NUMBERS * (step + 1) / 14;
            heard_by_last.wait_for(|next| next[0] >= so_far).await.unwrap();
            network.set_open(kind);
            if step == 6 {
                assert_eq!(server.stop().await, [] as [&str; 0]);
                server.restart().await;
            }
        }
    })
    .await;

    for (own, story) in stories.iter().enumerate() {
        let times = if own % 3 == 0 { 1 } else { 3 };
        assert!(story.resumed >= times, "{own}: {story:?}");
    }
    assert_eq!(server.health().await["active_connections"], MEMBERS);
}
