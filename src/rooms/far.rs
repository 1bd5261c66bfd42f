//! Rooms that span several servers: what a node tells the others, and what it hears of them. Knows no Redis: a
//! [`Fact`] comes in, an [`Ask`] goes out.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{JoinError, Peer, Seat};
use crate::{
    outbox::{Mailbox, Outbox},
    replay::Replay,
    webhooks::WebhookEvent,
    wire::Features,
};

/// Messages for other nodes that may wait for one engine. Who says more than it takes is told so.
pub const MOST_WAITING: usize = 65_536;

/// How long a member of another node stays that a picture does not show: as long as its node would be waited for.
pub const DOUBT: Duration = Duration::from_secs(8);

/// How long a seat may be on its way to another node before it is given up: longer than a node that is gone is
/// waited for, and who wants it a little longer than who has it.
pub const MOVED_WITHIN: Duration = Duration::from_secs(10);
const ARRIVED_WITHIN: Duration = Duration::from_secs(15);

/// After so long a node that was asked for a seat is asked again.
pub(super) const WANTED_AGAIN: Duration = Duration::from_secs(3);

/// Numbers what happens in the rooms of one engine, in its order: arrivals, and moves.
pub type Epoch = u64;

/// One membership in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conn {
    /// The node that the member is on.
    pub node: Arc<str>,
    /// Which of all that ever were there.
    pub key: u64,
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.key)
    }
}

/// What is written down of a membership, and cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no seat: {0:?}")]
pub struct NoSeat(String);

impl FromStr for Conn {
    type Err = NoSeat;

    fn from_str(text: &str) -> Result<Self, NoSeat> {
        let parts = text.split_once('.');
        let conn = parts.and_then(|(node, key)| {
            Some(Self { node: node.into(), key: u64::from_str_radix(key, 16).ok()? })
        });
        conn.ok_or_else(|| NoSeat(text.to_owned()))
    }
}

/// Who is a member, on which connection, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who it is.
    pub peer: Peer,
    /// On which connection.
    pub conn: Conn,
    /// Who came later has a higher one.
    pub arrival: Epoch,
}

impl Holder {
    /// As the engine keeps it under the client id: `<node>.<key> <arrival> <username>`.
    pub fn seat(&self) -> String {
        format!("{} {} {}", self.conn, self.arrival, self.peer.username)
    }

    /// The other way.
    ///
    /// # Errors
    ///
    /// [`NoSeat`] where `seat` is none.
    pub fn of(client_id: &str, seat: &str) -> Result<Self, NoSeat> {
        let mut parts = seat.splitn(3, ' ');
        let mut next = || parts.next().ok_or_else(|| NoSeat(seat.to_owned()));
        let (conn, arrival, username) = (next()?, next()?, next()?);
        let arrival = arrival.parse().map_err(|_| NoSeat(seat.to_owned()))?;
        let peer = Peer { client_id: client_id.into(), username: username.into() };
        Ok(Self { peer, conn: conn.parse()?, arrival })
    }
}

