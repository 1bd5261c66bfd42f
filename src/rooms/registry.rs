//! Who is where, and who hears what. Pure: no clock, no socket, no lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    outbox::{Dismissal, Outbox},
    wire::{PeerInRoom, ServerMessage, Signal, quoted},
};

/// Whether `room` may name a room: 1 to 128 characters, none of them a control character.
pub fn is_room_id(room: &str) -> bool {
    (1..=128).contains(&room.chars().count()) && !room.chars().any(char::is_control)
}

/// A member of a room, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Unique in its room.
    pub client_id: Arc<str>,
    /// The account, or the guest's name.
    pub username: Arc<str>,
}

/// Why nobody sat down.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room has no seat left.
    #[error("Room is full")]
    Full,
    /// Another user holds this client id in the room.
    #[error("Client id is taken by another user in this room")]
    ClientIdTaken,
}

/// Why a signal went nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nobody in this room has that client id.
    #[error("Target client {0} not found")]
    NoSuchPeer(String),
    /// The sender named itself.
    #[error("\"to\" is your own client id")]
    Yourself,
    /// The sender's seat has gone to a newer connection; its own is about to end.
    #[error("This connection has been replaced")]
    NotSeated,
}

/// Every room on this server and the outboxes of its members.
pub struct RoomRegistry {
    rooms: HashMap<Arc<str>, Room>,
    capacity: usize,
    members: usize,
    last_seat: u64,
}

/// By client id, so that lists come in one order.
type Room = BTreeMap<Arc<str>, Member>;

struct Member {
    peer: Peer,
    outbox: Outbox,
    /// Tells this member from the one that it replaced, or that replaced it.
    seat: u64,
}

impl RoomRegistry {
    /// No rooms yet; each will hold `capacity` members.
    pub fn new(capacity: usize) -> Self {
        Self { rooms: HashMap::new(), capacity, members: 0, last_seat: 0 }
    }

    /// Seats `peer` in `room` and returns the number of its seat.
    ///
    /// In one step the newcomer's outbox gets `users_in_room` and the others hear `user_joined`:
    /// no message of the room comes before the one, nor is missed after it. A seat that the same
    /// user holds under the same client id is taken over: its connection is dismissed, and the
    /// others hear it leave first, since a reloaded page is a new WebRTC endpoint.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`] and [`JoinError::Full`]; then nothing has changed.
    pub fn join(&mut self, room: &Arc<str>, peer: Peer, outbox: Outbox) -> Result<u64, JoinError> {
        let members = self.rooms.get(room);
        let holder = members.and_then(|members| members.get(&peer.client_id));
        match holder {
            Some(holder) if holder.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            Some(holder) => {
                let seat = holder.seat;
                holder.outbox.dismiss(Dismissal::Replaced);
                self.leave(room, &peer.client_id, seat);
            }
            None if members.map_or(0, BTreeMap::len) >= self.capacity => {
                return Err(JoinError::Full);
            }
            None => {}
        }

        let members = self.rooms.entry(room.clone()).or_default();
        let users = members.values().map(|member| &member.peer);
        let users =
            users.map(|peer| PeerInRoom { client_id: &peer.client_id, username: &peer.username });
        outbox.push(ServerMessage::UsersInRoom { users: users.collect() }.encode());
        let news = ServerMessage::UserJoined {
            room_id: room,
            username: &peer.username,
            client_id: &peer.client_id,
            connected_users: members.len() + 1,
        };
        tell_others(members, &peer.client_id, &news);

        self.last_seat += 1;
        self.members += 1;
        let member = Member { peer, outbox, seat: self.last_seat };
        members.insert(member.peer.client_id.clone(), member);
        Ok(self.last_seat)
    }

    /// Takes a client out of `room` and tells those who stay. Leaving twice is harmless, and so is
    /// leaving a seat that somebody newer has taken.
    pub fn leave(&mut self, room: &str, client_id: &str, seat: u64) {
        let Some(members) = self.rooms.get_mut(room) else { return };
        if members.get(client_id).is_none_or(|member| member.seat != seat) {
            return;
        }
        let Some(Member { peer, .. }) = members.remove(client_id) else { return };
        self.members -= 1;
        if members.is_empty() {
            self.rooms.remove(room);
            return;
        }
        let news = ServerMessage::UserLeft {
            room_id: room,
            client_id,
            username: &peer.username,
            connected_users: members.len(),
        };
        tell_others(members, client_id, &news);
    }

