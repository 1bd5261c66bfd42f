//! The way from rooms to the other nodes: one queue of commands for each Redis.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    connection::RedisConnection,
    evictions::PendingEvictions,
    messages::ClusterCommand,
    pending::{IncomingMigration, PendingClaim, PendingJoin},
    reach::PendingReach,
    receipts::{ReceivedSignals, SignalNumber, SignalReceipts, UnconfirmedSignals},
    scripts::Scripts,
    sharding,
};
use crate::{
    migration::{ClusterTimings, MigrationGuard, MigrationTracker},
    rooms::{
        ClusterCounts, ClusterUnavailable, MigratedMember, NodeUnreachable, RelayedFrame,
        RelayedSignal, RoomRegistry,
    },
};

/// Frames for other nodes that may wait for one Redis. A sender gets an error for each further one.
pub const MAX_QUEUED_COMMANDS: usize = 65_536;

/// Login attempts that may wait to be sent to other nodes; of more than that at once they get a part.
const MAX_QUEUED_AUTH_EVENTS: usize = 1_024;

/// Memberships that come from other nodes, each on its way until its guard is dropped.
pub type MigratedMembers = mpsc::UnboundedReceiver<(MigratedMember, MigrationGuard)>;

/// What a gateway passes on.
pub struct GatewayQueues {
    /// Commands, for each Redis.
    pub commands: Vec<mpsc::UnboundedReceiver<ClusterCommand>>,
    /// Login attempts.
    pub auth_events: mpsc::Receiver<String>,
}

/// The way to the other nodes, as rooms see it.
pub struct ClusterGateway {
    /// The name of this node.
    pub node: Arc<str>,
    /// The durations that the cluster keeps to.
    pub timings: ClusterTimings,
    pub(super) scripts: Scripts,
    pub(super) engines: Vec<EngineState>,
    pub(super) pending_joins: Mutex<HashMap<u64, PendingJoin>>,
    pub(super) pending_claims: Mutex<HashMap<u64, PendingClaim>>,
    pub(super) pending_evictions: Mutex<PendingEvictions>,
    pub(super) pending_reach: Mutex<PendingReach>,
    pub(super) incoming: Mutex<HashMap<u64, IncomingMigration>>,
    pub(super) migrated: mpsc::UnboundedSender<(MigratedMember, MigrationGuard)>,
    pub(super) migrations: MigrationTracker,
    pub(super) auth_events: mpsc::Sender<String>,
    /// Has a permit for each Redis that sends no membership here any more.
    pub(super) closed_engines: Semaphore,
    /// Why this node cannot be part of the cluster.
    failure: watch::Sender<Option<String>>,
    /// How many rooms, members and counts Redis had lost.
    repairs: AtomicU64,
    /// The highest epoch that was applied to a room.
    pub(super) highest_epoch: AtomicU64,
    /// See [`Backend::note_unsettled`](crate::rooms::Backend::note_unsettled).
    unsettled: Mutex<HashSet<Arc<str>>>,
}

/// One Redis.
pub(super) struct EngineState {
    pub(super) commands: mpsc::UnboundedSender<ClusterCommand>,
    /// How many of the commands are limited by [`MAX_QUEUED_COMMANDS`].
    queued: AtomicUsize,
    pub(super) is_up: AtomicBool,
    /// What there was at the last heartbeat.
    pub(super) counts: Mutex<ClusterCounts>,
    /// The connection, while there is one.
    connection: Mutex<Option<RedisConnection>>,
    /// Signals of this node that others have not confirmed.
    unconfirmed: Mutex<UnconfirmedSignals>,
    /// Signals of others that were read, and which of them are to be confirmed.
    received: Mutex<ReceivedSignals>,
    has_receipts: Notify,
}

impl ClusterGateway {
    /// A node that is not connected yet to so many `engines`, what it will ask of them, and the memberships that will come to
    /// it.
    pub fn new(
        node: Arc<str>,
        engines: usize,
        timings: ClusterTimings,
    ) -> (Arc<Self>, GatewayQueues, MigratedMembers) {
        let (engines, commands) = (0..engines)
            .map(|_| {
                let (commands, queue) = mpsc::unbounded_channel();
                let engine = EngineState {
                    commands,
                    queued: AtomicUsize::new(0),
                    is_up: AtomicBool::new(false),
                    counts: Mutex::default(),
                    connection: Mutex::default(),
                    unconfirmed: Mutex::default(),
                    received: Mutex::default(),
                    has_receipts: Notify::new(),
                };
                (engine, queue)
            })
            .unzip();
        let (migrated, members) = mpsc::unbounded_channel();
        let (auth_events, events) = mpsc::channel(MAX_QUEUED_AUTH_EVENTS);
        let gateway = Self {
            node,
            timings,
            scripts: Scripts::new(timings),
            engines,
            pending_joins: Mutex::default(),
            pending_claims: Mutex::default(),
            pending_evictions: Mutex::default(),
            pending_reach: Mutex::default(),
            incoming: Mutex::default(),
            migrated,
            migrations: MigrationTracker::default(),
            auth_events,
            closed_engines: Semaphore::new(0),
            failure: watch::Sender::default(),
            repairs: AtomicU64::new(0),
            highest_epoch: AtomicU64::new(0),
            unsettled: Mutex::default(),
        };
        (Arc::new(gateway), GatewayQueues { commands, auth_events: events }, members)
    }

