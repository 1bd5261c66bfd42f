//! The link to one Redis: connects, resynchronises, runs, reconnects.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use redis::{ErrorKind, RedisError, TlsCertificates};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    ClusterGateway, RedisEndpoint, ReplicatedState,
    commands::is_limited,
    connection::RedisConnection,
    identity::NodeIdentity,
    inbox::{FIRST_READ_BLOCK, READ_TIMEOUT},
    keys::ShardKeys,
    messages::ClusterCommand,
    outage::{Outage, ReconnectPauses},
    receipts::UnconfirmedSignals,
    registration::Registration,
    resync::MissedLeave,
    webhooks::{self, WebhookRecord},
};
use crate::{rooms::RoomRegistry, webhooks::Webhooks};

/// How long sentinels or nodes may take to say where Redis is.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long nothing may come from Redis while an answer is due; an answer may take longer than that to come as a whole.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// One Redis, and what this node has to do with it.
pub(super) struct EngineLink {
    pub(super) number: usize,
    pub(super) keys: ShardKeys,
    pub(super) gateway: Arc<ClusterGateway>,
    pub(super) rooms: RoomRegistry,
    pub(super) replicated: Arc<dyn ReplicatedState>,
    pub(super) webhooks: Webhooks,
    /// The id of the last entry of the inbox that was read.
    position: Mutex<Option<String>>,
    /// The id of the entry that the last registration has made.
    registration: Mutex<String>,
    pub(super) identity: Arc<NodeIdentity>,
    /// What was read from the inbox since the last heartbeat, and that it is much.
    pub(super) read_bytes: AtomicUsize,
    pub(super) has_read_much: Notify,
    /// Since when another process has the name of this node.
    pub(super) refused_since: Mutex<Option<Instant>>,
    /// Nodes with other settings, and which, that the log has named.
    pub(super) differences: Mutex<BTreeSet<(String, String)>>,
    /// The run id of the Redis that was connected to last.
    run_id: Mutex<Option<String>>,
}

impl EngineLink {
    pub(super) fn new(
        number: usize,
        gateway: &Arc<ClusterGateway>,
        rooms: &RoomRegistry,
        replicated: &Arc<dyn ReplicatedState>,
        webhooks: &Webhooks,
        identity: &Arc<NodeIdentity>,
    ) -> Self {
        Self {
            number,
            keys: ShardKeys::new(number),
            gateway: gateway.clone(),
            rooms: rooms.clone(),
            replicated: replicated.clone(),
            webhooks: webhooks.clone(),
            position: Mutex::default(),
            registration: Mutex::default(),
            identity: identity.clone(),
            read_bytes: AtomicUsize::new(0),
            has_read_much: Notify::new(),
            refused_since: Mutex::default(),
            differences: Mutex::default(),
            run_id: Mutex::default(),
        }
    }

    /// Stays connected for as long as it is polled.
    pub(super) async fn run(
        self,
        mut endpoint: RedisEndpoint,
        mut commands: mpsc::UnboundedReceiver<ClusterCommand>,
    ) {
        let (mut outage, mut pauses) =
            (Outage::default(), ReconnectPauses::new(self.gateway.timings));
        loop {
            let since = Instant::now();
            let client = timeout(FAILOVER_TIMEOUT, endpoint.client())
                .await
                .unwrap_or_else(|_| Err(no_endpoint_error()));
            let error = match client {
                Ok(client) => {
                    let certificates = endpoint.certificates();
                    let Err(error) = self.run_connected(&client, certificates, &mut commands).await;
                    error
                }
                Err(error) => error,
            };
            endpoint.follow(&error);
            let was_up = self.gateway.set_connection(self.number, None);
            self.gateway.set_engine_up(self.number, false);
            // Whether it arrives is not known, and will not be.
            self.gateway.update_unconfirmed(self.number, &self.rooms, UnconfirmedSignals::fail_all);
            // The text may hold an address, but never a password.
            outage.log(self.number, was_up, &error);
            sleep(pauses.next(was_up, since.elapsed(), random_byte())).await;
        }
    }