    /// Passes `signal` to the peer it names, or to everyone else in the room.
    ///
    /// # Errors
    ///
    /// One [`RouteError`] variant for each thing the sender could do about it; nobody hears anything.
    pub fn route(
        &self,
        room: &str,
        from: &Peer,
        seat: u64,
        signal: &Signal<'_>,
    ) -> Result<(), RouteError> {
        let members = self.rooms.get(room).ok_or(RouteError::NotSeated)?;
        if members.get(&from.client_id).is_none_or(|member| member.seat != seat) {
            return Err(RouteError::NotSeated);
        }
        let heard = signal.as_heard(&from.client_id, &from.username);
        match signal.to.as_deref() {
            None => tell_others(members, &from.client_id, &heard),
            Some(to) if *to == *from.client_id => return Err(RouteError::Yourself),
            Some(to) => {
                let peer = members.get(to).ok_or_else(|| RouteError::NoSuchPeer(quoted(to)))?;
                peer.outbox.push(heard.encode());
            }
        }
        Ok(())
    }

    /// How many members `room` has; `None` when there is no such room.
    pub fn info(&self, room: &str) -> Option<usize> {
        self.rooms.get(room).map(BTreeMap::len)
    }

    /// Every room and its number of members, by name.
    pub fn list(&self) -> Vec<(Arc<str>, usize)> {
        let mut rooms: Vec<_> =
            self.rooms.iter().map(|(room, members)| (room.clone(), members.len())).collect();
        rooms.sort_unstable();
        rooms
    }

    /// How many members there are in all rooms together.
    pub fn members(&self) -> usize {
        self.members
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }
}

