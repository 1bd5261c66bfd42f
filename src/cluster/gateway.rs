//! Rooms that span several servers: what a node tells the others, and what it hears of them. Knows no Redis: a
//! [`Fact`] comes in, an [`ClusterCommand`] goes out.

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

use crate::{
    outbox::{ClientQueue, ClientQueueReader},
    replay::ReplayBuffer,
    rooms::{JoinError, Membership, Peer},
    webhooks::What,
    wire::Features,
};

/// Messages for other nodes that may wait for one engine. Who says more than it takes is told so.
pub const MAX_QUEUED_COMMANDS: usize = 65_536;

/// How long a member of another node stays that a picture does not show: as long as its node would be waited for.
pub const UNCONFIRMED_MEMBER_TTL: Duration = Duration::from_secs(8);

/// How long a seat may be on its way to another node before it is given up: longer than a node that is gone is
/// waited for, and who wants it a little longer than who has it.
pub const OUTGOING_MIGRATION_TIMEOUT: Duration = Duration::from_secs(10);
const INCOMING_MIGRATION_TIMEOUT: Duration = Duration::from_secs(15);

/// After so long a node that was asked for a seat is asked again.
pub(crate) const CLAIM_RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Numbers what happens in the rooms of one engine, in its order: arrivals, and moves.
pub type Epoch = u64;

/// One membership in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The node that the member is on.
    pub node: Arc<str>,
    /// Which of all that ever were there.
    pub key: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.key)
    }
}

/// What is written down of a membership, and cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no seat: {0:?}")]
pub struct ParseRecordError(String);

impl FromStr for ConnectionId {
    type Err = ParseRecordError;

    fn from_str(text: &str) -> Result<Self, ParseRecordError> {
        let parts = text.split_once('.');
        let conn = parts.and_then(|(node, key)| {
            Some(Self { node: node.into(), key: u64::from_str_radix(key, 16).ok()? })
        });
        conn.ok_or_else(|| ParseRecordError(text.to_owned()))
    }
}

/// Who is a member, on which connection, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Who it is.
    pub peer: Peer,
    /// On which connection.
    pub connection: ConnectionId,
    /// Who came later has a higher one.
    pub join_order: Epoch,
}

impl MemberRecord {
    /// As the engine keeps it under the client id: `<node>.<key> <arrival> <username>`.
    pub fn to_record(&self) -> String {
        format!("{} {} {}", self.connection, self.join_order, self.peer.username)
    }

    /// The other way.
    ///
    /// # Errors
    ///
    /// [`NoSeat`] where `seat` is none.
    pub fn parse(client_id: &str, seat: &str) -> Result<Self, ParseRecordError> {
        let mut parts = seat.splitn(3, ' ');
        let mut next = || parts.next().ok_or_else(|| ParseRecordError(seat.to_owned()));
        let (conn, arrival, username) = (next()?, next()?, next()?);
        let arrival = arrival.parse().map_err(|_| ParseRecordError(seat.to_owned()))?;
        let peer = Peer { client_id: client_id.into(), username: username.into() };
        Ok(Self { peer, connection: conn.parse()?, join_order: arrival })
    }
}

