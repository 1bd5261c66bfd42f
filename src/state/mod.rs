//! The state that all handlers share, built once from the settings.

mod authorize;
mod coalesced_writes;
mod issuer;
mod login;
mod login_queue;
mod maintenance;
mod moderation;
mod moderators;
mod reload;
mod replication;
mod resume;
mod room_list;
mod shutdown;
mod turn;

pub use issuer::{IssuerKeysError, fetch_keys, issuer_client, read_key_file};
pub use login::{IssuedToken, LoginError, access_tokens};
pub use moderation::{ModerationError, NotPersisted, PublishedRule, RemovedRule};
pub use reload::log_row_faults;
pub use room_list::{AnswerPermit, ListAudience, ListChunks, NoAnswerPermit, RoomList, RoomLists};
pub use turn::TurnError;

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};

use aws_lc_rs::hmac;
use secrecy::ExposeSecret;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{
        access_token::AccessTokens, resume_token::ResumeTokenSigner, revocation::RevokedTokens,
        token_sessions::TokenSessions, users::Users,
    },
    clock::unix_now,
    cluster::MigratedMembers,
    config::{Config, ReloadableSettings, StartupSettings},
    limits::{
        ConcurrencyLimiter, ConnectionRateLimiter, HttpRateLimiter, JoinRateLimiter, Lockouts,
        MessageBudgets, ResumeSlots, RuleRateLimiter,
    },
    memory::MemoryBudget,
    metrics::Metrics,
    moderation::{ModerationRules, RuleKind},
    rooms::RoomRegistry,
    session::{self, SessionLimits, ShutdownSnapshot},
    turn::probe::TurnHealth,
    webhooks::Webhooks,
};
use coalesced_writes::CoalescedWrites;
use issuer::IssuerState;
use login_queue::LoginQueue;
use replication::{NodeState, open_rooms};

/// Open sockets that have not authenticated yet, at most, over all addresses.
pub const MAX_UNAUTHENTICATED: usize = 8192;

/// The same from one address.
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// One server. Clones are the same server.
#[derive(Clone)]
pub struct AppState(Arc<AppStateInner>);

/// The parts of one server.
pub struct AppStateInner {
    /// The settings at the start of the process: for those that do not change while it runs.
    pub config: Arc<StartupSettings>,
    /// The settings in force, replaced as a whole.
    settings: RwLock<Arc<ReloadableSettings>>,
    /// Those of the sessions that began last.
    session_limits: Mutex<Option<Arc<SessionLimits>>>,
    ice_version: AtomicU64,
    /// Notified when the ICE servers are replaced.
    ice_replaced: Notify,
    /// What the probes of the TURN servers found.
    pub turn_health: TurnHealth,
    /// The accounts.
    pub users: Users,
    /// The rooms and their members.
    pub rooms: RoomRegistry,
    /// The list of all rooms, for all who ask.
    pub room_lists: RoomLists,
    /// Bans, locks, mutes and capacities that administrators and moderators have set.
    pub moderation_rules: Arc<ModerationRules>,
    /// Asks the process to stop.
    pub stop: CancellationToken,
    /// Memberships that migrate to this node, until [`AppState::restore`] takes the receiver.
    migrated: Mutex<Option<MigratedMembers>>,
    /// WebSockets for each address.
    pub sockets: ConcurrencyLimiter,
    /// How many of those there may be over all addresses.
    pub socket_capacity: usize,
    /// WebSockets of members for each account.
    pub user_sockets: ConcurrencyLimiter<Arc<str>>,
    /// WebSockets that have not authenticated yet.
    pub unauthenticated: ConcurrencyLimiter,
    /// Connections that each address opens.
    pub connection_rate: Arc<ConnectionRateLimiter>,
    /// Joins for each account and address.
    pub joins: Arc<JoinRateLimiter>,
    /// Moderation rules for each moderator and room.
    rule_rate: RuleRateLimiter,
    /// The message budgets of connections.
    pub message_budgets: MessageBudgets,
    /// What is held for clients.
    pub memory: MemoryBudget,
    /// HTTP requests for each address.
    pub http_rate: HttpRateLimiter,
    /// Every open WebSocket.
    pub sessions: TaskTracker,
    /// Detached members: their connection was lost, and they may resume.
    detached: TaskTracker,
    /// Detached members for each account, and for each address that they connected from. A member that has to give up its
    /// slot for another is notified.
    resume_slots: ResumeSlots<Arc<Notify>>,
    /// When the server started.
    pub started: Instant,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Delivers room events to `WEBHOOK_URLS`.
    pub webhooks: Webhooks,
    logins: LoginQueue,
    tokens: AccessTokens,
    issuer: IssuerState,
    /// Signs resume tokens.
    pub resume_tokens: Arc<ResumeTokenSigner>,
    /// Detached members that the next process, or another node, takes over.
    pub snapshot: ShutdownSnapshot,
    revoked_tokens: Arc<RevokedTokens>,
    /// Writes of the file of revoked tokens.
    revocation_writes: CoalescedWrites,
    /// Writes of the file of moderation rules.
    rule_writes: CoalescedWrites,
    lockouts: Arc<Mutex<Lockouts>>,
    /// Makes the digest that stands for a username in lockouts.
    digest_key: hmac::Key,
    token_sessions: TokenSessions,
    closing: watch::Sender<Option<Duration>>,
}

impl Deref for AppState {
    type Target = AppStateInner;

    fn deref(&self) -> &AppStateInner {
        &self.0
    }
}

