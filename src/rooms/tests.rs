//! Rooms as their members see them.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{JoinError, Membership, Peer, RoomRegistry, RouteError, is_room_id};
use crate::{
    delivery::ReplayBuffer,
    delivery::{self, ClientQueue, ClientQueueReader, ResumeError},
    protocol::{self, ClientMessage},
};

fn peer(client_id: &str, username: &str) -> Peer {
    Peer { client_id: client_id.into(), username: username.into(), name: None }
}

fn join(
    rooms: &RoomRegistry,
    room: &str,
    peer: Peer,
    queue: ClientQueue,
) -> Result<Membership, JoinError> {
    Membership::join_local(rooms, &room.into(), peer, queue)
}

/// Joins a client whose id is the user's name.
fn join_as(rooms: &RoomRegistry, room: &str, name: &str) -> (Membership, ClientQueueReader) {
    let (queue, reader) = delivery::channel();
    (join(rooms, room, peer(name, name), queue).unwrap(), reader)
}

fn drain(reader: &mut ClientQueueReader) -> Vec<Value> {
    std::iter::from_fn(|| reader.try_recv())
        .map(|frame| serde_json::from_str(&frame).unwrap())
        .collect()
}

fn send(membership: &Membership, frame: &str) -> Result<bool, RouteError> {
    match protocol::parse(frame).message.unwrap() {
        ClientMessage::Signal(signal) => membership.send(&signal, Instant::now()),
        other => panic!("{other:?} is no signal"),
    }
}

#[tokio::test(start_paused = true)]
async fn closed_rooms_are_listed_until_their_timelines_expire() {
    let rooms = RoomRegistry::new(10).with_timelines(Duration::from_secs(300));
    let memberships = ["den", "attic", "cellar"].map(|room| join_as(&rooms, room, "alice"));
    for membership in memberships {
        drop(membership);
        tokio::time::advance(Duration::from_secs(100)).await;
    }
    let _again = join_as(&rooms, "attic", "bob");

    let past = rooms.closed_rooms().into_iter();
    let past: Vec<_> = past.map(|(room, over_for)| (room, over_for.as_secs())).collect();

    assert_eq!(past, [("cellar".into(), 100)]);
    tokio::time::advance(Duration::from_secs(200)).await;
    assert_eq!(rooms.closed_rooms(), []);
}