    /// The number of the Redis that a room belongs to.
    pub fn engine_of(&self, room: &str) -> usize {
        sharding::engine_of(room, self.engines.len())
    }

    pub(super) fn engine(&self, room: &str) -> Option<&EngineState> {
        self.engines.get(self.engine_of(room))
    }

    // Connections.

    /// Whether every Redis can be reached.
    pub fn all_up(&self) -> bool {
        self.engines.iter().all(|engine| engine.is_up.load(Ordering::SeqCst))
    }

    /// A Redis can be reached, or can no longer be: then joins and claims that wait for it fail.
    pub fn set_engine_up(&self, number: usize, is_up: bool) {
        let Some(engine) = self.engines.get(number) else { return };
        engine.is_up.store(is_up, Ordering::SeqCst);
        if !is_up {
            self.joins().retain(|_, pending| self.engine_of(&pending.room) != number);
            self.claims().retain(|_, pending| self.engine_of(&pending.room) != number);
        }
    }

    /// A heartbeat has found so much at a Redis.
    pub(super) fn note_counts(&self, number: usize, counts: ClusterCounts) {
        if let Some(engine) = self.engines.get(number) {
            *engine.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        }
    }

    /// How many nodes there were at the last heartbeat, while the first Redis can be reached.
    pub(super) fn known_nodes(&self) -> Option<usize> {
        let engine = self.engines.first()?;
        engine.is_up.load(Ordering::SeqCst).then(|| engine.last_counts().nodes)
    }

    /// The same with rooms and members, while every Redis can be reached.
    pub(super) fn known_counts(&self) -> Result<ClusterCounts, ClusterUnavailable> {
        let mut counts = ClusterCounts { nodes: self.last_nodes(), ..ClusterCounts::default() };
        for engine in &self.engines {
            if !engine.is_up.load(Ordering::SeqCst) {
                return Err(ClusterUnavailable);
            }
            let ClusterCounts { rooms, members, .. } = engine.last_counts();
            counts.rooms += rooms;
            counts.members += members;
        }
        Ok(counts)
    }

    /// How many nodes there were when that was known last.
    pub(super) fn last_nodes(&self) -> usize {
        self.engines.first().map_or(0, |engine| engine.last_counts().nodes)
    }