/// Something that has happened in a room, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Fact {
    /// One of ours is in.
    Seated {
        /// Where.
        room: Arc<str>,
        /// Who.
        holder: Holder,
        /// Everybody who is in the room.
        everyone: Vec<Holder>,
    },
    /// Somebody is in on another node.
    Joined {
        /// Where.
        room: Arc<str>,
        /// Who.
        holder: Holder,
    },
    /// Somebody is no longer in.
    Left {
        /// Where.
        room: Arc<str>,
        /// Who.
        client_id: Arc<str>,
        /// On which connection: a newer one stays.
        conn: Conn,
    },
    /// Somebody on another node has said something.
    Said {
        /// Where.
        room: Arc<str>,
        /// Who.
        from: Arc<str>,
        /// On which connection.
        conn: Conn,
        /// To whom; `None` is everybody.
        to: Option<Arc<str>>,
        /// What its node had heard of before.
        epoch: Epoch,
        /// What they hear.
        frame: ByteString,
    },
    /// The connection of somebody on another node is gone, and may come back; or is back.
    State {
        /// Where.
        room: Arc<str>,
        /// Who.
        client_id: Arc<str>,
        /// On which connection.
        conn: Conn,
        /// Whether it is gone.
        is_away: bool,
    },
    /// Everybody who is in a room, after we were cut off.
    Picture {
        /// Where.
        room: Arc<str>,
        /// Who.
        everyone: Vec<Holder>,
        /// Who hears this has heard of all before.
        epoch: Epoch,
    },
    /// The client of one of ours is on another node, and wants to go on there.
    Wanted {
        /// Which seat.
        moving: Moving,
        /// Tells the membership from all others of the client id.
        membership: u128,
        /// The connection of its client here that is to end for it, if any; see [`Fact::Denied`].
        ends: Option<u64>,
        /// What its new node wants back with it.
        luggage: ByteString,
    },
    /// The seat is not to be had.
    Denied {
        /// Which seat.
        moving: Moving,
        /// Its client has a connection there, with this number, and may be gone here: whoever still wants it is to say
        /// that this one is to end.
        live: Option<u64>,
    },
    /// A seat is on another node than before; whoever is there stays.
    Moved {
        /// Which seat.
        moving: Moving,
        /// Who.
        holder: Holder,
        /// After it the seat is there, and before it was not.
        epoch: Epoch,
        /// For the node that it has gone to: everybody who is in the room.
        everyone: Vec<Holder>,
        /// For the node that had it: those that may have said something to it before they heard.
        nodes: Vec<Arc<str>>,
    },
    /// What a node says to a member from now on goes to its new node.
    Marked {
        /// Which seat.
        moving: Moving,
        /// Which node.
        node: Arc<str>,
    },
    /// All that was said to a member before it was here.
    Handed {
        /// Which seat.
        moving: Moving,
        /// What we wanted back with it.
        luggage: ByteString,
        /// What was said.
        goods: Box<Goods>,
    },
}

/// A seat on its way from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Where.
    pub room: Arc<str>,
    /// Whose.
    pub client_id: Arc<str>,
    /// On which connection it was.
    pub from: Conn,
    /// On which connection it will be.
    pub to: Conn,
}

/// What the client of a seat that moves may not have got yet.
#[derive(Clone, Deserialize, Serialize)]
pub struct Goods {
    /// Its frames.
    pub replay: Box<Replay>,
    /// What it has opted in to.
    pub features: Features,
    /// Whether others know that it is away.
    pub is_missed: bool,
    /// Whom it knows to be there: client ids and usernames.
    pub others: Vec<(String, String)>,
}

/// That there are some, but not what people have said.
impl fmt::Debug for Goods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goods").finish_non_exhaustive()
    }
}

/// A seat that has come from another node; its client is away. Dropping it is leaving.
pub struct Arrival {
    /// The membership.
    pub seat: Seat,
    /// Where frames are kept for it.
    pub outbox: Outbox,
    /// The other end.
    pub mailbox: Mailbox,
    /// What came with it.
    pub luggage: ByteString,
    /// Whether a connection of its client waits for it.
    pub is_expected: bool,
}

/// Seats that come, each on its way until what is beside it is dropped.
pub type Arrivals = mpsc::UnboundedReceiver<(Arrival, OnItsWay)>;

/// What a node wants of the others.
#[derive(Debug)]
pub enum Ask {
    /// Somebody wants in.
    Join {
        /// Where.
        room: Arc<str>,
        /// Who.
        peer: Peer,
        /// The key of its connection.
        key: u64,
    },
    /// One of ours has left.
    Leave {
        /// Where.
        room: Arc<str>,
        /// Who.
        peer: Peer,
        /// The key of its connection.
        key: u64,
        /// One of our own words; nothing where it is not we who tell of it.
        why: Option<&'static str>,
        /// The number of what was told outside before.
        sequence: u64,
    },
    /// Something has happened that is told outside, and needs a number.
    Tell {
        /// Where.
        room: Arc<str>,
        /// What happened.
        what: WebhookEvent,
    },
    /// One of ours has said something to members of another node.
    Say {
        /// Where they are.
        node: Arc<str>,
        /// Where.
        room: Arc<str>,
        /// Who.
        from: Arc<str>,
        /// The key of its connection.
        key: u64,
        /// To whom; `None` is everybody.
        to: Option<Arc<str>>,
        /// See [`Fact::Said`].
        epoch: Epoch,
        /// What they hear.
        frame: ByteString,
    },
    /// See [`Fact::State`].
    State {
        /// Who is to know.
        node: Arc<str>,
        /// Where.
        room: Arc<str>,
        /// Who.
        client_id: Arc<str>,
        /// The key of its connection.
        key: u64,
        /// Whether it is gone.
        is_away: bool,
    },
    /// The client of a seat on another node is here; [`wanted`](super::Rooms::wanted) hears who has it.
    Want {
        /// Where.
        room: Arc<str>,
        /// Whose.
        client_id: Arc<str>,
        /// See [`Fact::Wanted`].
        membership: u128,
        /// As well.
        ends: Option<u64>,
        /// The key of the connection that it will be on.
        key: u64,
        /// See [`Fact::Wanted`].
        luggage: ByteString,
    },
    /// See [`Fact::Denied`].
    Deny {
        /// Which seat.
        moving: Moving,
        /// As there.
        live: Option<u64>,
    },
    /// One of ours is to be on another node.
    Move(Moving),
    /// See [`Fact::Marked`].
    Mark(Moving),
    /// See [`Fact::Handed`].
    Hand {
        /// Which seat.
        moving: Moving,
        /// What came with the wish for it.
        luggage: ByteString,
        /// What was said.
        goods: Box<Goods>,
        /// It is on its way until this is dropped.
        on_its_way: OnItsWay,
    },
}

