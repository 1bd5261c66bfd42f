//! What has happened in a room, in a bounded ring: who came and went, who said what kind of thing to whom, and what
//! became of it. Never what was said, nor from which address. Pure: `now` is an argument.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::Peer;
use crate::wire::{CallOutcome, MediaPath, SignalKind};

/// What is kept of one room: the setting-up of a mesh of eight.
const MOST_EVENTS: usize = 512;

/// Peers that are remembered beside those that an event names.
const MOST_PEERS: usize = 1024;

/// Stands for a peer; 0 for none.
pub(super) type Mark = u32;

/// What has happened in one room.
pub(super) struct Timeline {
    began: Instant,
    events: VecDeque<(u64, What)>,
    /// How many came before those.
    dropped: u64,
    /// By mark, which only grows.
    peers: Vec<(Mark, Peer)>,
    last_mark: Mark,
}

/// One thing that happened. The words are our own.
#[derive(Clone, Copy)]
pub(super) enum What {
    Opened,
    Closed,
    Joined {
        who: Mark,
    },
    Left {
        who: Mark,
        why: &'static str,
    },
    Away {
        who: Mark,
    },
    Resumed {
        who: Mark,
        replayed: u32,
    },
    /// Its seat has gone to another server, or has come from one, or from the process before.
    Moved {
        who: Mark,
    },
    Arrived {
        who: Mark,
    },
    /// `to` is everyone else where it is 0, or, by the `outcome`, somebody who is not here.
    Said {
        kind: SignalKind,
        bytes: u32,
        from: Mark,
        to: Mark,
        outcome: &'static str,
    },
    Refused {
        who: Mark,
        why: &'static str,
    },
    Reported {
        who: Mark,
        peer: Mark,
        outcome: CallOutcome,
        path: Option<MediaPath>,
        ms: u32,
    },
    Moderated {
        act: &'static str,
        who: Mark,
    },
}

/// A room's past, as it is shown.
#[derive(Debug, Serialize)]
pub struct Story {
    /// Which room.
    pub room_id: Arc<str>,
    /// Whether somebody is in it.
    pub is_open: bool,
    /// Events that are no longer kept.
    pub dropped: u64,
    /// The oldest first.
    pub events: Vec<Event>,
}

/// One thing that happened, as it is shown; what does not apply is left out.
#[derive(Debug, Default, Serialize)]
pub struct Event {
    /// Counts from 1 for as long as the room's past is kept.
    pub seq: u64,
    /// In milliseconds since the Unix epoch.
    pub at: u64,
    /// `opened`, `closed`, `joined`, `left`, `away`, `resumed`, `moved`, `arrived`, `refused`, `call_report`, `moderated`, or the type of a
    /// message: `offer`, `answer`, `ice_candidate`, `message`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whose doing it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Arc<str>>,
    /// The same one's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<Arc<str>>,
    /// Whom a message named, or which peer a call was with. A message without it went to everyone else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Arc<str>>,
    /// How long a message's payload was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// What became of it: `sent`, `queued`, the code of the error that it was answered with, the word for why somebody
    /// left or was refused, what a moderator did, or how a call ended up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// By which way a call went: `host`, `srflx`, `relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// How long a call took to be set up, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u32>,
    /// How many frames somebody got that had missed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u32>,
}