    /// From connecting to the first error.
    async fn run_connected(
        &self,
        client: &redis::Client,
        certificates: Option<&TlsCertificates>,
        commands: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Result<Infallible, RedisError> {
        let mut writer = RedisConnection::open(client, certificates, RESPONSE_TIMEOUT).await?;
        let mut reader = RedisConnection::open(client, certificates, READ_TIMEOUT).await?;
        let run_id = query_run_id(&mut writer).await?;
        self.gateway.scripts.load(&mut writer).await?;

        let missed = self.discard_commands(commands);
        let is_known_engine = self.remember_run_id(&run_id);
        let Registration { is_known, hello, rooms } = self.register(&mut writer, &run_id).await?;
        // The position in a stream that is gone, or in which entries are missing, is no place to go on from.
        if !is_known || self.position().is_none() {
            *self.position() = Some(hello);
        }
        // With heartbeats, for a node with many members takes a while to state them.
        tokio::select! {
            stated = self.resync(writer.clone(), rooms, is_known_engine, &missed) => stated?,
            failed = self.run_heartbeat(writer.clone()) => match failed? {},
        }
        // Only a Redis that does what a running node needs counts as reached.
        self.beat(&mut writer).await?;
        self.read_entries(&mut reader, FIRST_READ_BLOCK).await?;

        self.gateway.set_connection(self.number, Some(writer.clone()));
        self.gateway.set_engine_up(self.number, true);
        tracing::info!(engine = self.number, node = &*self.gateway.node, "redis connected");
        let (read, beat) = (self.read_inbox(reader), self.run_heartbeat(writer.clone()));
        let missed = if is_known_engine { Vec::new() } else { missed };
        let close = self.close_empty_rooms(writer.clone(), missed);
        let checks = self.run_checks(writer.clone());
        let write = self.write_commands(writer, commands);
        let (never, ..) = tokio::try_join!(read, beat, write, close, checks, self.run_receipts())?;
        match never {}
    }

    /// Confirms the signals of other nodes, as [`Self::run_heartbeat`] does where much was read, and answers those of this one that
    /// others have not confirmed in time.
    async fn run_receipts(&self) -> Result<Infallible, RedisError> {
        let (gateway, timings) = (&self.gateway, self.gateway.timings);
        let confirm = async {
            loop {
                gateway.wait_for_receipts(self.number).await;
                gateway.confirm_signals(self.number);
                sleep(timings.confirm_interval()).await;
            }
        };
        let expire = async {
            let mut ticks = interval(timings.confirm_timeout() / 8);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                gateway.update_unconfirmed(self.number, &self.rooms, |unconfirmed, now| {
                    unconfirmed.expire(timings.confirm_timeout(), now)
                });
            }
        };
        let (never, _): (Infallible, Infallible) = tokio::join!(confirm, expire);
        match never {}
    }

    /// Drops the commands of the time without a connection: they are part of what this node states, or too late. Returns the
    /// leaves among them.
    fn discard_commands(
        &self,
        commands: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Vec<MissedLeave> {
        let (mut limited, mut missed) = (0, Vec::new());
        while let Ok(command) = commands.try_recv() {
            limited += usize::from(is_limited(&command));
            if matches!(command, ClusterCommand::Webhook { .. }) {
                self.webhooks.record_missed();
            }
            if let ClusterCommand::Leave { room, peer, reason: Some(reason), sequence, .. } =
                command
            {
                missed.push(MissedLeave { room, peer, reason, sequence });
            }
        }
        self.gateway.note_dequeued(self.number, limited);
        missed
    }

    /// Sends the webhook events that a script has numbered, as a JSON array.
    pub(super) fn emit_webhooks(&self, records: &[u8]) {
        webhooks::emit(&self.webhooks, &self.rooms, WebhookRecord::parse_all(records));
    }

    /// Whether it is the Redis that was connected to last.
    fn remember_run_id(&self, run_id: &str) -> bool {
        let mut known = self.run_id.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(run_id.to_owned()).is_some_and(|known| known == run_id)
    }

    pub(super) fn registration(&self) -> MutexGuard<'_, String> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn position(&self) -> MutexGuard<'_, Option<String>> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Redis does not know this node any more: its lease was over, or Redis has lost its memory.
pub(super) fn lease_lost_error() -> RedisError {
    (ErrorKind::Client, "the lease of this node is over").into()
}

fn no_endpoint_error() -> RedisError {
    (ErrorKind::Io, "nothing has named the address of redis in time").into()
}

/// Tells one life of a Redis from the next.
async fn query_run_id(connection: &mut RedisConnection) -> Result<String, RedisError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run_id.map(str::to_owned).ok_or_else(|| (ErrorKind::Client, "INFO tells no run_id").into())
}

fn random_byte() -> u8 {
    uuid::Uuid::new_v4().into_bytes()[0]
}
