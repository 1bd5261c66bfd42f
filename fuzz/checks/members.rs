//! Rooms: whatever members do, each hears exactly what a simple model says, in that order.

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

/// How often somebody talkative repeats himself: a few times, and a queue is full.
const CHORUS: usize = 300;

/// How many choruses are worth their time.
const MOST_CHORUSES: usize = 8;

/// The room's size, then acts of three bytes each: what, who, and about whom.
pub fn registry(data: &[u8]) {
    let Some((size, acts)) = data.split_first() else { return };
    let capacity = usize::from(size % 4) + 1;
    let mut world = World {
        rooms: RoomRegistry::new(capacity),
        capacity,
        members: Vec::new(),
        said: 0,
        choruses: 0,
    };
    for act in acts.chunks_exact(3) {
        world.act(act[0], act[1].into(), act[2].into());
        world.check();
    }
    world.members.iter_mut().for_each(|member| member.asleep = false);
    world.members.iter_mut().for_each(Member::listen);
}

struct World {
    rooms: RoomRegistry,
    capacity: usize,
    /// Everybody who ever had a seat.
    members: Vec<Member>,
    said: u64,
    choruses: usize,
}

struct Member {
    room: &'static str,
    peer: Peer,
    /// `None` once it has left.
    seat: Option<Membership>,
    /// Not so where a newer connection has taken its place.
    is_seated: bool,
    /// `None` once its connection is gone, which nobody else has noticed yet.
    mailbox: Option<ClientQueueReader>,
    notice: DisconnectSignal,
    asleep: bool,
    /// What must wait in the mailbox.
    due: Vec<Rc<Value>>,
    dismissed: Option<DisconnectReason>,
}

impl Member {
    fn hear(&mut self, news: &Rc<Value>) {
        if self.mailbox.is_none() {
            return;
        }
        if self.due.len() == MAX_FRAMES {
            self.dismissed.get_or_insert(DisconnectReason::TooSlow);
            return;
        }
        self.due.push(news.clone());
    }

    /// Reads all that waits, unless it is asleep.
    fn listen(&mut self) {
        assert_eq!(self.notice.disconnected().now_or_never(), self.dismissed);
        let Some(mailbox) = self.mailbox.as_mut().filter(|_| !self.asleep) else { return };
        let mut before = None;
        for due in self.due.drain(..) {
            let frame = mailbox.try_recv().expect("something is missing");
            let again = before
                .as_ref()
                .is_some_and(|(text, news)| *text == frame && Rc::ptr_eq(news, &due));
            if !again {
                assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), *due);
                before = Some((frame, due));
            }
        }
        assert_eq!(mailbox.try_recv(), None, "nobody said that");
    }
}

impl World {
    fn act(&mut self, what: u8, who: usize, whom: usize) {
        match what % 7 {
            0..=2 => self.join(ROOMS[who % 3], IDS[who / 3 % 4], USERS[whom % 2]),
            3 => {
                let Some(at) = self.somebody(who) else { return };
                self.leave(at);
            }
            4 => self.say(who, whom, 1),
            5 => self.say(who, 0, 1), // to everybody
            _ => match (whom % 4, self.somebody(who)) {
                (0, Some(at)) => self.members[at].asleep = true,
                (1, Some(at)) => self.members[at].asleep = false,
                (2, Some(at)) => self.members[at].mailbox = None,
                (3, Some(_)) if self.choruses < MOST_CHORUSES => {
                    self.choruses += 1;
                    self.say(who, whom / 4, CHORUS);
                }
                _ => {}
            },
        }
    }

    fn somebody(&self, who: usize) -> Option<usize> {
        (!self.members.is_empty()).then(|| who % self.members.len())
    }