/// The way to the other nodes, as rooms see it: one engine for each part of them.
pub struct Far {
    /// Who we are.
    pub node: Arc<str>,
    engines: Vec<Engine>,
    pending: Mutex<HashMap<u64, Pending>>,
    wants: Mutex<HashMap<u64, Wanting>>,
    arriving: Mutex<HashMap<u64, Arriving>>,
    arrivals: mpsc::UnboundedSender<(Arrival, OnItsWay)>,
    /// So many seats are on their way, to other nodes and here.
    moving: watch::Sender<usize>,
}

struct Engine {
    asks: mpsc::UnboundedSender<Ask>,
    waiting: AtomicUsize,
    is_up: AtomicBool,
}

/// Somebody who has asked to join.
pub(super) struct Pending {
    pub(super) room: Arc<str>,
    pub(super) outbox: Outbox,
    pub(super) reply: oneshot::Sender<Result<Seat, JoinError>>,
}

/// Somebody who waits for a seat that is on another node.
struct Wanting {
    room: Arc<str>,
    client_id: Arc<str>,
    membership: u128,
    reply: oneshot::Sender<Wish>,
}

/// What became of the wish for a seat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is here.
    Granted,
    /// There is no such seat.
    Nobody,
    /// It was on this connection, and is not to be had there.
    Denied(Conn),
    /// Its client has a connection where it is, with this number.
    Live(u64),
}

/// A seat that is ours already, and what was said before on its way.
pub(super) struct Arriving {
    pub(super) seat: Seat,
    pub(super) outbox: Outbox,
    pub(super) mailbox: Mailbox,
    pub(super) since: Instant,
    /// Whom we knew to be there when it became ours.
    pub(super) others: Vec<Peer>,
    /// It is wanted elsewhere already.
    pub(super) wanted: Option<Fact>,
    pub(super) on_its_way: OnItsWay,
}

/// There is no engine, or it has too much to do.
#[derive(Debug)]
pub(super) struct Unreachable;

/// A seat is on its way to another node, or here, until this is dropped.
#[derive(Debug)]
pub struct OnItsWay(watch::Sender<usize>);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.send_modify(|moving| *moving -= 1);
    }
}

impl Far {
    /// A node that is not connected yet, what it will ask of each engine, and the seats that will come to it.
    pub fn new(
        node: Arc<str>,
        engines: usize,
    ) -> (Self, Vec<mpsc::UnboundedReceiver<Ask>>, Arrivals) {
        let (engines, asked) = (0..engines)
            .map(|_| {
                let (asks, asked) = mpsc::unbounded_channel();
                let engine =
                    Engine { asks, waiting: AtomicUsize::new(0), is_up: AtomicBool::new(false) };
                (engine, asked)
            })
            .unzip();
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let (pending, wants, arriving) = (Mutex::default(), Mutex::default(), Mutex::default());
        let moving = watch::Sender::new(0);
        (Self { node, engines, pending, wants, arriving, arrivals, moving }, asked, arrived)
    }

