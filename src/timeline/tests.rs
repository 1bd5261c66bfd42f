//! What a timeline keeps, and how it is shown.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    PeerRef, Timeline, TimelineArchive, TimelineEntry,
    ring::{MAX_EVENTS, MAX_PEERS},
};
use crate::{
    memory::{MemoryBudget, MemoryKind},
    peer::Peer,
    protocol::SignalKind,
};

fn peer(number: usize) -> Peer {
    Peer { client_id: format!("c{number}").into(), username: "alice".into(), name: None }
}

fn offer(from: PeerRef, to: PeerRef) -> TimelineEntry {
    TimelineEntry::Signal { kind: SignalKind::Offer, bytes: 7, from, to, outcome: "sent" }
}

#[test]
fn an_event_names_the_member_the_time_and_the_outcome() {
    let began = Instant::now();
    let mut timeline = Timeline::new(began);
    let [one, two] = [1, 2].map(|number| timeline.peer_ref(&peer(number), |_| true));
    timeline.record(began, TimelineEntry::Opened);
    timeline.record(began, TimelineEntry::Joined { member: one });
    timeline.record(began, TimelineEntry::Joined { member: two });
    timeline.record(began + Duration::from_millis(40), offer(two, one));
    timeline.record(
        began + Duration::from_secs(1),
        TimelineEntry::Left { member: two, reason: "gone" },
    );

    let later = (began + Duration::from_secs(10), 1_700_000_010_000);
    let view = serde_json::to_value(timeline.view(&"den".into(), true, later)).unwrap();

    let events = view["events"].as_array().unwrap();
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
        let member = timeline.peer_ref(&peer(number), |peer_ref| peer_ref == stays);
        timeline.record(now, TimelineEntry::Joined { member });
        timeline.record(now, offer(stays, member));
        timeline.record(now, TimelineEntry::Left { member, reason: "left" });
    }

    let view = timeline.view(&"den".into(), true, (now, 1));

    assert!(timeline.known_peers() <= MAX_PEERS);
    assert_eq!((view.events.len(), view.dropped), (MAX_EVENTS, 15_000 - 512));
    assert_eq!(view.events.last().unwrap().seq, 15_000);
    assert!(view.events.iter().all(|event| event.client_id.is_some()), "a peer is forgotten");
}

#[test]
fn an_event_is_small() {
    assert!(size_of::<(u64, TimelineEntry)>() <= 48, "{}", size_of::<(u64, TimelineEntry)>());
}

/// The latest stays where the others are enough.
#[test]
fn timelines_of_closed_rooms_give_way_where_they_hold_too_much() {
    let budget = MemoryBudget::new(64 << 10);
    let now = Instant::now();
    let mut archive = TimelineArchive::default();
    for number in 0..20 {
        let charge = budget.server_charge(MemoryKind::Timelines);
        let mut timeline = Timeline::new(now).with_charge(charge);
        (0..30).for_each(|_| timeline.record(now, TimelineEntry::Opened));
        let is_too_much = || budget.is_eighth_used_by(MemoryKind::Timelines);
        archive.insert(format!("room{number}").into(), Box::new(timeline), now, is_too_much);
    }

    let kept: Vec<_> = archive.closed_rooms().map(|(room, _)| room.to_string()).collect();

    assert!(budget.held() < 8 << 10, "{} bytes", budget.held());
    assert!((2..19).contains(&kept.len()) && kept[0] == "room19", "{kept:?}");
}