/// Something that has happened in a room, in the order in which it did.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// One of ours is in.
    Admitted {
        /// Where.
        room: Arc<str>,
        /// Who.
        holder: MemberRecord,
        /// Everybody who is in the room.
        everyone: Vec<MemberRecord>,
    },
    /// Somebody is in on another node.
    Joined {
        /// Where.
        room: Arc<str>,
        /// Who.
        holder: MemberRecord,
    },
    /// Somebody is no longer in.
    Left {
        /// Where.
        room: Arc<str>,
        /// Who.
        client_id: Arc<str>,
        /// On which connection: a newer one stays.
        conn: ConnectionId,
    },
    /// Somebody on another node has said something.
    Relayed {
        /// Where.
        room: Arc<str>,
        /// Who.
        from: Arc<str>,
        /// On which connection.
        conn: ConnectionId,
        /// To whom; `None` is everybody.
        to: Option<Arc<str>>,
        /// What its node had heard of before.
        epoch: Epoch,
        /// What they hear.
        frame: ByteString,
    },
    /// The connection of somebody on another node is gone, and may come back; or is back.
    PeerState {
        /// Where.
        room: Arc<str>,
        /// Who.
        client_id: Arc<str>,
        /// On which connection.
        conn: ConnectionId,
        /// Whether it is gone.
        is_away: bool,
    },
    /// Everybody who is in a room, after we were cut off.
    Snapshot {
        /// Where.
        room: Arc<str>,
        /// Who.
        everyone: Vec<MemberRecord>,
        /// Who hears this has heard of all before.
        epoch: Epoch,
    },
    /// The client of one of ours is on another node, and wants to go on there.
    Claimed {
        /// Which seat.
        moving: Migration,
        /// Tells the membership from all others of the client id.
        membership: u128,
        /// The connection of its client here that is to end for it, if any; see [`Fact::Denied`].
        ends: Option<u64>,
        /// What its new node wants back with it.
        luggage: ByteString,
    },
    /// The seat is not to be had.
    ClaimDenied {
        /// Which seat.
        moving: Migration,
        /// Its client has a connection there, with this number, and may be gone here: whoever still wants it is to say
        /// that this one is to end.
        live: Option<u64>,
    },
    /// A seat is on another node than before; whoever is there stays.
    Moved {
        /// Which seat.
        moving: Migration,
        /// Who.
        holder: MemberRecord,
        /// After it the seat is there, and before it was not.
        epoch: Epoch,
        /// For the node that it has gone to: everybody who is in the room.
        everyone: Vec<MemberRecord>,
        /// For the node that had it: those that may have said something to it before they heard.
        nodes: Vec<Arc<str>>,
    },
    /// What a node says to a member from now on goes to its new node.
    BarrierReached {
        /// Which seat.
        moving: Migration,
        /// Which node.
        node: Arc<str>,
    },
    /// All that was said to a member before it was here.
    HandedOver {
        /// Which seat.
        moving: Migration,
        /// What we wanted back with it.
        luggage: ByteString,
        /// What was said.
        goods: Box<MigrationState>,
    },
}

/// A seat on its way from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Where.
    pub room: Arc<str>,
    /// Whose.
    pub client_id: Arc<str>,
    /// On which connection it was.
    pub from: ConnectionId,
    /// On which connection it will be.
    pub to: ConnectionId,
}

/// What the client of a seat that moves may not have got yet.
#[derive(Clone, Deserialize, Serialize)]
pub struct MigrationState {
    /// Its frames.
    pub replay: Box<ReplayBuffer>,
    /// What it has opted in to.
    pub features: Features,
    /// Whether others know that it is away.
    pub is_missed: bool,
    /// Whom it knows to be there: client ids and usernames.
    pub others: Vec<(String, String)>,
}

/// That there are some, but not what people have said.
impl fmt::Debug for MigrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goods").finish_non_exhaustive()
    }
}

/// A seat that has come from another node; its client is away. Dropping it is leaving.
pub struct MigratedMember {
    /// The membership.
    pub membership: Membership,
    /// Where frames are kept for it.
    pub queue: ClientQueue,
    /// The other end.
    pub reader: ClientQueueReader,
    /// What came with it.
    pub context: ByteString,
    /// Whether a connection of its client waits for it.
    pub is_expected: bool,
}

/// Seats that come, each on its way until what is beside it is dropped.
pub type MigratedMembers = mpsc::UnboundedReceiver<(MigratedMember, MigrationGuard)>;

