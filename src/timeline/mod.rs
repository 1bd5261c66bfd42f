//! What has happened in a room, in a bounded ring: who came and went, who said what kind of thing to whom, and what
//! became of it. Never what was said, nor from which address. Pure: `now` is an argument.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    rooms::Peer,
    wire::{CallOutcome, MediaPath, SignalKind},
};

/// What is kept of one room: the setting-up of a mesh of eight.
const MAX_EVENTS: usize = 512;

/// Peers that are remembered beside those that an event names.
const MAX_PEERS: usize = 1024;

/// Stands for a peer; 0 for none.
pub(crate) type PeerRef = u32;

/// What has happened in one room.
pub(crate) struct Timeline {
    began: Instant,
    events: VecDeque<(u64, TimelineEntry)>,
    /// How many came before those.
    dropped: u64,
    /// By mark, which only grows.
    peers: Vec<(PeerRef, Peer)>,
    last_mark: PeerRef,
}

/// One thing that happened. The words are our own.
#[derive(Clone, Copy)]
pub(crate) enum TimelineEntry {
    Opened,
    Closed,
    Joined {
        who: PeerRef,
    },
    Left {
        who: PeerRef,
        why: &'static str,
    },
    Away {
        who: PeerRef,
    },
    Resumed {
        who: PeerRef,
        replayed: u32,
    },
    /// Its seat has gone to another server, or has come from one, or from the process before.
    Moved {
        who: PeerRef,
    },
    Arrived {
        who: PeerRef,
    },
    /// `to` is everyone else where it is 0, or, by the `outcome`, somebody who is not here.
    Said {
        kind: SignalKind,
        bytes: u32,
        from: PeerRef,
        to: PeerRef,
        outcome: &'static str,
    },
    Refused {
        who: PeerRef,
        why: &'static str,
    },
    Reported {
        who: PeerRef,
        peer: PeerRef,
        outcome: CallOutcome,
        path: Option<MediaPath>,
        ms: u32,
    },
    Moderated {
        act: &'static str,
        who: PeerRef,
    },
}

/// A room's past, as it is shown.
#[derive(Debug, Serialize)]
pub struct TimelineView {
    /// Which room.
    pub room_id: Arc<str>,
    /// Whether somebody is in it.
    pub is_open: bool,
    /// Events that are no longer kept.
    pub dropped: u64,
    /// The oldest first.
    pub events: Vec<TimelineEvent>,
}