/// Encodes `news` once for everyone in `members` but `client_id`.
fn tell_others(members: &Room, client_id: &str, news: &ServerMessage<'_>) {
    let mut frame = None;
    for member in members.values().filter(|member| *member.peer.client_id != *client_id) {
        member.outbox.push(frame.get_or_insert_with(|| news.encode()).clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        outbox::{self, Mailbox},
        wire::{self, ClientMessage},
    };

    fn peer(client_id: &str, username: &str) -> Peer {
        Peer { client_id: client_id.into(), username: username.into() }
    }

    /// Seats somebody whose client id is the user's name.
    fn enter(rooms: &mut RoomRegistry, room: &str, name: &str) -> (Peer, u64, Mailbox) {
        let (outbox, mailbox) = outbox::pair();
        let peer = peer(name, name);
        let seat = rooms.join(&room.into(), peer.clone(), outbox).unwrap();
        (peer, seat, mailbox)
    }

    fn heard(mailbox: &mut Mailbox) -> Vec<Value> {
        std::iter::from_fn(|| mailbox.next_now())
            .map(|frame| serde_json::from_str(&frame).unwrap())
            .collect()
    }

    fn say(
        rooms: &RoomRegistry,
        room: &str,
        from: &(Peer, u64),
        frame: &str,
    ) -> Result<(), RouteError> {
        match wire::read(frame).message.unwrap() {
            ClientMessage::Signal(signal) => rooms.route(room, &from.0, from.1, &signal),
            other => panic!("{other:?} is no signal"),
        }
    }

    #[test]
    fn a_newcomer_hears_who_is_there_and_the_others_hear_of_the_newcomer() {
        let mut rooms = RoomRegistry::new(10);
        let (_, _, mut alice) = enter(&mut rooms, "den", "alice");
        let (_, _, mut bob) = enter(&mut rooms, "den", "bob");

        assert_eq!(
            heard(&mut bob),
            [json!({"type":"users_in_room","users":[{"client_id":"alice","username":"alice"}]})]
        );
        assert_eq!(
            heard(&mut alice),
            [
                json!({"type":"users_in_room","users":[]}),
                json!({"type":"user_joined","room_id":"den","username":"bob","client_id":"bob","connected_users":2}),
            ]
        );
    }

    #[test]
    fn a_target_in_another_room_does_not_exist() {
        let mut rooms = RoomRegistry::new(10);
        let (alice, seat, _mailbox) = enter(&mut rooms, "den", "alice");
        let (_, _, mut bob) = enter(&mut rooms, "attic", "bob");
        heard(&mut bob);

        let refused =
            say(&rooms, "den", &(alice, seat), r#"{"type":"offer","offer":{},"to":"bob"}"#);

        assert_eq!(refused, Err(RouteError::NoSuchPeer("bob".into())));
        assert_eq!(heard(&mut bob), [] as [Value; 0]);
    }

    #[test]
    fn nobody_hears_itself() {
        let mut rooms = RoomRegistry::new(10);
        let (alice, seat, mut mailbox) = enter(&mut rooms, "den", "alice");
        heard(&mut mailbox);
        let alice = (alice, seat);

        assert_eq!(say(&rooms, "den", &alice, r#"{"type":"message","data":1}"#), Ok(()));
        assert_eq!(
            say(&rooms, "den", &alice, r#"{"type":"message","data":1,"to":"alice"}"#),
            Err(RouteError::Yourself)
        );
        assert_eq!(heard(&mut mailbox), [] as [Value; 0]);
    }

    #[test]
    fn a_full_room_admits_nobody_but_a_reloaded_page() {
        let mut rooms = RoomRegistry::new(2);
        let _alice = enter(&mut rooms, "den", "alice");
        let _bob = enter(&mut rooms, "den", "bob");

        let carol = rooms.join(&"den".into(), peer("carol", "carol"), outbox::pair().0);
        let bob_again = rooms.join(&"den".into(), peer("bob", "bob"), outbox::pair().0);

        assert_eq!(carol, Err(JoinError::Full));
        assert!(bob_again.is_ok());
        assert_eq!(rooms.info("den"), Some(2));
    }

    #[test]
    fn a_client_id_of_another_user_is_taken() {
        let mut rooms = RoomRegistry::new(2);
        let (_, _, mut alice) = enter(&mut rooms, "den", "alice");
        heard(&mut alice);

        let mallory = rooms.join(&"den".into(), peer("alice", "mallory"), outbox::pair().0);

        assert_eq!(mallory, Err(JoinError::ClientIdTaken));
        assert_eq!(heard(&mut alice), [] as [Value; 0]);
    }

    #[test]
    fn a_seat_that_was_taken_over_can_neither_speak_nor_leave() {
        let mut rooms = RoomRegistry::new(10);
        let (alice, old, _mailbox) = enter(&mut rooms, "den", "alice");
        let (_, _, mut bob) = enter(&mut rooms, "den", "bob");
        heard(&mut bob);
        let _new = enter(&mut rooms, "den", "alice");

        let said = say(&rooms, "den", &(alice.clone(), old), r#"{"type":"message","data":1}"#);
        rooms.leave("den", &alice.client_id, old);

        assert_eq!(said, Err(RouteError::NotSeated));
        assert_eq!(rooms.info("den"), Some(2));
        let kinds: Vec<_> = heard(&mut bob).iter().map(|news| news["type"].clone()).collect();
        assert_eq!(kinds, ["user_left", "user_joined"]);
    }

    #[test]
    fn an_empty_room_is_gone() {
        let mut rooms = RoomRegistry::new(10);
        let (alice, seat, _mailbox) = enter(&mut rooms, "den", "alice");

        rooms.leave("den", &alice.client_id, seat);
        rooms.leave("den", &alice.client_id, seat);

        assert_eq!((rooms.info("den"), rooms.rooms(), rooms.members()), (None, 0, 0));
    }

    #[test]
    fn a_room_id_has_one_form() {
        assert!(is_room_id("a") && is_room_id("Zimmer 7/é") && is_room_id(&"é".repeat(128)));
        assert!(
            !is_room_id("")
                && !is_room_id(&"é".repeat(129))
                && !is_room_id("a\nb")
                && !is_room_id("\u{7f}")
        );
    }

    #[derive(Clone, Debug)]
    enum Act {
        Join { room: usize, name: usize, user: usize },
        Leave { seat: usize },
        Say { seat: usize, to: Option<usize> },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..3_usize, 0..5_usize, 0..2_usize).prop_map(|(room, name, user)| Act::Join { room, name, user }),
            3 => (0..20_usize).prop_map(|seat| Act::Leave { seat }),
            4 => (0..20_usize, prop::option::of(0..6_usize)).prop_map(|(seat, to)| Act::Say { seat, to }),
        ];
        prop::collection::vec(act, 1..120)
    }

    /// A member as the test itself keeps it, with the picture of the room that its frames add up to.
    struct Observer {
        room: String,
        peer: Peer,
        seat: u64,
        mailbox: Mailbox,
        sees: BTreeSet<(String, String)>,
        expects: Vec<u64>,
        here: bool,
    }

    impl Observer {
        /// Folds what was heard into the picture, and checks that each step fits the one before.
        fn catch_up(&mut self) {
            for news in heard(&mut self.mailbox) {
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
                            "a stranger spoke"
                        );
                        assert_eq!(news["data"], self.expects.remove(0));
                    }
                    other => panic!("{other}"),
                }
            }
            assert!(self.expects.is_empty(), "something was not heard");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// N04 of the attack catalogue; the fuzz target `registry` has a second model.
        #[test]
        fn what_each_member_has_heard_adds_up_to_who_is_in_the_room(acts in acts()) {
            const CAPACITY: usize = 4;
            let mut rooms = RoomRegistry::new(CAPACITY);
            let mut all: Vec<Observer> = Vec::new();
            let mut said = 0;

            for act in acts {
                match act {
                    Act::Join { room, name, user } => {
                        let (room, peer) = (format!("room {room}"), peer(&format!("c{name}"), &format!("u{user}")));
                        let (outbox, mailbox) = outbox::pair();
                        let inside = all.iter().filter(|other| other.here && other.room == room).count();
                        let holder = all.iter_mut().find(|other| other.here && other.room == room && other.peer.client_id == peer.client_id);
                        let joined = rooms.join(&room.as_str().into(), peer.clone(), outbox);
                        match holder {
                            Some(holder) if holder.peer.username != peer.username => prop_assert_eq!(&joined, &Err(JoinError::ClientIdTaken)),
                            Some(holder) => holder.here = false,
                            None if inside == CAPACITY => prop_assert_eq!(&joined, &Err(JoinError::Full)),
                            None => {}
                        }
                        if let Ok(seat) = joined {
                            all.push(Observer { room, peer, seat, mailbox, sees: BTreeSet::new(), expects: Vec::new(), here: true });
                        }
                    }
                    Act::Leave { seat } => {
                        if let Some(leaver) = all.get_mut(seat) {
                            rooms.leave(&leaver.room, &leaver.peer.client_id, leaver.seat);
                            leaver.here = false;
                        }
                    }
                    Act::Say { seat, to } => {
                        let Some(speaker) = all.get(seat) else { continue };
                        let (room, from, here) = (speaker.room.clone(), (speaker.peer.clone(), speaker.seat), speaker.here);
                        let to = to.map(|to| format!("c{to}"));
                        said += 1;
                        let frame = json!({"type":"message","data":said,"to":to}).to_string();
                        let sent = say(&rooms, &room, &from, &frame);
                        let others = all.iter_mut().filter(|other| other.here && other.room == room && other.peer.client_id != from.0.client_id);
                        let hearers: Vec<_> = others.filter(|other| to.as_deref().is_none_or(|to| *to == *other.peer.client_id)).collect();
                        match (here, to) {
                            (false, _) => prop_assert_eq!(sent, Err(RouteError::NotSeated)),
                            (true, Some(to)) if *to == *from.0.client_id => prop_assert_eq!(sent, Err(RouteError::Yourself)),
                            (true, Some(to)) if hearers.is_empty() => prop_assert_eq!(sent, Err(RouteError::NoSuchPeer(to))),
                            (true, _) => {
                                prop_assert_eq!(sent, Ok(()));
                                for hearer in hearers {
                                    hearer.expects.push(said);
                                }
                            }
                        }
                    }
                }

                let here: Vec<_> = all.iter().filter(|member| member.here).map(|member| (member.room.clone(), member.peer.clone())).collect();
                prop_assert_eq!(rooms.members(), here.len());
                for member in all.iter_mut().filter(|member| member.here) {
                    member.catch_up();
                    let others = here.iter().filter(|(room, peer)| *room == member.room && *peer != member.peer);
                    let others: BTreeSet<_> = others.map(|(_, peer)| (peer.client_id.to_string(), peer.username.to_string())).collect();
                    prop_assert_eq!(&member.sees, &others);
                    prop_assert_eq!(rooms.info(&member.room), Some(others.len() + 1));
                }
            }
        }
    }
}