/// What a node wants of the others.
#[derive(Debug)]
pub enum ClusterCommand {
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
    Webhook {
        /// Where.
        room: Arc<str>,
        /// What.
        what: What,
    },
    /// One of ours has said something to members of another node.
    Relay {
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
    PeerState {
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
    /// The client of a seat on another node is here; `wanted` hears who has it.
    Claim {
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
    DenyClaim {
        /// Which seat.
        moving: Migration,
        /// As there.
        live: Option<u64>,
    },
    /// One of ours is to be on another node.
    Move(Migration),
    /// See [`Fact::Marked`].
    Barrier(Migration),
    /// See [`Fact::Handed`].
    HandOver {
        /// Which seat.
        moving: Migration,
        /// What came with the wish for it.
        luggage: ByteString,
        /// What was said.
        goods: Box<MigrationState>,
        /// It is on its way until this is dropped.
        on_its_way: MigrationGuard,
    },
}

/// The way to the other nodes, as rooms see it: one engine for each part of them.
pub struct ClusterGateway {
    /// Who we are.
    pub node: Arc<str>,
    engines: Vec<EngineState>,
    pending: Mutex<HashMap<u64, PendingJoin>>,
    claims: Mutex<HashMap<u64, PendingClaim>>,
    incoming: Mutex<HashMap<u64, IncomingMigration>>,
    migrated: mpsc::UnboundedSender<(MigratedMember, MigrationGuard)>,
    /// So many seats are on their way, to other nodes and here.
    in_flight: watch::Sender<usize>,
}

struct EngineState {
    commands: mpsc::UnboundedSender<ClusterCommand>,
    queued: AtomicUsize,
    is_up: AtomicBool,
}

/// Somebody who has asked to join.
pub(crate) struct PendingJoin {
    pub(crate) room: Arc<str>,
    pub(crate) queue: ClientQueue,
    pub(crate) reply: oneshot::Sender<Result<Membership, JoinError>>,
}

/// Somebody who waits for a seat that is on another node.
struct PendingClaim {
    room: Arc<str>,
    client_id: Arc<str>,
    membership: u128,
    reply: oneshot::Sender<ClaimReply>,
}

/// What became of the wish for a seat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClaimReply {
    /// It is here.
    Granted,
    /// There is no such seat.
    Nobody,
    /// It was on this connection, and is not to be had there.
    Denied(ConnectionId),
    /// Its client has a connection where it is, with this number.
    Live(u64),
}

/// A seat that is ours already, and what was said before on its way.
pub(crate) struct IncomingMigration {
    pub(crate) membership: Membership,
    pub(crate) queue: ClientQueue,
    pub(crate) reader: ClientQueueReader,
    pub(crate) since: Instant,
    /// Whom we knew to be there when it became ours.
    pub(crate) others: Vec<Peer>,
    /// It is wanted elsewhere already.
    pub(crate) deferred_claim: Option<ClusterEvent>,
    pub(crate) guard: MigrationGuard,
}

/// There is no engine, or it has too much to do.
#[derive(Debug)]
pub(crate) struct EngineUnreachable;

/// A seat is on its way to another node, or here, until this is dropped.
#[derive(Debug)]
pub struct MigrationGuard(watch::Sender<usize>);

impl Drop for MigrationGuard {
    fn drop(&mut self) {
        self.0.send_modify(|moving| *moving -= 1);
    }
}

impl ClusterGateway {
    /// A node that is not connected yet, what it will ask of each engine, and the seats that will come to it.
    pub fn new(
        node: Arc<str>,
        engines: usize,
    ) -> (Self, Vec<mpsc::UnboundedReceiver<ClusterCommand>>, MigratedMembers) {
        let (engines, asked) = (0..engines)
            .map(|_| {
                let (asks, asked) = mpsc::unbounded_channel();
                let engine = EngineState {
                    commands: asks,
                    queued: AtomicUsize::new(0),
                    is_up: AtomicBool::new(false),
                };
                (engine, asked)
            })
            .unzip();
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let (pending, wants, arriving) = (Mutex::default(), Mutex::default(), Mutex::default());
        let moving = watch::Sender::new(0);
        (
            Self {
                node,
                engines,
                pending,
                claims: wants,
                incoming: arriving,
                migrated: arrivals,
                in_flight: moving,
            },
            asked,
            arrived,
        )
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

    fn engine(&self, room: &str) -> Option<&EngineState> {
        self.engines.get(self.engine_of(room))
    }

    /// Whether every engine can be reached.
    pub fn is_up(&self) -> bool {
        self.engines.iter().all(|engine| engine.is_up.load(Ordering::SeqCst))
    }

    /// An engine can be reached, or can no longer be: then whoever waits to join there is told so.
    pub fn set_engine_up(&self, number: usize, is_up: bool) {
        let Some(engine) = self.engines.get(number) else { return };
        engine.is_up.store(is_up, Ordering::SeqCst);
        if !is_up {
            self.pending().retain(|_, pending| self.engine_of(&pending.room) != number);
            self.wants().retain(|_, wanting| self.engine_of(&wanting.room) != number);
        }
    }

    /// So many asks were taken from the queue of an engine.
    pub fn note_dequeued(&self, number: usize, says: usize) {
        if let Some(engine) = self.engines.get(number) {
            engine.queued.fetch_sub(says, Ordering::Relaxed);
        }
    }

    /// Asks to let somebody in; the answer comes as a [`Fact`], or as [`refused`](Self::refused).
    pub(crate) fn join(&self, peer: Peer, key: u64, pending: PendingJoin) {
        let room = pending.room.clone();
        let Some(engine) = self.engine(&room) else { return };
        self.pending().insert(key, pending);
        // In this order: whoever finds the engine gone clears what waits.
        let is_asked = engine.is_up.load(Ordering::SeqCst)
            && engine.commands.send(ClusterCommand::Join { room, peer, key }).is_ok();
        if !is_asked {
            self.pending().remove(&key);
        }
    }

    /// Somebody may not come in.
    pub fn refuse_join(&self, key: u64, why: JoinError) {
        if let Some(pending) = self.pending().remove(&key) {
            let _ = pending.reply.send(Err(why));
        }
    }

    pub(crate) fn take_pending_join(&self, key: u64) -> Option<PendingJoin> {
        self.pending().remove(&key)
    }

    /// Asks for something that is asked again, or is part of what we state, where it is lost.
    pub(crate) fn send(&self, room: &str, ask: ClusterCommand) {
        if let Some(engine) = self.engine(room) {
            let _ = engine.commands.send(ask);
        }
    }

    /// Asks for the seat of `client_id`, which is on another node; what becomes of the wish. Nothing is heard where
    /// the engine is lost meanwhile.
    pub(crate) fn claim(
        &self,
        room: &Arc<str>,
        client_id: &Arc<str>,
        membership: u128,
        ends: Option<u64>,
        luggage: ByteString,
    ) -> oneshot::Receiver<ClaimReply> {
        let (reply, answer) = oneshot::channel();
        let Some(engine) = self.engine(room) else { return answer };
        let (room, client_id, key) = (room.clone(), client_id.clone(), random_key());
        let wanting =
            PendingClaim { room: room.clone(), client_id: client_id.clone(), membership, reply };
        self.wants().insert(key, wanting);
        // In this order: whoever finds the engine gone clears what waits.
        let is_asked = engine.is_up.load(Ordering::SeqCst)
            && engine
                .commands
                .send(ClusterCommand::Claim { room, client_id, membership, ends, key, luggage })
                .is_ok();
        if !is_asked {
            self.wants().remove(&key);
        }
        answer
    }

    /// Which seat was wanted for connection `key`: room, client id, and key of the membership.
    pub(crate) fn pending_claim(&self, key: u64) -> Option<(Arc<str>, Arc<str>, u128)> {
        let wants = self.wants();
        let PendingClaim { room, client_id, membership, .. } = wants.get(&key)?;
        Some((room.clone(), client_id.clone(), *membership))
    }

    pub(crate) fn answer_claim(&self, key: u64, wish: ClaimReply) {
        if let Some(wanting) = self.wants().remove(&key) {
            let _ = wanting.reply.send(wish);
        }
    }

    /// A seat is ours; what was said before is on its way.
    pub(crate) fn register_incoming(&self, key: u64, arriving: IncomingMigration) {
        self.arriving().insert(key, arriving);
    }

    /// Keeps a wish for a seat that is not all here yet, or gives it back.
    pub(crate) fn defer_claim(&self, key: u64, wanted: ClusterEvent) -> Option<ClusterEvent> {
        match self.arriving().get_mut(&key) {
            Some(arriving) => {
                arriving.deferred_claim = Some(wanted);
                None
            }
            None => Some(wanted),
        }
    }

    /// All of a seat is here; the wish for it that came before, and whether its client is here, too.
    pub(crate) fn complete_incoming(
        &self,
        key: u64,
        luggage: ByteString,
        goods: MigrationState,
    ) -> Option<(ClusterEvent, bool)> {
        let arriving = self.arriving().remove(&key)?;
        let IncomingMigration {
            membership: seat,
            queue: outbox,
            reader: mailbox,
            others: has,
            deferred_claim: wanted,
            guard: on_its_way,
            ..
        } = arriving;
        let MigrationState { replay, features, is_missed, others: had } = goods;
        let membership = replay.key();
        outbox.absorb_migration(replay, seat.roster_changes(&had, &has), features, is_missed);
        let mut wants = self.wants();
        let waiting = wants.extract_if(|_, wanting| wanting.membership == membership);
        let replies: Vec<_> = waiting.map(|(_, wanting)| wanting.reply).collect();
        drop(wants);
        let is_expected = replies.iter().any(|reply| !reply.is_closed());
        let arrival = MigratedMember {
            membership: seat,
            queue: outbox,
            reader: mailbox,
            context: luggage,
            is_expected,
        };
        let _ = self.migrated.send((arrival, on_its_way));
        for reply in replies {
            let _ = reply.send(ClaimReply::Granted);
        }
        wanted.map(|wanted| (wanted, is_expected))
    }

    /// A seat is here without its client.
    pub(crate) fn deliver_migrated(&self, arrival: MigratedMember) {
        let _ = self.migrated.send((arrival, self.track_migration()));
    }

    /// Those that are ours and whose goods do not come. Dropping them is leaving.
    pub(crate) fn expire_incoming(&self, now: Instant) -> Vec<IncomingMigration> {
        let is_overdue = |_: &u64, it: &mut IncomingMigration| {
            now.duration_since(it.since) >= INCOMING_MIGRATION_TIMEOUT
        };
        self.arriving().extract_if(is_overdue).map(|(_, arriving)| arriving).collect()
    }

    /// A seat is on its way to another node, or here.
    pub(crate) fn track_migration(&self) -> MigrationGuard {
        self.in_flight.send_modify(|moving| *moving += 1);
        MigrationGuard(self.in_flight.clone())
    }

    /// Waits until no seat is on its way.
    pub async fn wait_for_migrations(&self) {
        let _ = self.in_flight.subscribe().wait_for(|moving| *moving == 0).await;
    }

    /// Says something that is not worth more than there is room for.
    pub(crate) fn try_send(
        &self,
        room: &str,
        ask: ClusterCommand,
    ) -> Result<(), EngineUnreachable> {
        let engine = self.engine(room).ok_or(EngineUnreachable)?;
        if !engine.is_up.load(Ordering::Relaxed) {
            return Err(EngineUnreachable);
        }
        if engine.queued.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED_COMMANDS {
            engine.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(EngineUnreachable);
        }
        engine.commands.send(ask).map_err(|_| EngineUnreachable)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, PendingJoin>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self) -> MutexGuard<'_, HashMap<u64, PendingClaim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arriving(&self) -> MutexGuard<'_, HashMap<u64, IncomingMigration>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For a connection that nobody has had before; never 0, which stands for none.
pub(crate) fn random_key() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_written_and_read_the_same() {
        let peer = Peer { client_id: "alice-1".into(), username: "alice of the hill".into() };
        let holder = MemberRecord {
            peer,
            connection: ConnectionId { node: "n1".into(), key: 0xfeed },
            join_order: 7,
        };

        assert_eq!(holder.to_record(), "n1.000000000000feed 7 alice of the hill");
        assert_eq!(MemberRecord::parse("alice-1", &holder.to_record()), Ok(holder));
        for wrong in ["", "n1", "n1.x 7 alice", "n1.1 x alice", "n1.1 7"] {
            assert!(MemberRecord::parse("alice-1", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn few_rooms_move_where_an_engine_is_added() {
        let of = |engines| {
            let (far, ..) = ClusterGateway::new("n".into(), engines);
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
