//! The room registry: each member receives exactly the frames of a simple model, in the same order.

use std::{collections::BTreeMap, rc::Rc};

use futures_util::FutureExt;
use serde_json::{Value, json};
use signaling::{
    outbox::{self, ClientQueueReader, DisconnectReason, DisconnectSignal, MAX_FRAMES},
    rooms::{JoinError, Membership, Peer, RoomRegistry, RouteError},
    wire::{self, ClientMessage},
};

const ROOMS: [&str; 3] = ["den", "attic", "Zimmer 7/é"];
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const USERS: [&str; 2] = ["alice", "zoë \"z\""];

/// How often a burst repeats a message: a few bursts fill a queue.
const BURST: usize = 300;

/// The number of bursts in one input, which bounds its duration.
const MAX_BURSTS: usize = 8;

/// The capacity of the rooms, then actions of three bytes each: kind, member, and target.
pub fn registry(data: &[u8]) {
    let Some((size, actions)) = data.split_first() else { return };
    let capacity = usize::from(size % 4) + 1;
    let mut world = World {
        rooms: RoomRegistry::new(capacity),
        capacity,
        members: Vec::new(),
        sent: 0,
        bursts: 0,
    };
    for action in actions.chunks_exact(3) {
        world.act(action[0], action[1].into(), action[2].into());
        world.check();
    }
    world.members.iter_mut().for_each(|member| member.is_paused = false);
    world.members.iter_mut().for_each(Member::check_received);
}

struct World {
    rooms: RoomRegistry,
    capacity: usize,
    /// All clients that have ever joined.
    members: Vec<Member>,
    sent: u64,
    bursts: usize,
}

struct Member {
    room: &'static str,
    peer: Peer,
    /// `None` once it has left.
    membership: Option<Membership>,
    /// False once it has left, or was replaced by a newer connection.
    is_member: bool,
    /// `None` once its connection is lost, before its membership ends.
    reader: Option<ClientQueueReader>,
    signal: DisconnectSignal,
    is_paused: bool,
    /// The frames that must be in the queue.
    expected: Vec<Rc<Value>>,
    disconnected: Option<DisconnectReason>,
}

impl Member {
    fn expect(&mut self, frame: &Rc<Value>) {
        if self.reader.is_none() {
            return;
        }
        if self.expected.len() == MAX_FRAMES {
            self.disconnected.get_or_insert(DisconnectReason::TooSlow);
            return;
        }
        self.expected.push(frame.clone());
    }

    /// Compares the queued frames with the expected ones, unless the member is paused.
    fn check_received(&mut self) {
        assert_eq!(self.signal.disconnected().now_or_never(), self.disconnected);
        let Some(reader) = self.reader.as_mut().filter(|_| !self.is_paused) else { return };
        let mut before = None;
        for expected in self.expected.drain(..) {
            let frame = reader.try_recv().expect("a frame is missing");
            // The frames of a burst are equal, and are parsed once.
            let is_repeated = before
                .as_ref()
                .is_some_and(|(text, value)| *text == frame && Rc::ptr_eq(value, &expected));
            if !is_repeated {
                assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), *expected);
                before = Some((frame, expected));
            }
        }
        assert_eq!(reader.try_recv(), None, "an unexpected frame");
    }
}

impl World {
    fn act(&mut self, kind: u8, member: usize, target: usize) {
        match kind % 7 {
            0..=2 => self.join(ROOMS[member % 3], IDS[member / 3 % 4], USERS[target % 2]),
            3 => {
                let Some(at) = self.index_of(member) else { return };
                self.leave(at);
            }
            4 => self.send(member, target, 1),
            5 => self.send(member, 0, 1), // a broadcast
            _ => match (target % 4, self.index_of(member)) {
                (0, Some(at)) => self.members[at].is_paused = true,
                (1, Some(at)) => self.members[at].is_paused = false,
                (2, Some(at)) => self.members[at].reader = None,
                (3, Some(_)) if self.bursts < MAX_BURSTS => {
                    self.bursts += 1;
                    self.send(member, target / 4, BURST);
                }
                _ => {}
            },
        }
    }

    fn index_of(&self, member: usize) -> Option<usize> {
        (!self.members.is_empty()).then(|| member % self.members.len())
    }

