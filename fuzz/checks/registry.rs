//! Rooms: whatever members do, each receives exactly the frames of a simple model, in its order.

use std::{collections::BTreeMap, rc::Rc};

use futures_util::FutureExt;
use serde_json::{Value, json};
use signaling::{
    delivery::{self, ClientQueueReader, DisconnectReason, DisconnectSignal, QUEUE_MAX_FRAMES},
    protocol::{self, ClientMessage},
    rooms::{JoinError, Membership, Peer, RoomRegistry, RouteError},
};

const ROOMS: [&str; 3] = ["den", "attic", "Zimmer 7/é"];
const IDS: [&str; 4] = ["a", "b", "c", "d"];
const USERS: [&str; 2] = ["alice", "zoë \"z\""];

/// How many frames a burst has: a few bursts fill a queue.
const BURST: usize = 300;

/// The most bursts in one run, for the sake of its time.
const MAX_BURSTS: usize = 8;

/// The capacity of a room, then actions of three bytes each: the action, the member, and its object.
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
    world.members.iter_mut().for_each(|member| member.asleep = false);
    world.members.iter_mut().for_each(Member::check_queue);
}

struct World {
    rooms: RoomRegistry,
    capacity: usize,
    /// All members that ever joined.
    members: Vec<Member>,
    sent: u64,
    bursts: usize,
}

struct Member {
    room: &'static str,
    peer: Peer,
    /// `None` once it has left.
    membership: Option<Membership>,
    /// `false` where a newer connection has its client id.
    is_member: bool,
    /// `None` once its connection is lost, which the room does not know yet.
    reader: Option<ClientQueueReader>,
    disconnect_signal: DisconnectSignal,
    asleep: bool,
    /// The frames that its queue must hold.
    due: Vec<Rc<Value>>,
    disconnected: Option<DisconnectReason>,
}

impl Member {
    fn expect_frame(&mut self, frame_value: &Rc<Value>) {
        if self.reader.is_none() {
            return;
        }
        if self.due.len() == QUEUE_MAX_FRAMES {
            self.disconnected.get_or_insert(DisconnectReason::TooSlow);
            return;
        }
        self.due.push(frame_value.clone());
    }

    /// Reads all queued frames, unless it is asleep.
    fn check_queue(&mut self) {
        assert_eq!(self.disconnect_signal.disconnected().now_or_never(), self.disconnected);
        let Some(reader) = self.reader.as_mut().filter(|_| !self.asleep) else { return };
        let mut before = None;
        for due in self.due.drain(..) {
            let frame = reader.try_recv().expect("a frame is missing");
            let again = before
                .as_ref()
                .is_some_and(|(text, frame_value)| *text == frame && Rc::ptr_eq(frame_value, &due));
            if !again {
                assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), *due);
                before = Some((frame, due));
            }
        }
        assert_eq!(reader.try_recv(), None, "a frame that no member sent");
    }
}

impl World {
    fn act(&mut self, action: u8, index: usize, object: usize) {
        match action % 7 {
            0..=2 => self.join(ROOMS[index % 3], IDS[index / 3 % 4], USERS[object % 2]),
            3 => {
                let Some(at) = self.member_at(index) else { return };
                self.leave(at);
            }
            4 => self.send(index, object, 1),
            5 => self.send(index, 0, 1), // to all peers
            _ => match (object % 4, self.member_at(index)) {
                (0, Some(at)) => self.members[at].asleep = true,
                (1, Some(at)) => self.members[at].asleep = false,
                (2, Some(at)) => self.members[at].reader = None,
                (3, Some(_)) if self.bursts < MAX_BURSTS => {
                    self.bursts += 1;
                    self.send(index, object / 4, BURST);
                }
                _ => {}
            },
        }
    }

    fn member_at(&self, index: usize) -> Option<usize> {
        (!self.members.is_empty()).then(|| index % self.members.len())
    }

