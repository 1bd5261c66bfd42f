//! What the handlers share, built once from the settings.

mod authorize;
mod login;
mod maintenance;
mod moderation;
mod reload;
mod replication;
mod resume;
mod shutdown;
mod turn;

pub use login::{IssuedToken, LoginError};
pub use reload::log_row_faults;
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
        access_token::AccessTokens, password::Passwords, resume_token::ResumeTokenSigner,
        revocation::RevokedTokens, token_sessions::TokenSessions, users::Users,
    },
    clock::unix_now,
    cluster::Cluster,
    config::Config,
    limits::{ConcurrencyLimiter, HttpRateLimiter, Lockouts},
    metrics::Metrics,
    moderation::{ModerationRules, RuleKind},
    relays::Relays,
    rooms::{RoomRegistry, far::MigratedMembers},
    session::{self, SessionLimits, ShutdownSnapshot},
    webhooks::Webhooks,
};
use replication::open_rooms;

/// Sockets that may be open before they have shown a token, over all addresses.
pub const MAX_UNAUTHENTICATED: usize = 8192;

/// The same from one address.
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// Logins that may wait for each thread that checks passwords: about eight seconds of its work.
const MAX_QUEUED_LOGINS_PER_THREAD: usize = 32;

/// One server. Clones are the same server.
#[derive(Clone)]
pub struct AppState(Arc<AppStateInner>);

/// What one server consists of.
pub struct AppStateInner {
    /// The settings, as they were at the start: for what is the same until the end.
    pub config: Arc<Config>,
    /// The settings as they are now, replaced whole.
    settings: RwLock<Arc<Config>>,
    ice_version: AtomicU64,
    /// Says that it was.
    ice_replaced: Notify,
    /// What is known of the relays.
    pub relays: Relays,
    /// The accounts.
    pub users: Users,
    /// Who is where.
    pub rooms: RoomRegistry,
    /// The other servers that rooms are shared with.
    pub cluster: Option<Cluster>,
    /// What administrators have ordered.
    pub moderation_rules: Arc<ModerationRules>,
    /// Asks the process to stop.
    pub stop: CancellationToken,
    /// Seats that come from them, until somebody takes them in.
    migrated: Mutex<Option<MigratedMembers>>,
    /// Sockets per address.
    pub sockets: ConcurrencyLimiter,
    /// Sockets that have not shown a token yet.
    pub unauthenticated: ConcurrencyLimiter,
    /// HTTP requests per address.
    pub http_rate: HttpRateLimiter,
    /// Every open WebSocket.
    pub sessions: TaskTracker,
    /// Members without one, that may come back.
    detached: TaskTracker,
    /// The same, per address that they were at.
    detached_permits: ConcurrencyLimiter,
    /// When this server began.
    pub started: Instant,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is told what happens in rooms.
    pub webhooks: Webhooks,
    passwords: Passwords,
    /// Logins that are being checked or wait for it.
    logins: ConcurrencyLimiter,
    tokens: AccessTokens,
    /// Signs what clients come back with.
    pub resume_tokens: Arc<ResumeTokenSigner>,
    /// Who is to be let in again by the next process.
    pub snapshot: ShutdownSnapshot,
    revoked_tokens: Arc<RevokedTokens>,
    lockouts: Arc<Mutex<Lockouts>>,
    /// Makes of a username what lockouts know it by.
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
    /// A server that nobody has talked to yet. With `REDIS_URL` it begins to connect, and needs a runtime.
    pub fn new(
        config: Config,
        users: Users,
        revoked: RevokedTokens,
        orders: ModerationRules,
    ) -> Self {
        let config = Arc::new(config);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let passwords = Passwords::new(cores);
        let most_logins = MAX_QUEUED_LOGINS_PER_THREAD * passwords.at_once();
        let (revoked, orders) = (Arc::new(revoked), Arc::new(orders));
        let grants = TokenSessions::default();
        let lockouts = Lockouts::new(config.auth_max_failures, config.auth_lockout);
        let lockouts = Arc::new(Mutex::new(lockouts));
        let secret = config.secret_key.expose_secret().as_bytes();
        let aliases = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let any = || format!("{:016x}", uuid::Uuid::new_v4().as_u64_pair().1);
        let node = config.node_id.clone().unwrap_or_else(any);
        let metrics = Arc::new(Metrics::default());
        let webhooks = Webhooks::start(
            &config.webhooks,
            &config.secret_key,
            Some(&*node).filter(|_| !config.redis_urls.is_empty()),
            config.tls.is_some(),
            &metrics.webhooks,
        );
        #[expect(clippy::expect_used, reason = "see the message")]
        let webhooks = webhooks.expect("at its start a server gets a thread and a few handles");
        let (rooms, cluster) =
            open_rooms(&config, node.into(), &webhooks, &revoked, &grants, &lockouts, &orders);
        let (cluster, arrivals) = cluster.unzip();
        for order in orders.active(unix_now()) {
            if let RuleKind::Capacity { room } = &order.about {
                rooms.set_room_capacity(room, order.members);
            }
        }
        session::preregister_metrics(&metrics);
        Self(Arc::new(AppStateInner {
            settings: RwLock::new(config.clone()),
            ice_version: AtomicU64::new(0),
            ice_replaced: Notify::new(),
            relays: Relays::default(),
            users,
            rooms,
            cluster,
            moderation_rules: orders,
            stop: CancellationToken::new(),
            migrated: Mutex::new(arrivals),
            sockets: ConcurrencyLimiter::new(0, config.max_connections_per_ip),
            unauthenticated: ConcurrencyLimiter::new(
                MAX_UNAUTHENTICATED,
                MAX_UNAUTHENTICATED_PER_ADDRESS,
            ),
            http_rate: HttpRateLimiter::new(config.rate_limit_per_minute),
            sessions: TaskTracker::new(),
            detached: TaskTracker::new(),
            // As many as an address may have connections: all of them may break at once.
            detached_permits: ConcurrencyLimiter::new(0, config.max_connections_per_ip),
            started: Instant::now(),
            metrics,
            webhooks,
            passwords,
            // One address never fills it, so that others are served meanwhile.
            logins: ConcurrencyLimiter::new(most_logins, most_logins / 2),
            tokens: AccessTokens::new(
                &config.jwt_secret_key,
                config.jwt_secret_key_previous.as_ref(),
                config.token_lifetime,
            ),
            resume_tokens: Arc::new(ResumeTokenSigner::new(&config.secret_key)),
            snapshot: ShutdownSnapshot::default(),
            revoked_tokens: revoked,
            lockouts,
            digest_key: aliases,
            token_sessions: grants,
            closing: watch::Sender::new(None),
            config,
        }))
    }
}

impl AppStateInner {
    /// What a session keeps to.
    pub fn session_limits(&self) -> SessionLimits {
        let settings = self.settings();
        SessionLimits {
            timeout: settings.websocket_timeout,
            messages_per_second: settings.messages_per_second,
            message_burst: settings.message_burst,
            guests: self.config.allow_anonymous,
            enforce_token_expiry: self.config.enforce_token_expiry,
            resume_window: self.config.resume_window,
        }
    }

    /// How many members are away and may come back.
    pub fn detached_count(&self) -> usize {
        self.detached.len()
    }

    /// What tells a session that the server stops.
    pub fn closing(&self) -> watch::Receiver<Option<Duration>> {
        self.closing.subscribe()
    }

    /// Whether the server stops.
    pub fn is_closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    fn lockouts(&self) -> MutexGuard<'_, Lockouts> {
        self.lockouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
