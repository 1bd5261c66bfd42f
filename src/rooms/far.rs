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
use tokio::sync::{mpsc, oneshot};

use super::{JoinError, Peer, Seat};
use crate::outbox::Outbox;

/// Messages for other nodes that may wait for one engine. Who says more than it takes is told so.
pub const MOST_WAITING: usize = 65_536;

/// How long a member of another node stays that a picture does not show: as long as its node would be waited for.
pub const DOUBT: Duration = Duration::from_secs(8);

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
    pub arrival: u64,
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
    },
}

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
        client_id: Arc<str>,
        /// The key of its connection.
        key: u64,
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
}

/// The way to the other nodes, as rooms see it: one engine for each part of them.
pub struct Far {
    /// Who we are.
    pub node: Arc<str>,
    engines: Vec<Engine>,
    pending: Mutex<HashMap<u64, Pending>>,
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

/// There is no engine, or it has too much to do.
#[derive(Debug)]
pub(super) struct Unreachable;

impl Far {
    /// A node that is not connected yet, and what it will ask of each engine.
    pub fn new(node: Arc<str>, engines: usize) -> (Self, Vec<mpsc::UnboundedReceiver<Ask>>) {
        let (engines, asked) = (0..engines)
            .map(|_| {
                let (asks, asked) = mpsc::unbounded_channel();
                let engine =
                    Engine { asks, waiting: AtomicUsize::new(0), is_up: AtomicBool::new(false) };
                (engine, asked)
            })
            .unzip();
        (Self { node, engines, pending: Mutex::default() }, asked)
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

    pub(super) fn leave(&self, room: Arc<str>, client_id: Arc<str>, key: u64) {
        if let Some(engine) = self.engine(&room) {
            let _ = engine.asks.send(Ask::Leave { room, client_id, key });
        }
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
            let (far, _) = Far::new("n".into(), engines);
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
