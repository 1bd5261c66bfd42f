//! The timeline of one room: its latest events, and the peers that they name.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{PeerRef, TimelineEntry, TimelineEvent, TimelineView};
use crate::{
    memory::{Charge, MemoryKind, reserve_for_next},
    peer::Peer,
};

/// Events that are kept of one room: as many as the set-up of a mesh of eight takes.
pub(super) const MAX_EVENTS: usize = 512;

/// Peers that are remembered beside those that an event names.
pub(super) const MAX_PEERS: usize = 1024;

/// What the names of a peer take: they are counted references.
fn name_bytes(Peer { client_id, username, name }: &Peer) -> usize {
    const COUNTS: usize = 16;
    let counted = |name: &Arc<str>| COUNTS + name.len();
    counted(client_id) + counted(username) + name.as_ref().map_or(0, counted)
}

/// What has happened in one room.
#[repr(C)] // what each event touches first
pub struct Timeline {
    began: Instant,
    /// Each with its time, in milliseconds since `began`.
    events: VecDeque<(u64, TimelineEntry)>,
    /// How many came before those.
    dropped: u64,
    /// By reference, which only grows.
    peers: Vec<(PeerRef, Peer)>,
    /// The bytes of the names of those.
    name_bytes: usize,
    last_ref: PeerRef,
    charge: Charge,
}

impl Timeline {
    /// An empty one that begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            events: VecDeque::new(),
            dropped: 0,
            peers: Vec::new(),
            name_bytes: 0,
            last_ref: 0,
            charge: Charge::uncounted(MemoryKind::Timelines),
        }
    }

    /// From now on what it holds counts as `charge`.
    #[must_use]
    pub fn with_charge(mut self, charge: Charge) -> Self {
        self.charge = charge;
        self.update_charge();
        self
    }

    fn update_charge(&mut self) {
        let events = self.events.capacity() * size_of::<(u64, TimelineEntry)>();
        let peers = self.peers.capacity() * size_of::<(PeerRef, Peer)>();
        let _ = self.charge.set(size_of::<Self>() + events + peers + self.name_bytes);
    }

    /// Adds an event; the oldest goes where there are too many.
    pub fn record(&mut self, now: Instant, entry: TimelineEntry) {
        let at = now.saturating_duration_since(self.began).as_millis();
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped += 1;
        }
        let capacity = self.events.capacity();
        self.events.push_back((u64::try_from(at).unwrap_or(u64::MAX), entry));
        if self.events.capacity() != capacity {
            self.update_charge();
        }
    }

    /// The reference of a peer, which is remembered from now on. `is_present` says of which references the peer is in the
    /// room: those are not forgotten.
    pub fn peer_ref(&mut self, peer: &Peer, is_present: impl Fn(PeerRef) -> bool) -> PeerRef {
        let known = self.peers.iter().rev().find(|(_, known)| known == peer);
        if let Some((peer_ref, _)) = known {
            return *peer_ref;
        }
        if self.peers.len() >= MAX_PEERS {
            let mut named: Vec<PeerRef> =
                self.events.iter().flat_map(|(_, entry)| entry.peer_refs()).collect();
            named.sort_unstable();
            self.peers.retain(|(peer_ref, _)| {
                named.binary_search(peer_ref).is_ok() || is_present(*peer_ref)
            });
            self.name_bytes = self.peers.iter().map(|(_, peer)| name_bytes(peer)).sum();
        }
        self.last_ref += 1;
        reserve_for_next(&mut self.peers);
        self.peers.push((self.last_ref, peer.clone()));
        self.name_bytes += name_bytes(peer);
        self.update_charge();
        self.last_ref
    }

    /// All of it. `now` is the time of both clocks, the second in milliseconds since the Unix epoch.
    pub fn view(&self, room_id: &Arc<str>, is_open: bool, now: (Instant, u64)) -> TimelineView {
        let (now, unix) = now;
        let age = Duration::as_millis(&now.saturating_duration_since(self.began));
        let began = unix.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let events = self.events.iter().zip(self.dropped + 1..);
        let events = events.map(|((at, entry), seq)| {
            TimelineEvent::new(seq, began + at, entry, |peer_ref| self.peer(peer_ref))
        });
        TimelineView {
            room_id: room_id.clone(),
            is_open,
            dropped: self.dropped,
            events: events.collect(),
        }
    }

    fn peer(&self, peer_ref: PeerRef) -> Option<&Peer> {
        let index = self.peers.binary_search_by_key(&peer_ref, |(known, _)| *known).ok()?;
        self.peers.get(index).map(|(_, peer)| peer)
    }

    /// How many peers are remembered.
    #[cfg(test)]
    pub(super) fn known_peers(&self) -> usize {
        self.peers.len()
    }
}
