//! Members who have nothing to do with an attack: they exchange numbered messages all the while.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::harness::{Client, TEST_TIMEOUT};

/// Where the case happens, and where it is not to be noticed at all.
pub const ROOMS: [&str; 2] = ["den", "attic"];
/// A pair in each room; their client ids are the room and the name, like "den-alice".
pub const PAIR: [&str; 2] = ["alice", "bob"];
/// How many bystanders there are.
pub const MEMBERS: usize = ROOMS.len() * PAIR.len();
/// They come through a trusted proxy, from an address of their own.
pub const HERE: [(&str, &str); 2] =
    [("x-forwarded-for", "203.0.113.77"), ("x-forwarded-proto", "https")];

pub struct Bystanders {
    tasks: Vec<JoinHandle<Result<(Client, usize), String>>>,
    heard: Vec<Arc<AtomicU64>>,
    enough: CancellationToken,
}

impl Bystanders {
    /// Seats them; each sends at most `per_second` messages a second, and no more than 30.
    pub async fn join(
        address: SocketAddr,
        token: impl Fn(&str) -> String,
        per_second: u32,
        may_receive: &'static [&'static str],
    ) -> Self {
        let pace = Duration::from_millis(33).max(Duration::from_millis(1500) / per_second);
        let enough = CancellationToken::new();
        let mut bystanders = Self { tasks: Vec::new(), heard: Vec::new(), enough };
        for room in ROOMS {
            let mut clients = Vec::new();
            for name in PAIR {
                let mut client = Client::connect(address, room, &HERE).await.unwrap();
                client.authenticate(name, &token(name), json!(format!("{room}-{name}"))).await;
                clients.push(client);
            }
            assert_eq!(clients[0].receive().await["type"], "user_joined");
            let peers = [clients[1].id.clone(), clients[0].id.clone()];
            for (client, peer) in clients.into_iter().zip(peers) {
                let heard = Arc::new(AtomicU64::new(0));
                let bystander = Bystander {
                    is_in_den: room == ROOMS[0],
                    may_receive,
                    client,
                    peer,
                    heard: heard.clone(),
                    visitors: HashMap::new(),
                    visits: 0,
                };
                let enough = bystanders.enough.clone();
                bystanders.tasks.push(tokio::spawn(bystander.run(pace, enough)));
                bystanders.heard.push(heard);
            }
        }
        bystanders.receive_more().await;
        bystanders
    }

    /// Waits until each of them has heard two more messages of the other.
    pub async fn receive_more(&mut self) {
        let goals = self.heard.iter().map(|heard| heard.load(Ordering::Relaxed) + 2);
        let goals: Vec<_> = goals.collect();
        for ((heard, goal), task) in self.heard.iter().zip(goals).zip(&mut self.tasks) {
            let mut pause = interval(Duration::from_millis(5));
            let more = async {
                while heard.load(Ordering::Relaxed) < goal {
                    pause.tick().await;
                }
            };
            tokio::select! {
                more = timeout(TEST_TIMEOUT, more) => more.expect("a bystander hears nothing"),
                ended = task => panic!("a bystander: {}", ended.unwrap().err().unwrap()),
            }
        }
    }

    /// Ends the conversations; returns the members and how many visitors have come and gone in "den".
    pub async fn finish(self) -> (Vec<Client>, usize) {
        self.enough.cancel();
        let (mut clients, mut visits) = (Vec::new(), Vec::new());
        for task in self.tasks {
            let ended =
                timeout(TEST_TIMEOUT, task).await.expect("a bystander's last message is lost");
            let (client, seen) =
                ended.unwrap().unwrap_or_else(|fault| panic!("a bystander: {fault}"));
            clients.push(client);
            visits.push(seen);
        }
        assert_eq!(visits[0], visits[1], "both in the room have seen the same");
        (clients, visits[0])
    }
}

struct Bystander {
    is_in_den: bool,
    may_receive: &'static [&'static str],
    client: Client,
    peer: String,
    heard: Arc<AtomicU64>,
    /// Who is in the room besides the pair.
    visitors: HashMap<String, String>,
    visits: usize,
}

impl Bystander {
    /// Says a number at every turn of the clock, and one last when it is `enough`; ends when the other
    /// has said his last.
    async fn run(
        mut self,
        pace: Duration,
        enough: CancellationToken,
    ) -> Result<(Client, usize), String> {
        let mut pace = interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut number, mut spoken) = (0, false);
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                _ = pace.tick(), if !spoken => {
                    if heard_at.elapsed() > TEST_TIMEOUT {
                        return Err(format!("{} hears nothing any more", self.client.id));
                    }
                    spoken = enough.is_cancelled();
                    let data = json!({"number": number, "last": spoken});
                    number += 1;
                    self.client.send(json!({"type":"message","data":data,"to":self.peer})).await;
                }
                frame = self.client.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        let news: Value = serde_json::from_str(&text).unwrap();
                        let of_peer = news["from"] == self.peer;
                        if !of_peer {
                            self.check_other(&news)?;
                            continue;
                        }
                        heard_at = Instant::now();
                        let expected = self.heard.fetch_add(1, Ordering::Relaxed);
                        if news["type"] != "message" || news["data"]["number"] != expected {
                            return Err(self.surprised(&news, &format!("not number {expected}")));
                        }
                        if news["data"]["last"] == true {
                            break;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return Err(format!("{} is put out: {other:?}", self.client.id)),
                },
            }
        }
        if !spoken {
            let data = json!({"number": number, "last": true});
            self.client.send(json!({"type":"message","data":data,"to":self.peer})).await;
        }
        match self.visitors.is_empty() {
            true => Ok((self.client, self.visits)),
            false => {
                Err(format!("nobody has told {} that {:?} left", self.client.id, self.visitors))
            }
        }
    }

    /// Only those in "den" may hear of others: that they come and go, and what the case may say.
    fn check_other(&mut self, news: &Value) -> Result<(), String> {
        if !self.is_in_den {
            return Err(self.surprised(news, "in another room"));
        }
        let text = |field: &str| news[field].as_str().unwrap_or_default().to_owned();
        let (id, username) = (text("client_id"), text("username"));
        let adds_up = match text("type").as_str() {
            "user_joined" => self.visitors.insert(id, username).is_none() && self.counts(news),
            "user_left" => {
                self.visits += 1;
                self.visitors.remove(&id) == Some(username) && self.counts(news)
            }
            said if self.may_receive.contains(&said) => {
                self.visitors.get(&text("from")) == Some(&username)
            }
            _ => false,
        };
        if adds_up { Ok(()) } else { Err(self.surprised(news, "does not add up")) }
    }

    fn counts(&self, news: &Value) -> bool {
        news["connected_users"] == PAIR.len() + self.visitors.len() && news["room_id"] == ROOMS[0]
    }

    fn surprised(&self, news: &Value, why: &str) -> String {
        let news: String = news.to_string().chars().take(500).collect();
        format!("{} hears {news}: {why}", self.client.id)
    }
}