impl Timeline {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, events: VecDeque::new(), dropped: 0, peers: Vec::new(), last_mark: 0 }
    }

    pub(super) fn note(&mut self, now: Instant, what: What) {
        let at = now.saturating_duration_since(self.began).as_millis();
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back((u64::try_from(at).unwrap_or(u64::MAX), what));
    }

    /// Remembers a peer that has come, or knocks. `is_there` says which marks those have that must not be forgotten.
    pub(super) fn mark(&mut self, peer: &Peer, is_there: impl Fn(Mark) -> bool) -> Mark {
        let known = self.peers.iter().rev().find(|(_, known)| known == peer);
        if let Some((mark, _)) = known {
            return *mark;
        }
        if self.peers.len() >= MOST_PEERS {
            let mut named: Vec<Mark> =
                self.events.iter().flat_map(|(_, what)| what.marks()).collect();
            named.sort_unstable();
            self.peers.retain(|(mark, _)| named.binary_search(mark).is_ok() || is_there(*mark));
        }
        self.last_mark += 1;
        self.peers.push((self.last_mark, peer.clone()));
        self.last_mark
    }

    /// All of it. `now` is the time of both clocks, the second in milliseconds since the Unix epoch.
    pub(super) fn story(&self, room_id: &Arc<str>, is_open: bool, now: (Instant, u64)) -> Story {
        let (now, unix) = now;
        let age = Duration::as_millis(&now.saturating_duration_since(self.began));
        let began = unix.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let events = self.events.iter().zip(self.dropped + 1..);
        let events = events.map(|((at, what), seq)| {
            let event = Event { seq, at: began + at, ..self.shown(what) };
            Event { kind: what.word(), ..event }
        });
        Story { room_id: room_id.clone(), is_open, dropped: self.dropped, events: events.collect() }
    }

    fn shown(&self, what: &What) -> Event {
        let event = |who: Mark| {
            let peer = self.peer(who);
            let client_id = peer.map(|peer| peer.client_id.clone());
            Event {
                client_id,
                username: peer.map(|peer| peer.username.clone()),
                ..Event::default()
            }
        };
        let to = |mark: Mark| self.peer(mark).map(|peer| peer.client_id.clone());
        match *what {
            What::Opened | What::Closed => Event::default(),
            What::Joined { who }
            | What::Away { who }
            | What::Moved { who }
            | What::Arrived { who } => event(who),
            What::Left { who, why } | What::Refused { who, why } => {
                Event { outcome: Some(why), ..event(who) }
            }
            What::Resumed { who, replayed } => Event { replayed: Some(replayed), ..event(who) },
            What::Said { bytes, from, to: peer, outcome, .. } => {
                Event { to: to(peer), bytes: Some(bytes), outcome: Some(outcome), ..event(from) }
            }
            What::Reported { who, peer, outcome, path, ms } => Event {
                to: to(peer),
                outcome: Some(outcome.word()),
                path: path.map(MediaPath::word),
                ms: Some(ms),
                ..event(who)
            },
            What::Moderated { act, who } => Event { outcome: Some(act), ..event(who) },
        }
    }

    fn peer(&self, mark: Mark) -> Option<&Peer> {
        let place = self.peers.binary_search_by_key(&mark, |(mark, _)| *mark).ok()?;
        self.peers.get(place).map(|(_, peer)| peer)
    }
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Away { .. } => "away",
            Self::Resumed { .. } => "resumed",
            Self::Moved { .. } => "moved",
            Self::Arrived { .. } => "arrived",
            Self::Said { kind, .. } => kind.word(),
            Self::Refused { .. } => "refused",
            Self::Reported { .. } => "call_report",
            Self::Moderated { .. } => "moderated",
        }
    }

    fn marks(self) -> [Mark; 2] {
        match self {
            Self::Opened | Self::Closed => [0, 0],
            Self::Joined { who }
            | Self::Left { who, .. }
            | Self::Away { who }
            | Self::Resumed { who, .. }
            | Self::Moved { who }
            | Self::Arrived { who }
            | Self::Refused { who, .. }
            | Self::Moderated { who, .. } => [who, 0],
            Self::Said { from, to, .. } => [from, to],
            Self::Reported { who, peer, .. } => [who, peer],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> Peer {
        Peer { client_id: format!("c{number}").into(), username: "alice".into() }
    }

    fn offer(from: Mark, to: Mark) -> What {
        What::Said { kind: SignalKind::Offer, bytes: 7, from, to, outcome: "sent" }
    }

    #[test]
    fn an_event_says_who_when_and_what_became_of_it() {
        let began = Instant::now();
        let mut timeline = Timeline::new(began);
        let [one, two] = [1, 2].map(|number| timeline.mark(&peer(number), |_| true));
        timeline.note(began, What::Opened);
        timeline.note(began, What::Joined { who: one });
        timeline.note(began, What::Joined { who: two });
        timeline.note(began + Duration::from_millis(40), offer(two, one));
        timeline.note(began + Duration::from_secs(1), What::Left { who: two, why: "gone" });

        let later = (began + Duration::from_secs(10), 1_700_000_010_000);
        let story = serde_json::to_value(timeline.story(&"den".into(), true, later)).unwrap();

        let events = story["events"].as_array().unwrap();
        assert_eq!(
            (&events[3], &events[4]),
            (
                &serde_json::json!({"seq":4,"at":1_700_000_000_040_u64,"type":"offer","client_id":"c2","username":"alice","to":"c1","bytes":7,"outcome":"sent"}),
                &serde_json::json!({"seq":5,"at":1_700_000_001_000_u64,"type":"left","client_id":"c2","username":"alice","outcome":"gone"}),
            )
        );
    }

    #[test]
    fn a_room_that_lives_for_years_keeps_no_more_than_its_last_events() {
        let now = Instant::now();
        let mut timeline = Timeline::new(now);
        let stays = timeline.mark(&peer(0), |_| false);
        for number in 1..=5_000 {
            let who = timeline.mark(&peer(number), |mark| mark == stays);
            timeline.note(now, What::Joined { who });
            timeline.note(now, offer(stays, who));
            timeline.note(now, What::Left { who, why: "left" });
        }

        let story = timeline.story(&"den".into(), true, (now, 1));

        assert!(timeline.peers.len() <= MOST_PEERS);
        assert_eq!((story.events.len(), story.dropped), (MOST_EVENTS, 15_000 - 512));
        assert_eq!(story.events.last().unwrap().seq, 15_000);
        assert!(
            story.events.iter().all(|event| event.client_id.is_some()),
            "somebody is forgotten"
        );
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<(u64, What)>() <= 48, "{}", size_of::<(u64, What)>());
    }
}