    fn seated(&mut self, room: &str) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().filter(move |member| member.is_seated && member.room == room)
    }

    fn tell(&mut self, room: &str, but: &str, news: Value) {
        let news = Rc::new(news);
        let others = self.seated(room).filter(|member| *member.peer.client_id != *but);
        others.for_each(|member| member.hear(&news));
    }

    fn unseat(&mut self, room: &str, client_id: &str) -> String {
        let leaver = self.seated(room).find(|member| *member.peer.client_id == *client_id).unwrap();
        leaver.is_seated = false;
        let username = leaver.peer.username.to_string();
        let connected_users = self.seated(room).count();
        let news = json!({"type":"user_left","room_id":room,"client_id":client_id,"username":username,"connected_users":connected_users});
        self.tell(room, client_id, news);
        username
    }

    fn join(&mut self, room: &'static str, client_id: &str, username: &str) {
        let peer = Peer { client_id: client_id.into(), username: username.into() };
        let (outbox, mailbox) = outbox::channel();
        let notice = mailbox.disconnect_signal();

        let joined = Membership::join_local(&self.rooms, &room.into(), peer.clone(), outbox);

        let is_full = self.seated(room).count() == self.capacity;
        let holder = self.seated(room).find(|member| *member.peer.client_id == *client_id);
        let expected = match holder {
            Some(holder) if *holder.peer.username != *username => Err(JoinError::ClientIdTaken),
            Some(holder) => {
                holder.dismissed.get_or_insert(DisconnectReason::Replaced);
                self.unseat(room, client_id);
                Ok(())
            }
            None if is_full => Err(JoinError::Full),
            None => Ok(()),
        };
        let seat = match (joined, expected) {
            (Ok(seat), Ok(())) => seat,
            (joined, expected) => return assert_eq!(joined.err(), expected.err()),
        };
        let mut users: Vec<_> = self
            .seated(room)
            .map(|member| (member.peer.client_id.to_string(), member.peer.username.to_string()))
            .collect();
        users.sort();
        let users: Vec<_> = users
            .into_iter()
            .map(|(client_id, username)| json!({"client_id":client_id,"username":username,"polite":true}))
            .collect();
        let news = json!({"type":"user_joined","room_id":room,"client_id":client_id,"username":username,"connected_users":users.len() + 1,"polite":false});
        self.tell(room, client_id, news);
        self.members.push(Member {
            room,
            peer,
            seat: Some(seat),
            is_seated: true,
            mailbox: Some(mailbox),
            notice,
            asleep: false,
            due: vec![Rc::new(json!({"type":"users_in_room","users":users}))],
            dismissed: None,
        });
    }

    fn leave(&mut self, at: usize) {
        let member = &mut self.members[at];
        let (room, client_id) = (member.room, member.peer.client_id.clone());

        member.seat = None;

        if member.is_seated {
            self.unseat(room, &client_id);
        }
    }

    /// Says something of one of the four kinds, `times` over, to one or to everybody.
    fn say(&mut self, who: usize, whom: usize, times: usize) {
        let Some(at) = self.somebody(who) else { return };
        let speaker = &mut self.members[at];
        let (room, peer, is_seated) = (speaker.room, speaker.peer.clone(), speaker.is_seated);
        let Some(seat) = speaker.seat.take() else { return };
        let to = match whom % 8 {
            at @ 0..4 if whom > 0 => json!(IDS[at]),
            4 => json!("nobody"),
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
        ][whom / 8 % 4];
        self.said += 1;
        let payload = json!({"n": self.said, "from": "mallory"});
        let frame = json!({"type":kind,"to":to,field:payload,"from":"mallory","username":"x"});
        let frame = frame.to_string();
        let Ok(ClientMessage::Signal(signal)) = wire::parse(&frame).message else {
            panic!("{frame}")
        };
        let named = to.as_str().filter(|to| !to.is_empty());
        let is_there =
            named.is_none_or(|to| self.seated(room).any(|peer| *peer.peer.client_id == *to));
        let expected = match named {
            _ if !is_seated => Err(RouteError::Replaced),
            Some(to) if *to == *peer.client_id => Err(RouteError::TargetIsSender),
            Some(to) if !is_there => Err(RouteError::TargetNotFound(to.to_owned())),
            _ => Ok(()),
        };
        let news =
            json!({"type":kind,field:payload,"from":*peer.client_id,"username":*peer.username});
        let news = Rc::new(news);
        let now = tokio::time::Instant::now();
        for _ in 0..times {
            assert_eq!(seat.send(&signal, now).map(drop), expected);
            if expected.is_ok() {
                let hearers = self.seated(room).filter(|member| {
                    *member.peer.client_id != *peer.client_id
                        && named.is_none_or(|to| *to == *member.peer.client_id)
                });
                hearers.for_each(|hearer| hearer.hear(&news));
            }
        }
        self.members[at].seat = Some(seat);
    }

    /// Who is where, and what each of them has heard so far.
    fn check(&mut self) {
        let mut rooms = BTreeMap::<&str, usize>::new();
        for member in self.members.iter_mut().filter(|member| member.is_seated) {
            *rooms.entry(member.room).or_default() += 1;
            member.listen();
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