/// One thing that happened, as it is shown; what does not apply is left out.
#[derive(Debug, Default, Serialize)]
pub struct TimelineEvent {
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
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, events: VecDeque::new(), dropped: 0, peers: Vec::new(), last_mark: 0 }
    }

    pub(crate) fn record(&mut self, now: Instant, what: TimelineEntry) {
        let at = now.saturating_duration_since(self.began).as_millis();
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back((u64::try_from(at).unwrap_or(u64::MAX), what));
    }

    /// Remembers a peer that has come, or knocks. `is_there` says which marks those have that must not be forgotten.
    pub(crate) fn peer_ref(&mut self, peer: &Peer, is_there: impl Fn(PeerRef) -> bool) -> PeerRef {
        let known = self.peers.iter().rev().find(|(_, known)| known == peer);
        if let Some((mark, _)) = known {
            return *mark;
        }
        if self.peers.len() >= MAX_PEERS {
            let mut named: Vec<PeerRef> =
                self.events.iter().flat_map(|(_, what)| what.peer_refs()).collect();
            named.sort_unstable();
            self.peers.retain(|(mark, _)| named.binary_search(mark).is_ok() || is_there(*mark));
        }
        self.last_mark += 1;
        self.peers.push((self.last_mark, peer.clone()));
        self.last_mark
    }

    /// All of it. `now` is the time of both clocks, the second in milliseconds since the Unix epoch.
    pub(crate) fn view(
        &self,
        room_id: &Arc<str>,
        is_open: bool,
        now: (Instant, u64),
    ) -> TimelineView {
        let (now, unix) = now;
        let age = Duration::as_millis(&now.saturating_duration_since(self.began));
        let began = unix.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let events = self.events.iter().zip(self.dropped + 1..);
        let events = events.map(|((at, what), seq)| {
            let event = TimelineEvent { seq, at: began + at, ..self.event_of(what) };
            TimelineEvent { kind: what.kind(), ..event }
        });
        TimelineView {
            room_id: room_id.clone(),
            is_open,
            dropped: self.dropped,
            events: events.collect(),
        }
    }

    fn event_of(&self, what: &TimelineEntry) -> TimelineEvent {
        let event = |who: PeerRef| {
            let peer = self.peer(who);
            let client_id = peer.map(|peer| peer.client_id.clone());
            TimelineEvent {
                client_id,
                username: peer.map(|peer| peer.username.clone()),
                ..TimelineEvent::default()
            }
        };
        let to = |mark: PeerRef| self.peer(mark).map(|peer| peer.client_id.clone());
        match *what {
            TimelineEntry::Opened | TimelineEntry::Closed => TimelineEvent::default(),
            TimelineEntry::Joined { who }
            | TimelineEntry::Away { who }
            | TimelineEntry::Moved { who }
            | TimelineEntry::Arrived { who } => event(who),
            TimelineEntry::Left { who, why } | TimelineEntry::Refused { who, why } => {
                TimelineEvent { outcome: Some(why), ..event(who) }
            }
            TimelineEntry::Resumed { who, replayed } => {
                TimelineEvent { replayed: Some(replayed), ..event(who) }
            }
            TimelineEntry::Said { bytes, from, to: peer, outcome, .. } => TimelineEvent {
                to: to(peer),
                bytes: Some(bytes),
                outcome: Some(outcome),
                ..event(from)
            },
            TimelineEntry::Reported { who, peer, outcome, path, ms } => TimelineEvent {
                to: to(peer),
                outcome: Some(outcome.as_str()),
                path: path.map(MediaPath::as_str),
                ms: Some(ms),
                ..event(who)
            },
            TimelineEntry::Moderated { act, who } => {
                TimelineEvent { outcome: Some(act), ..event(who) }
            }
        }
    }

    fn peer(&self, mark: PeerRef) -> Option<&Peer> {
        let place = self.peers.binary_search_by_key(&mark, |(mark, _)| *mark).ok()?;
        self.peers.get(place).map(|(_, peer)| peer)
    }
}

impl TimelineEntry {
    fn kind(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Away { .. } => "away",
            Self::Resumed { .. } => "resumed",
            Self::Moved { .. } => "moved",
            Self::Arrived { .. } => "arrived",
            Self::Said { kind, .. } => kind.as_str(),
            Self::Refused { .. } => "refused",
            Self::Reported { .. } => "call_report",
            Self::Moderated { .. } => "moderated",
        }
    }

    fn peer_refs(self) -> [PeerRef; 2] {
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

    fn offer(from: PeerRef, to: PeerRef) -> TimelineEntry {
        TimelineEntry::Said { kind: SignalKind::Offer, bytes: 7, from, to, outcome: "sent" }
    }

    #[test]
    fn an_event_says_who_when_and_what_became_of_it() {
        let began = Instant::now();
        let mut timeline = Timeline::new(began);
        let [one, two] = [1, 2].map(|number| timeline.peer_ref(&peer(number), |_| true));
        timeline.record(began, TimelineEntry::Opened);
        timeline.record(began, TimelineEntry::Joined { who: one });
        timeline.record(began, TimelineEntry::Joined { who: two });
        timeline.record(began + Duration::from_millis(40), offer(two, one));
        timeline
            .record(began + Duration::from_secs(1), TimelineEntry::Left { who: two, why: "gone" });

        let later = (began + Duration::from_secs(10), 1_700_000_010_000);
        let story = serde_json::to_value(timeline.view(&"den".into(), true, later)).unwrap();

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
        let stays = timeline.peer_ref(&peer(0), |_| false);
        for number in 1..=5_000 {
            let who = timeline.peer_ref(&peer(number), |mark| mark == stays);
            timeline.record(now, TimelineEntry::Joined { who });
            timeline.record(now, offer(stays, who));
            timeline.record(now, TimelineEntry::Left { who, why: "left" });
        }

        let story = timeline.view(&"den".into(), true, (now, 1));

        assert!(timeline.peers.len() <= MAX_PEERS);
        assert_eq!((story.events.len(), story.dropped), (MAX_EVENTS, 15_000 - 512));
        assert_eq!(story.events.last().unwrap().seq, 15_000);
        assert!(
            story.events.iter().all(|event| event.client_id.is_some()),
            "somebody is forgotten"
        );
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<(u64, TimelineEntry)>() <= 48, "{}", size_of::<(u64, TimelineEntry)>());
    }
}