impl AppState {
    /// A server without clients. With `REDIS_URL` it begins to connect, and needs a runtime.
    pub fn new(
        config: Config,
        users: Users,
        revoked: RevokedTokens,
        rules: ModerationRules,
    ) -> Self {
        let (startup, settings) = (&config.startup, &config.reloadable);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (revoked, rules) = (Arc::new(revoked), Arc::new(rules));
        let token_sessions = TokenSessions::default();
        let lockouts = Lockouts::new(settings.auth.max_failures, settings.auth.lockout);
        let lockouts = Arc::new(Mutex::new(lockouts));
        let secret = startup.auth.secret_key.expose_secret().as_bytes();
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let random_id = || format!("{:016x}", uuid::Uuid::new_v4().as_u64_pair().1);
        let node = startup.cluster.node_id.clone().unwrap_or_else(random_id);
        let metrics = Arc::new(Metrics::default());
        let memory = MemoryBudget::new(startup.process.memory_budget());
        let webhooks = Webhooks::start(
            &startup.webhooks.targets,
            startup.webhooks.concurrency,
            &startup.auth.secret_key,
            Some(&*node).filter(|_| !startup.cluster.redis_urls.is_empty()),
            startup.listen.tls.is_some(),
            &metrics.webhooks,
        );
        #[expect(clippy::expect_used, reason = "see the message")]
        let webhooks = webhooks
            .expect("the system has a thread and a few file descriptors for a process that starts")
            .with_memory(memory.clone());
        #[expect(clippy::expect_used, reason = "see the message")]
        let logins = LoginQueue::start(cores, metrics.clone())
            .expect("the system has a thread for each core for a process that starts");
        let replicated = NodeState {
            revoked_tokens: revoked.clone(),
            token_sessions: token_sessions.clone(),
            lockouts: lockouts.clone(),
            moderation_rules: rules.clone(),
        };
        let (rooms, migrated) = open_rooms(&config, node.into(), &webhooks, &memory, replicated);
        for rule in rules.active(unix_now()) {
            if let RuleKind::Capacity { room } = &rule.about {
                rooms.set_room_capacity(room, rule.members);
            }
        }
        session::preregister_metrics(&metrics);
        Self(Arc::new(AppStateInner {
            session_limits: Mutex::new(None),
            ice_version: AtomicU64::new(0),
            ice_replaced: Notify::new(),
            turn_health: TurnHealth::default(),
            users,
            rooms,
            room_lists: RoomLists::default(),
            moderation_rules: rules,
            stop: CancellationToken::new(),
            migrated: Mutex::new(migrated),
            sockets: ConcurrencyLimiter::new(0, settings.limits.max_connections_per_ip),
            socket_capacity: startup.process.socket_capacity(startup.listen.tls.is_some()),
            user_sockets: ConcurrencyLimiter::new(0, settings.limits.max_connections_per_user),
            unauthenticated: ConcurrencyLimiter::new(
                MAX_UNAUTHENTICATED,
                MAX_UNAUTHENTICATED_PER_ADDRESS,
            ),
            connection_rate: Arc::new(ConnectionRateLimiter::new(
                settings.limits.max_connections_per_ip,
            )),
            joins: Arc::new(JoinRateLimiter::new(
                settings.limits.joins_per_minute,
                settings.limits.max_connections_per_ip,
            )),
            rule_rate: RuleRateLimiter::default(),
            message_budgets: MessageBudgets::default(),
            memory,
            http_rate: HttpRateLimiter::new(settings.limits.requests_per_minute),
            sessions: TaskTracker::new(),
            detached: TaskTracker::new(),
            // As many as an address may have connections: all of them may be lost at once.
            resume_slots: ResumeSlots::new(
                settings.limits.max_detached_per_user(),
                settings.limits.max_connections_per_ip,
            ),
            started: Instant::now(),
            metrics,
            webhooks,
            logins,
            tokens: access_tokens(startup),
            issuer: IssuerState::new(startup.intervals.issuer),
            resume_tokens: Arc::new(ResumeTokenSigner::new(&startup.auth.secret_key)),
            snapshot: ShutdownSnapshot::default(),
            revoked_tokens: revoked,
            revocation_writes: CoalescedWrites::default(),
            rule_writes: CoalescedWrites::default(),
            lockouts,
            digest_key,
            token_sessions,
            closing: watch::Sender::new(None),
            settings: RwLock::new(Arc::new(config.reloadable)),
            config: Arc::new(config.startup),
        }))
    }
}

impl AppStateInner {
    /// The limits of a session that starts now.
    pub fn session_limits(&self) -> Arc<SessionLimits> {
        let limits = &self.settings().limits;
        let limits = SessionLimits {
            timeout: limits.websocket_timeout,
            messages: self.message_limits(),
            guests: self.config.auth.allow_anonymous,
            enforce_token_expiry: self.config.auth.enforce_token_expiry,
            has_issuer: self.config.tokens.key_source.is_some(),
            token_refresh_grace: self.config.intervals.token_refresh_grace,
            resume_window: self.config.rooms.resume_window,
        };
        // The sessions share them: a million sessions would have 80 MB of them.
        let mut shared = self.session_limits.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some(shared) if **shared == limits => shared.clone(),
            _ => shared.insert(Arc::new(limits)).clone(),
        }
    }

    /// How many members are detached.
    pub fn detached_count(&self) -> usize {
        self.detached.len()
    }

    /// Tells sessions that the server stops, and within which time their clients should reconnect.
    pub fn closing(&self) -> watch::Receiver<Option<Duration>> {
        self.closing.subscribe()
    }

    /// Whether the server is stopping.
    pub fn is_closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    fn lockouts(&self) -> MutexGuard<'_, Lockouts> {
        self.lockouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