    fn members_of(&mut self, room: &str) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(move |member| member.is_member && member.room == room)
    }

    fn expect_at_others(&mut self, room: &str, client_id: &str, frame: Value) {
        let frame = Rc::new(frame);
        let others = self.members_of(room).filter(|member| *member.peer.client_id != *client_id);
        others.for_each(|member| member.expect(&frame));
    }

    fn remove(&mut self, room: &str, client_id: &str) -> String {
        let leaver =
            self.members_of(room).find(|member| *member.peer.client_id == *client_id).unwrap();
        leaver.is_member = false;
        let username = leaver.peer.username.to_string();
        let connected_users = self.members_of(room).count();
        let frame = json!({"type":"user_left","room_id":room,"client_id":client_id,"username":username,"connected_users":connected_users});
        self.expect_at_others(room, client_id, frame);
        username
    }

    fn join(&mut self, room: &'static str, client_id: &str, username: &str) {
        let peer = Peer { client_id: client_id.into(), username: username.into() };
        let (queue, reader) = outbox::channel();
        let signal = reader.disconnect_signal();

        let joined = Membership::join_local(&self.rooms, &room.into(), peer.clone(), queue);

        let is_full = self.members_of(room).count() == self.capacity;
        let holder = self.members_of(room).find(|member| *member.peer.client_id == *client_id);
        let expected = match holder {
            Some(holder) if *holder.peer.username != *username => Err(JoinError::ClientIdTaken),
            Some(holder) => {
                holder.disconnected.get_or_insert(DisconnectReason::Replaced);
                self.remove(room, client_id);
                Ok(())
            }
            None if is_full => Err(JoinError::Full),
            None => Ok(()),
        };
        let membership = match (joined, expected) {
            (Ok(membership), Ok(())) => membership,
            (joined, expected) => return assert_eq!(joined.err(), expected.err()),
        };
        let mut users: Vec<_> = self
            .members_of(room)
            .map(|member| (member.peer.client_id.to_string(), member.peer.username.to_string()))
            .collect();
        users.sort();
        let users: Vec<_> = users
            .into_iter()
            .map(|(client_id, username)| json!({"client_id":client_id,"username":username,"polite":true}))
            .collect();
        let frame = json!({"type":"user_joined","room_id":room,"client_id":client_id,"username":username,"connected_users":users.len() + 1,"polite":false});
        self.expect_at_others(room, client_id, frame);
        self.members.push(Member {
            room,
            peer,
            membership: Some(membership),
            is_member: true,
            reader: Some(reader),
            signal,
            is_paused: false,
            expected: vec![Rc::new(json!({"type":"users_in_room","users":users}))],
            disconnected: None,
        });
    }

    fn leave(&mut self, at: usize) {
        let member = &mut self.members[at];
        let (room, client_id) = (member.room, member.peer.client_id.clone());

        member.membership = None;

        if member.is_member {
            self.remove(room, &client_id);
        }
    }

    /// Sends a signal of one of the four kinds `times` times, to one member or to all.
    fn send(&mut self, member: usize, target: usize, times: usize) {
        let Some(at) = self.index_of(member) else { return };
        let sender = &mut self.members[at];
        let (room, peer, is_member) = (sender.room, sender.peer.clone(), sender.is_member);
        let Some(membership) = sender.membership.take() else { return };
        let to = match target % 8 {
            at @ 0..4 if target > 0 => json!(IDS[at]),
            4 => json!("unknown"),
            5 => json!(""),
            6 => Value::Null,
            7 => json!(peer.client_id.to_string()),
            _ => Value::Null,
        };
        let (kind, field) = [
            ("message", "data"),
            ("offer", "offer"),
            ("answer", "answer"),
            ("ice_candidate", "candidate"),
        ][target / 8 % 4];
        self.sent += 1;
        let payload = json!({"n": self.sent, "from": "mallory"});
        let frame = json!({"type":kind,"to":to,field:payload,"from":"mallory","username":"x"});
        let frame = frame.to_string();
        let Ok(ClientMessage::Signal(signal)) = wire::parse(&frame).message else {
            panic!("{frame}")
        };
        let named = to.as_str().filter(|to| !to.is_empty());
        let is_target_present =
            named.is_none_or(|to| self.members_of(room).any(|peer| *peer.peer.client_id == *to));
        let expected = match named {
            _ if !is_member => Err(RouteError::Replaced),
            Some(to) if *to == *peer.client_id => Err(RouteError::TargetIsSender),
            Some(to) if !is_target_present => Err(RouteError::TargetNotFound(to.to_owned())),
            _ => Ok(()),
        };
        let frame =
            json!({"type":kind,field:payload,"from":*peer.client_id,"username":*peer.username});
        let relayed = Rc::new(frame);
        let now = tokio::time::Instant::now();
        for _ in 0..times {
            assert_eq!(membership.send(&signal, now).map(drop), expected);
            if expected.is_ok() {
                let receivers = self.members_of(room).filter(|member| {
                    *member.peer.client_id != *peer.client_id
                        && named.is_none_or(|to| *to == *member.peer.client_id)
                });
                receivers.for_each(|receiver| receiver.expect(&relayed));
            }
        }
        self.members[at].membership = Some(membership);
    }

    /// Compares the rooms, their members, and the frames of each member with the model.
    fn check(&mut self) {
        let mut rooms = BTreeMap::<&str, usize>::new();
        for member in self.members.iter_mut().filter(|member| member.is_member) {
            *rooms.entry(member.room).or_default() += 1;
            member.check_received();
        }
        let list = self.rooms.list();
        let list: Vec<_> = list.iter().map(|(room, members)| (&**room, *members)).collect();
        assert_eq!(list, rooms.iter().map(|(room, members)| (*room, *members)).collect::<Vec<_>>());
        assert_eq!(self.rooms.room_count(), rooms.len());
        assert_eq!(self.rooms.member_total(), rooms.values().sum::<usize>());
        for room in ROOMS {
            assert_eq!(self.rooms.member_count(room), rooms.get(room).copied());
        }
        assert!(rooms.values().all(|members| *members <= self.capacity));
    }
}