    /// Sets the connection to a Redis, or removes it; whether there was one.
    pub(super) fn set_connection(
        &self,
        number: usize,
        connection: Option<RedisConnection>,
    ) -> bool {
        let Some(engine) = self.engines.get(number) else { return false };
        let mut known = engine.connection.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, connection).is_some()
    }

    /// The connection to the Redis with this number.
    pub(super) fn connection(&self, number: usize) -> Result<RedisConnection, ClusterUnavailable> {
        let engine = self.engines.get(number).ok_or(ClusterUnavailable)?;
        let connection = engine.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.clone().ok_or(ClusterUnavailable)
    }

    /// This node cannot be part of the cluster, for this reason.
    pub(super) fn give_up(&self, reason: String) {
        self.failure.send_replace(Some(reason));
    }

    /// Waits until this node cannot be part of the cluster; why not.
    pub(super) async fn wait_for_failure(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        // The sender lasts as long as this.
        failed.map_or_else(|_| String::new(), |reason| reason.clone().unwrap_or_default())
    }

    /// Redis had lost so much of what this node knows.
    pub(super) fn note_repairs(&self, repairs: u64) {
        self.repairs.fetch_add(repairs, Ordering::Relaxed);
    }

    /// What Redis has lost until now.
    pub(super) fn repair_count(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// Ends what has waited for too long in `rooms`: see [`RoomRegistry::expire_unconfirmed`].
    pub fn expire_unconfirmed(&self, rooms: &RoomRegistry, now: Instant) {
        let unsettled = std::mem::take(&mut *self.unsettled());
        rooms.expire_unconfirmed(unsettled, now, self.timings);
    }

    pub(super) fn unsettled(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Commands.

    /// Sends a command that is repeated, or is part of what this node states, where it is lost.
    pub(super) fn send(&self, room: &str, command: ClusterCommand) {
        if let Some(engine) = self.engine(room) {
            let _ = engine.commands.send(command);
        }
    }

    /// Sends a command of which no more may wait than [`MAX_QUEUED_COMMANDS`].
    pub(super) fn try_send(
        &self,
        room: &str,
        command: ClusterCommand,
    ) -> Result<(), NodeUnreachable> {
        let engine = self.engine(room).ok_or(NodeUnreachable)?;
        if !engine.is_up.load(Ordering::Relaxed) {
            return Err(NodeUnreachable);
        }
        if engine.queued.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED_COMMANDS {
            engine.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(NodeUnreachable);
        }
        engine.commands.send(command).map_err(|_| NodeUnreachable)
    }

    /// So many limited commands were taken from the queue of a Redis.
    pub(super) fn note_dequeued(&self, number: usize, limited: usize) {
        if let Some(engine) = self.engines.get(number) {
            engine.queued.fetch_sub(limited, Ordering::Relaxed);
        }
    }

    // Signals to other nodes.

    /// Sends a signal to `node`, which has to confirm it.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached, or too much waits for the node; then it was not sent there.
    pub(super) fn send_signal(
        &self,
        node: &Arc<str>,
        frame: RelayedFrame,
    ) -> Result<(), NodeUnreachable> {
        let RelayedFrame { signal, frame: text, .. } = &frame;
        let (signal, now) = (signal.clone(), Instant::now());
        let engine = self.engine(&signal.room).ok_or(NodeUnreachable)?;
        let numbered = engine.unconfirmed().insert(node, &signal, text.len(), now);
        let Ok(number) = numbered else {
            signal.mark_answered();
            engine.unconfirmed().note_answered(&signal, now);
            return Err(NodeUnreachable);
        };
        let last = number.number;
        let command = ClusterCommand::Relay { node: node.clone(), frame, number };
        // In this order: a link that finds its Redis gone answers what is unconfirmed, perhaps this one already.
        if self.try_send(&signal.room, command).is_err()
            && engine.unconfirmed().fail(node, last, now).is_some()
        {
            return Err(NodeUnreachable);
        }
        Ok(())
    }

    /// See [`UnconfirmedSignals::was_answered`].
    pub(super) fn was_signal_answered(&self, room: &str, key: u64, id: &str) -> bool {
        self.engine(room).is_some_and(|engine| engine.unconfirmed().was_answered(key, id))
    }

    /// Changes what is unconfirmed at a Redis; the senders of the signals that `change` returns get an error.
    pub fn update_unconfirmed(
        &self,
        number: usize,
        rooms: &RoomRegistry,
        change: impl FnOnce(&mut UnconfirmedSignals, Instant) -> Vec<Arc<RelayedSignal>>,
    ) -> usize {
        let Some(engine) = self.engines.get(number) else { return 0 };
        let answered = change(&mut engine.unconfirmed(), Instant::now());
        // Without the lock: rooms send signals under theirs.
        answered.iter().for_each(|signal| rooms.answer_unreachable(signal));
        answered.len()
    }

    /// Delivers a signal of `node` by `deliver`, unless it has been delivered before, and notes that it is to be confirmed.
    pub(super) fn receive_signal(
        &self,
        room: &str,
        node: &Arc<str>,
        number: &SignalNumber,
        deliver: impl FnOnce() -> bool,
    ) {
        let Some(engine) = self.engine(room) else { return };
        let is_delivered = engine.received().is_repeated(node, number) || deliver();
        engine.received().note(node, number.number, is_delivered);
        engine.has_receipts.notify_one();
    }

    /// Waits until another node is to be told which of its signals were read here.
    pub(super) async fn wait_for_receipts(&self, number: usize) {
        match self.engines.get(number) {
            Some(engine) => engine.has_receipts.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the other nodes which of their signals were read here.
    pub fn confirm_signals(&self, number: usize) {
        let Some(engine) = self.engines.get(number) else { return };
        for (node, receipts) in self.take_receipts(number) {
            let _ = engine.commands.send(ClusterCommand::Confirm { node, receipts });
        }
    }

    /// What the other nodes have not been told of their signals.
    pub(super) fn take_receipts(&self, number: usize) -> Vec<(Arc<str>, SignalReceipts)> {
        self.engines.get(number).map_or_else(Vec::new, |engine| engine.received().take_unsent())
    }
}

impl EngineState {
    fn last_counts(&self) -> ClusterCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unconfirmed(&self) -> MutexGuard<'_, UnconfirmedSignals> {
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self) -> MutexGuard<'_, ReceivedSignals> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