    /// Which engine a room belongs to. Source: Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm".
    pub fn engine_of(&self, room: &str) -> usize {
        let buckets = self.engines.len();
        // FNV-1a: the same on every node and in every version, unlike the hash of the standard library.
        let mut key = room.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (mut bucket, mut next) = (0_usize, 0_usize);
        while next < buckets {
            bucket = next;
            key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "as in the paper"
            )]
            let jump =
                ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as usize;
            next = jump;
        }
        bucket
    }

    fn engine(&self, room: &str) -> Option<&Engine> {
        self.engines.get(self.engine_of(room))
    }

    /// Whether every engine can be reached.
    pub fn is_up(&self) -> bool {
        self.engines.iter().all(|engine| engine.is_up.load(Ordering::SeqCst))
    }

    /// An engine can be reached, or can no longer be: then whoever waits to join there is told so.
    pub fn engine_is(&self, number: usize, is_up: bool) {
        let Some(engine) = self.engines.get(number) else { return };
        engine.is_up.store(is_up, Ordering::SeqCst);
        if !is_up {
            self.pending().retain(|_, pending| self.engine_of(&pending.room) != number);
            self.wants().retain(|_, wanting| self.engine_of(&wanting.room) != number);
        }
    }

    /// So many asks were taken from the queue of an engine.
    pub fn taken(&self, number: usize, says: usize) {
        if let Some(engine) = self.engines.get(number) {
            engine.waiting.fetch_sub(says, Ordering::Relaxed);
        }
    }

    /// Asks to let somebody in; the answer comes as a [`Fact`], or as [`refused`](Self::refused).
    pub(super) fn join(&self, peer: Peer, key: u64, pending: Pending) {
        let room = pending.room.clone();
        let Some(engine) = self.engine(&room) else { return };
        self.pending().insert(key, pending);
        // In this order: whoever finds the engine gone clears what waits.
        let is_asked = engine.is_up.load(Ordering::SeqCst)
            && engine.asks.send(Ask::Join { room, peer, key }).is_ok();
        if !is_asked {
            self.pending().remove(&key);
        }
    }

    /// Somebody may not come in.
    pub fn refused(&self, key: u64, why: JoinError) {
        if let Some(pending) = self.pending().remove(&key) {
            let _ = pending.reply.send(Err(why));
        }
    }

    pub(super) fn admitted(&self, key: u64) -> Option<Pending> {
        self.pending().remove(&key)
    }

    /// Asks for something that is asked again, or is part of what we state, where it is lost.
    pub(super) fn asks(&self, room: &str, ask: Ask) {
        if let Some(engine) = self.engine(room) {
            let _ = engine.asks.send(ask);
        }
    }

    /// Asks for the seat of `client_id`, which is on another node; what becomes of the wish. Nothing is heard where
    /// the engine is lost meanwhile.
    pub(super) fn wants_seat(
        &self,
        room: &Arc<str>,
        client_id: &Arc<str>,
        membership: u128,
        ends: Option<u64>,
        luggage: ByteString,
    ) -> oneshot::Receiver<Wish> {
        let (reply, answer) = oneshot::channel();
        let Some(engine) = self.engine(room) else { return answer };
        let (room, client_id, key) = (room.clone(), client_id.clone(), any_key());
        let wanting =
            Wanting { room: room.clone(), client_id: client_id.clone(), membership, reply };
        self.wants().insert(key, wanting);
        // In this order: whoever finds the engine gone clears what waits.
        let is_asked = engine.is_up.load(Ordering::SeqCst)
            && engine
                .asks
                .send(Ask::Want { room, client_id, membership, ends, key, luggage })
                .is_ok();
        if !is_asked {
            self.wants().remove(&key);
        }
        answer
    }

    /// Which seat was wanted for connection `key`: room, client id, and key of the membership.
    pub(super) fn wish(&self, key: u64) -> Option<(Arc<str>, Arc<str>, u128)> {
        let wants = self.wants();
        let Wanting { room, client_id, membership, .. } = wants.get(&key)?;
        Some((room.clone(), client_id.clone(), *membership))
    }

    pub(super) fn answers(&self, key: u64, wish: Wish) {
        if let Some(wanting) = self.wants().remove(&key) {
            let _ = wanting.reply.send(wish);
        }
    }

    /// A seat is ours; what was said before is on its way.
    pub(super) fn awaits(&self, key: u64, arriving: Arriving) {
        self.arriving().insert(key, arriving);
    }

    /// Keeps a wish for a seat that is not all here yet, or gives it back.
    pub(super) fn defers(&self, key: u64, wanted: Fact) -> Option<Fact> {
        match self.arriving().get_mut(&key) {
            Some(arriving) => {
                arriving.wanted = Some(wanted);
                None
            }
            None => Some(wanted),
        }
    }

    /// All of a seat is here; the wish for it that came before, and whether its client is here, too.
    pub(super) fn arrived(
        &self,
        key: u64,
        luggage: ByteString,
        goods: Goods,
    ) -> Option<(Fact, bool)> {
        let arriving = self.arriving().remove(&key)?;
        let Arriving { seat, outbox, mailbox, others: has, wanted, on_its_way, .. } = arriving;
        let Goods { replay, features, is_missed, others: had } = goods;
        let membership = replay.key();
        outbox.takes_up(replay, seat.news_between(&had, &has), features, is_missed);
        let mut wants = self.wants();
        let waiting = wants.extract_if(|_, wanting| wanting.membership == membership);
        let replies: Vec<_> = waiting.map(|(_, wanting)| wanting.reply).collect();
        drop(wants);
        let is_expected = replies.iter().any(|reply| !reply.is_closed());
        let arrival = Arrival { seat, outbox, mailbox, luggage, is_expected };
        let _ = self.arrivals.send((arrival, on_its_way));
        for reply in replies {
            let _ = reply.send(Wish::Granted);
        }
        wanted.map(|wanted| (wanted, is_expected))
    }

    /// A seat is here without its client.
    pub(super) fn comes(&self, arrival: Arrival) {
        let _ = self.arrivals.send((arrival, self.is_on_its_way()));
    }

    /// Those that are ours and whose goods do not come. Dropping them is leaving.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Arriving> {
        let is_overdue =
            |_: &u64, it: &mut Arriving| now.duration_since(it.since) >= ARRIVED_WITHIN;
        self.arriving().extract_if(is_overdue).map(|(_, arriving)| arriving).collect()
    }

    /// A seat is on its way to another node, or here.
    pub(super) fn is_on_its_way(&self) -> OnItsWay {
        self.moving.send_modify(|moving| *moving += 1);
        OnItsWay(self.moving.clone())
    }

    /// Waits until no seat is on its way.
    pub async fn all_have_moved(&self) {
        let _ = self.moving.subscribe().wait_for(|moving| *moving == 0).await;
    }

    /// Says something that is not worth more than there is room for.
    pub(super) fn say(&self, room: &str, ask: Ask) -> Result<(), Unreachable> {
        let engine = self.engine(room).ok_or(Unreachable)?;
        if !engine.is_up.load(Ordering::Relaxed) {
            return Err(Unreachable);
        }
        if engine.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING {
            engine.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Unreachable);
        }
        engine.asks.send(ask).map_err(|_| Unreachable)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self) -> MutexGuard<'_, HashMap<u64, Wanting>> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arriving(&self) -> MutexGuard<'_, HashMap<u64, Arriving>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For a connection that nobody has had before; never 0, which stands for none.