#[test]
fn queued_frames_are_counted_over_all_rooms_and_for_the_member_with_most() {
    let rooms = RoomRegistry::new(10);
    let (_alice, mut alice) = join_as(&rooms, "den", "alice");
    let (bob, mut bobs) = join_as(&rooms, "den", "bob");
    let (_carol, _carols) = join_as(&rooms, "attic", "carol");
    drain(&mut alice);
    drain(&mut bobs);
    assert_eq!(rooms.queued_frames(), (1, 1), "carol's empty member list waits");

    for _ in 0..5 {
        send(&bob, r#"{"type":"message","data":1}"#).unwrap();
    }

    assert_eq!(rooms.queued_frames(), (6, 5));
    drain(&mut alice);
    assert_eq!(rooms.queued_frames(), (1, 1));
}

#[test]
fn a_new_member_gets_the_member_list_and_the_others_get_user_joined() {
    let rooms = RoomRegistry::new(10);
    let (_alice, mut alice) = join_as(&rooms, "den", "alice");
    let (_bob, mut bob) = join_as(&rooms, "den", "bob");

    assert_eq!(
        drain(&mut bob),
        [
            json!({"type":"users_in_room","users":[{"client_id":"alice","username":"alice","polite":true}]})
        ]
    );
    assert_eq!(
        drain(&mut alice),
        [
            json!({"type":"users_in_room","users":[]}),
            json!({"type":"user_joined","room_id":"den","username":"bob","client_id":"bob","connected_users":2,"polite":false}),
        ]
    );
}

#[test]
fn a_target_in_another_room_does_not_exist() {
    let rooms = RoomRegistry::new(10);
    let (alice, _reader) = join_as(&rooms, "den", "alice");
    let (_bob, mut bob) = join_as(&rooms, "attic", "bob");
    drain(&mut bob);

    let refused = send(&alice, r#"{"type":"offer","offer":{},"to":"bob"}"#);

    assert_eq!(refused, Err(RouteError::TargetNotFound("bob".into())));
    assert_eq!(drain(&mut bob), [] as [Value; 0]);
}

#[test]
fn no_member_receives_its_own_signal() {
    let rooms = RoomRegistry::new(10);
    let (alice, mut reader) = join_as(&rooms, "den", "alice");
    drain(&mut reader);

    assert_eq!(send(&alice, r#"{"type":"message","data":1}"#), Ok(false));
    assert_eq!(
        send(&alice, r#"{"type":"message","data":1,"to":"alice"}"#),
        Err(RouteError::TargetIsSender)
    );
    assert_eq!(drain(&mut reader), [] as [Value; 0]);
}

#[test]
fn a_full_room_admits_only_a_reloaded_page() {
    let rooms = RoomRegistry::new(2);
    let _alice = join_as(&rooms, "den", "alice");
    let _bob = join_as(&rooms, "den", "bob");

    let carol = join(&rooms, "den", peer("carol", "carol"), delivery::channel().0);
    let bob_again = join(&rooms, "den", peer("bob", "bob"), delivery::channel().0);

    assert_eq!(carol.err(), Some(JoinError::Full));
    assert!(bob_again.is_ok());
    assert_eq!(rooms.member_count("den"), Some(2));
}

#[test]
fn a_client_id_of_another_user_is_taken() {
    let rooms = RoomRegistry::new(2);
    let (_alice, mut alice) = join_as(&rooms, "den", "alice");
    drain(&mut alice);

    let mallory = join(&rooms, "den", peer("alice", "mallory"), delivery::channel().0);

    assert_eq!(mallory.err(), Some(JoinError::ClientIdTaken));
    assert_eq!(drain(&mut alice), [] as [Value; 0]);
}

#[test]
fn a_replaced_membership_can_neither_send_nor_leave() {
    let rooms = RoomRegistry::new(10);
    let (old, _reader) = join_as(&rooms, "den", "alice");
    let (_bob, mut bob) = join_as(&rooms, "den", "bob");
    drain(&mut bob);
    let _new = join_as(&rooms, "den", "alice");

    let sent = send(&old, r#"{"type":"message","data":1}"#);
    drop(old);

    assert_eq!(sent, Err(RouteError::Replaced));
    assert_eq!(rooms.member_count("den"), Some(2));
    let kinds: Vec<_> = drain(&mut bob).iter().map(|news| news["type"].clone()).collect();
    assert_eq!(kinds, ["user_left", "user_joined"]);
}

#[test]
fn an_empty_room_is_gone() {
    let rooms = RoomRegistry::new(10);
    let (alice, _reader) = join_as(&rooms, "den", "alice");

    drop(alice);

    assert_eq!((rooms.member_count("den"), rooms.room_count(), rooms.member_total()), (None, 0, 0));
    assert_eq!(rooms.list(), []);
}

/// The last member leaves while others join: every member finds all others.
#[test]
fn no_member_is_alone_in_a_closed_room() {
    let rooms = RoomRegistry::new(10);
    std::thread::scope(|scope| {
        for name in ["alice", "bob", "carol", "dave"] {
            let rooms = &rooms;
            scope.spawn(move || {
                for _ in 0..5_000 {
                    let (membership, _reader) = join_as(rooms, "den", name);
                    assert!(rooms.member_count("den").is_some());
                    drop(membership);
                }
            });
        }
    });

    assert_eq!((rooms.member_count("den"), rooms.room_count(), rooms.member_total()), (None, 0, 0));
}

#[test]
fn a_room_id_has_one_form() {
    assert!(is_room_id("a") && is_room_id("Zimmer 7/é") && is_room_id(&"é".repeat(128)));
    assert!(
        !is_room_id("")
            && !is_room_id(&"é".repeat(129))
            && !is_room_id("a\nb")
            && !is_room_id("\u{7f}")
            && !is_room_id(".")
            && !is_room_id("..")
    );
    assert!(is_room_id("...") && is_room_id(".a") && is_room_id("%2e") && is_room_id("./."));
}

#[derive(Clone, Debug)]
enum Act {
    Join {
        room: usize,
        name: usize,
        user: usize,
        resumes: bool,
    },
    Leave {
        member: usize,
    },
    /// The connection is gone, after so many of the waiting frames were received.
    Detach {
        member: usize,
        received: usize,
    },
    /// Also of a member whose connection is not gone: the new one replaces it.
    Resume {
        member: usize,
    },
    Send {
        member: usize,
        to: Option<usize>,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..3_usize, 0..5_usize, 0..2_usize, any::<bool>()).prop_map(|(room, name, user, resumes)| Act::Join { room, name, user, resumes }),
        3 => (0..20_usize, 0..4_usize).prop_map(|(member, received)| Act::Detach { member, received }),
        3 => (0..20_usize).prop_map(|member| Act::Resume { member }),
        2 => (0..20_usize).prop_map(|member| Act::Leave { member }),
        4 => (0..20_usize, prop::option::of(0..6_usize)).prop_map(|(member, to)| Act::Send { member, to }),
    ];
    prop::collection::vec(act, 1..120)
}

#[test]
fn a_guest_is_never_the_user_of_another_connection_also_under_the_same_name() {
    let rooms = RoomRegistry::new(10);
    let (first, _reader) = join_as(&rooms, "den", "guest-abcdef");
    let guest = delivery::channel().0;
    guest.set_guest();

    let taken = join(&rooms, "den", peer("guest-abcdef", "guest-abcdef"), guest.clone());

    assert_eq!(taken.err(), Some(JoinError::ClientIdTaken));
    assert!(join(&rooms, "den", peer("other", "guest-abcdef"), guest).is_ok());
    drop(first);
}

/// A member as the test itself keeps it, with the member list that its frames add up to.
struct Observer {
    room: String,
    peer: Peer,
    membership: Option<Membership>,
    reader: ClientQueueReader,
    sees: BTreeSet<(String, String)>,
    expects: Vec<u64>,
    here: bool,
    /// The key of its membership, where it may resume.
    key: Option<u128>,
    /// The number of the last frame that it has got.
    got: u64,
    is_detached: bool,
}

impl Observer {
    /// Applies the received frames to the member list, and checks that each fits the ones before.
    fn catch_up(&mut self) {
        self.receive(usize::MAX);
        assert!(self.expects.is_empty(), "a signal was not received");
    }

    fn receive(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(news) = self.reader.try_recv() else { break };
            let news: Value = serde_json::from_str(&news).unwrap();
            if self.key.is_some() {
                self.got += 1;
                assert_eq!(news["seq"], self.got, "a frame is missing, or came twice");
            }
            let text = |field: &str| news[field].as_str().unwrap().to_owned();
            match news["type"].as_str().unwrap() {
                "users_in_room" => {
                    assert!(self.sees.is_empty());
                    for user in news["users"].as_array().unwrap() {
                        self.sees.insert((
                            user["client_id"].as_str().unwrap().into(),
                            user["username"].as_str().unwrap().into(),
                        ));
                    }
                }
                "user_joined" => {
                    assert!(
                        self.sees.insert((text("client_id"), text("username"))),
                        "joined twice"
                    );
                    assert_eq!(news["connected_users"], self.sees.len() + 1);
                }
                "user_left" => {
                    assert!(
                        self.sees.remove(&(text("client_id"), text("username"))),
                        "left without having been there"
                    );
                    assert_eq!(news["connected_users"], self.sees.len() + 1);
                }
                "message" => {
                    assert!(
                        self.sees.contains(&(text("from"), text("username"))),
                        "a signal of no member"
                    );
                    assert_eq!(news["data"], self.expects.remove(0));
                }
                other => panic!("{other}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// N04 of the attack catalogue; the fuzz target `registry` has a second model.
    #[test]
    fn the_frames_of_each_member_add_up_to_the_members_of_the_room(acts in acts()) {
        const CAPACITY: usize = 4;
        let rooms = RoomRegistry::new(CAPACITY);
        let mut all: Vec<Observer> = Vec::new();
        let mut sent_count = 0;

        for act in acts {
            match act {
                Act::Join { room, name, user, resumes } => {
                    let (room, peer) = (format!("room {room}"), peer(&format!("c{name}"), &format!("u{user}")));
                    let (queue, reader) = delivery::channel();
                    let key = resumes.then_some(all.len() as u128);
                    if let Some(key) = key {
                        queue.enable_replay(Box::new(ReplayBuffer::new(key)));
                    }
                    let inside = all.iter().filter(|other| other.here && other.room == room).count();
                    let current = all.iter_mut().find(|other| other.here && other.room == room && other.peer.client_id == peer.client_id);
                    let joined = join(&rooms, &room, peer.clone(), queue);
                    match current {
                        Some(current) if current.peer.username != peer.username => prop_assert_eq!(joined.as_ref().err(), Some(&JoinError::ClientIdTaken)),
                        Some(current) => current.here = false,
                        None if inside == CAPACITY => prop_assert_eq!(joined.as_ref().err(), Some(&JoinError::Full)),
                        None => {}
                    }
                    if let Ok(membership) = joined {
                        all.push(Observer { room, peer, membership: Some(membership), reader, sees: BTreeSet::new(), expects: Vec::new(), here: true, key, got: 0, is_detached: false });
                    }
                }
                Act::Leave { member } => {
                    if let Some(leaver) = all.get_mut(member) {
                        leaver.membership = None;
                        leaver.here = false;
                    }
                }
                Act::Detach { member, received } => {
                    let Some(member) = all.get_mut(member).filter(|member| member.here && !member.is_detached) else { continue };
                    member.receive(received);
                    match (&member.membership, member.key) {
                        (Some(membership), Some(_)) => {
                            membership.detach();
                            member.is_detached = true;
                        }
                        (_, _) => {
                            member.membership = None;
                            member.here = false;
                        }
                    }
                }
                Act::Resume { member } => {
                    let Some(member) = all.get(member) else { continue };
                    let Some(key) = member.key else { continue };
                    let (queue, reader) = delivery::channel();
                    let resumed = Membership::resume(&rooms, &member.room, member.peer.clone(), key, queue, member.got);
                    let others = all.iter().filter(|other| other.here && other.room == member.room && other.peer != member.peer);
                    let others: BTreeSet<_> = others.map(|other| other.peer.client_id.clone()).collect();
                    prop_assert_eq!(resumed.as_ref().err(), (!member.here).then_some(&ResumeError::Ended));
                    if let Ok((membership, resumed)) = resumed {
                        prop_assert_eq!(resumed.others.into_iter().map(|(peer, _)| peer.client_id).collect::<BTreeSet<_>>(), others);
                        let member = &mut all[usize::try_from(key).unwrap()];
                        (member.membership, member.reader, member.is_detached) = (Some(membership), reader, false);
                    }
                }
                Act::Send { member, to } => {
                    let Some(sender) = all.get(member).filter(|sender| !sender.is_detached) else { continue };
                    let Some(membership) = &sender.membership else { continue };
                    let (room, from, here) = (sender.room.clone(), sender.peer.clone(), sender.here);
                    let to = to.map(|to| format!("c{to}"));
                    sent_count += 1;
                    let frame = json!({"type":"message","data":sent_count,"to":to}).to_string();
                    let sent = send(membership, &frame);
                    let others = all.iter_mut().filter(|other| other.here && other.room == room && other.peer.client_id != from.client_id);
                    let receivers: Vec<_> = others.filter(|other| to.as_deref().is_none_or(|to| *to == *other.peer.client_id)).collect();
                    match (here, to) {
                        (false, _) => prop_assert_eq!(sent, Err(RouteError::Replaced)),
                        (true, Some(to)) if *to == *from.client_id => prop_assert_eq!(sent, Err(RouteError::TargetIsSender)),
                        (true, Some(to)) if receivers.is_empty() => prop_assert_eq!(sent, Err(RouteError::TargetNotFound(to))),
                        (true, _) => {
                            prop_assert_eq!(sent, Ok(false));
                            for receiver in receivers {
                                receiver.expects.push(sent_count);
                            }
                        }
                    }
                }
            }

            let here: Vec<_> = all.iter().filter(|member| member.here).map(|member| (member.room.clone(), member.peer.clone())).collect();
            prop_assert_eq!(rooms.member_total(), here.len());
            for member in all.iter_mut().filter(|member| member.here && !member.is_detached) {
                member.catch_up();
                let others = here.iter().filter(|(room, peer)| *room == member.room && *peer != member.peer);
                let others: BTreeSet<_> = others.map(|(_, peer)| (peer.client_id.to_string(), peer.username.to_string())).collect();
                prop_assert_eq!(&member.sees, &others);
                prop_assert_eq!(rooms.member_count(&member.room), Some(others.len() + 1));
            }
        }
    }
}