    fn members_of(&mut self, room: &str) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(move |member| member.is_member && member.room == room)
    }

    fn expect_broadcast(&mut self, room: &str, but: &str, frame_value: Value) {
        let frame_value = Rc::new(frame_value);
        let others = self.members_of(room).filter(|member| *member.peer.client_id != *but);
        others.for_each(|member| member.expect_frame(&frame_value));
    }

    fn expect_leave(&mut self, room: &str, client_id: &str) -> String {
        let leaver =
            self.members_of(room).find(|member| *member.peer.client_id == *client_id).unwrap();
        leaver.is_member = false;
        let username = leaver.peer.username.to_string();
        let connected_users = self.members_of(room).count();
        let frame_value = json!({"type":"user_left","room_id":room,"client_id":client_id,"username":username,"connected_users":connected_users});
        self.expect_broadcast(room, client_id, frame_value);
        username
    }

    fn join(&mut self, room: &'static str, client_id: &str, username: &str) {
        let peer = Peer { client_id: client_id.into(), username: username.into(), name: None };
        let (queue, reader) = delivery::channel();
        let disconnect_signal = reader.disconnect_signal();

        let joined = Membership::join_local(&self.rooms, &room.into(), peer.clone(), queue);

        let is_full = self.members_of(room).count() == self.capacity;
        let current = self.members_of(room).find(|member| *member.peer.client_id == *client_id);
        let expected = match current {
            Some(current) if *current.peer.username != *username => Err(JoinError::ClientIdTaken),
            Some(current) => {
                current.disconnected.get_or_insert(DisconnectReason::Replaced);
                self.expect_leave(room, client_id);
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
        let frame_value = json!({"type":"user_joined","room_id":room,"client_id":client_id,"username":username,"connected_users":users.len() + 1,"polite":false});
        self.expect_broadcast(room, client_id, frame_value);
        self.members.push(Member {
            room,
            peer,
            membership: Some(membership),
            is_member: true,
            reader: Some(reader),
            disconnect_signal,
            asleep: false,
            due: vec![Rc::new(json!({"type":"users_in_room","users":users}))],
            disconnected: None,
        });
    }

    fn leave(&mut self, at: usize) {
        let member = &mut self.members[at];
        let (room, client_id) = (member.room, member.peer.client_id.clone());

        member.membership = None;

        if member.is_member {
            self.expect_leave(room, &client_id);
        }
    }

    /// Sends a signal of one of the four kinds, `times` over, to one peer or to all.
    fn send(&mut self, index: usize, object: usize, times: usize) {
        let Some(at) = self.member_at(index) else { return };
        let sender = &mut self.members[at];
        let (room, peer, is_member) = (sender.room, sender.peer.clone(), sender.is_member);
        let Some(membership) = sender.membership.take() else { return };
        let to = match object % 8 {
            at @ 0..4 if object > 0 => json!(IDS[at]),
            4 => json!("absent"),
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
        ][object / 8 % 4];
        self.sent += 1;
        let payload = json!({"n": self.sent, "from": "mallory"});
        let frame = json!({"type":kind,"to":to,field:payload,"from":"mallory","username":"x"});
        let frame = frame.to_string();
        let Ok(ClientMessage::Signal(signal)) = protocol::parse(&frame).message else {
            panic!("{frame}")
        };
        let named = to.as_str().filter(|to| !to.is_empty());
        let is_there =
            named.is_none_or(|to| self.members_of(room).any(|peer| *peer.peer.client_id == *to));
        let expected = match named {
            _ if !is_member => Err(RouteError::Replaced),
            Some(to) if *to == *peer.client_id => Err(RouteError::TargetIsSender),
            Some(to) if !is_there => Err(RouteError::TargetNotFound(to.to_owned())),
            _ => Ok(()),
        };
        let frame_value =
            json!({"type":kind,field:payload,"from":*peer.client_id,"username":*peer.username});
        let frame_value = Rc::new(frame_value);
        let now = tokio::time::Instant::now();
        for _ in 0..times {
            assert_eq!(membership.send(&signal, now).map(drop), expected);
            if expected.is_ok() {
                let receivers = self.members_of(room).filter(|member| {
                    *member.peer.client_id != *peer.client_id
                        && named.is_none_or(|to| *to == *member.peer.client_id)
                });
                receivers.for_each(|receiver| receiver.expect_frame(&frame_value));
            }
        }
        self.members[at].membership = Some(membership);
    }

    /// Compares the rooms, their members, and the frames that each member has received so far.
    fn check(&mut self) {
        let mut rooms = BTreeMap::<&str, usize>::new();
        for member in self.members.iter_mut().filter(|member| member.is_member) {
            *rooms.entry(member.room).or_default() += 1;
            member.check_queue();
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