pub(super) fn any_key() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_written_and_read_the_same() {
        let peer = Peer { client_id: "alice-1".into(), username: "alice of the hill".into() };
        let holder = Holder { peer, conn: Conn { node: "n1".into(), key: 0xfeed }, arrival: 7 };

        assert_eq!(holder.seat(), "n1.000000000000feed 7 alice of the hill");
        assert_eq!(Holder::of("alice-1", &holder.seat()), Ok(holder));
        for wrong in ["", "n1", "n1.x 7 alice", "n1.1 x alice", "n1.1 7"] {
            assert!(Holder::of("alice-1", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn few_rooms_move_where_an_engine_is_added() {
        let of = |engines| {
            let (far, ..) = Far::new("n".into(), engines);
            (0..3_000).map(move |room| far.engine_of(&format!("room {room}"))).collect::<Vec<_>>()
        };
        let (two, three) = (of(2), of(3));

        for engine in 0..3 {
            let rooms = three.iter().filter(|other| **other == engine).count();
            assert!((850..1_150).contains(&rooms), "{rooms} on {engine}");
        }
        let moved: Vec<_> = two.iter().zip(&three).filter(|(two, three)| two != three).collect();
        assert!(moved.iter().all(|(_, three)| **three == 2), "they move to the new one alone");
    }
}
