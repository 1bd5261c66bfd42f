//! What the handlers share, built once from the settings.

mod moderating;
mod replicated;

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use self::replicated::{ClusteredState, NodeState};
use crate::{
    auth::{
        grants::TokenSessions,
        password::{Passwords, dummy_hash},
        revoked::{self, RevokedTokens},
        ticket::{ResumeToken, ResumeTokenSigner},
        token::{AccessTokens, Claims, InvalidToken},
        users::{Account, PendingUsers, RowFault, Users, UsersReload},
    },
    clock::unix_now,
    cluster::{self, ClusterGateway, MigratedMembers},
    config::{Config, Ice, Turn},
    limits::{AuthEvent, ConcurrencyLimiter, HttpRateLimiter, Lockouts, Permit},
    metrics::{Limit, Login, Metrics},
    migration::ClusterTimings,
    moderation::{EntryDenied, ModerationRules, RuleKind},
    outbox::{ClientQueue, DisconnectReason},
    relays::Relays,
    rooms::RoomRegistry,
    session::{
        self, AuthError, Authorized, CloseReason, Credentials, DetachedMember, SessionLimits,
        ShutdownSnapshot,
    },
    state_file,
    turn::{self, TurnCredentials},
    webhooks::Webhooks,
    wire::IceServer,
    workers::Workers,
};

/// Sockets that may be open before they have shown a token, over all addresses.
pub const MAX_UNAUTHENTICATED: usize = 8192;
/// The same from one address.
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// Logins that may wait for each thread that checks passwords: about eight seconds of its work.
const MAX_QUEUED_LOGINS_PER_THREAD: usize = 32;

/// How often files are looked at: twice make a change count, and that within two seconds.
const FILE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a server that stops waits until it knows which seats have come to it, and until all have come to others.
const STOP_ACCEPTING_TIMEOUT: Duration = Duration::from_secs(1);
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often tables drop what no longer counts.
const EVICTION_INTERVAL: Duration = Duration::from_secs(60);

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

/// A token, as REST hands it out.
pub struct IssuedToken {
    /// The token itself.
    pub token: SecretString,
    /// How long it is good for.
    pub lifetime: Duration,
}

/// Why a login failed.
#[derive(Debug)]
pub enum LoginError {
    /// No such active account, or another password: which of them is not told.
    Wrong,
    /// Too many failures; how long to wait.
    Locked(Duration),
    /// Too many wait already.
    Busy,
    /// The token could not be signed.
    Internal(jsonwebtoken::errors::Error),
}

/// Why there are no TURN credentials.
#[derive(Debug)]
pub enum TurnError {
    /// `TURNSERVER_SECRET` is empty.
    NotConfigured,
    /// `TURNSERVER_URLS` is empty.
    NoUrls,
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
        let replicated = NodeState {
            revoked_tokens: revoked.clone(),
            token_sessions: grants.clone(),
            lockouts: lockouts.clone(),
            moderation_rules: orders.clone(),
        };
        let (rooms, arrivals) = open_rooms(&config, node.into(), &webhooks, replicated);
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

    /// A name and a password become a token.
    ///
    /// Goes on when nobody waits for it any more: hanging up must not free the place among those
    /// who hash, nor make a failure not count.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub async fn login(
        &self,
        username: String,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        let app = self.clone();
        let login = async move {
            let issued = app.queue_login(&username, password, address).await;
            app.metrics.logged_in(match &issued {
                Ok(_) => Login::Done,
                Err(LoginError::Wrong) => Login::Wrong,
                Err(LoginError::Locked(_)) => Login::LockedOut,
                Err(LoginError::Busy) => Login::Busy,
                Err(LoginError::Internal(_)) => Login::Failed,
            });
            issued
        };
        let login = tokio::spawn(login.in_current_span());
        #[expect(clippy::expect_used, reason = "see the message")]
        login.await.expect("a login does not panic, and is never aborted")
    }

    /// Ends a token, and the sockets that stand on it; once this returns, also for the next process.
    /// A token that is not good needs no end.
    pub async fn log_out(&self, token: &str) {
        let Ok((account, claims)) = self.identify(token) else { return };
        self.revoked_tokens.insert(&claims);
        self.token_sessions.end_token(&account.username, claims.fingerprint);
        tracing::info!(user = account.username, "logged out");
        let app = self.clone();
        let _ = tokio::task::spawn_blocking(move || app.save_revoked()).await;
        let Claims { username, expires_at, fingerprint, .. } = &claims;
        let line = revoked::line_of(username, *expires_at, fingerprint);
        self.rooms.backend().publish_logout(&line).await;
    }

    /// Keeps the accounts as the file has them, and the tables small, for as long as it is polled.
    pub async fn run_maintenance(self) {
        let mut forget_at = Instant::now() + EVICTION_INTERVAL;
        loop {
            tokio::time::sleep(FILE_POLL_INTERVAL).await;
            let app = self.clone();
            let looked = tokio::task::spawn_blocking(move || app.users.poll_file()).await;
            match looked.unwrap_or(UsersReload::Nothing) {
                UsersReload::Nothing => {}
                UsersReload::Changed(faults) => {
                    tracing::info!("users file read again");
                    self.end_revoked_sessions(&faults);
                }
                UsersReload::Refused(error) => {
                    tracing::error!(%error, "users file not read; the accounts stay as they were");
                }
            }
            if Instant::now() >= forget_at {
                forget_at += EVICTION_INTERVAL;
                let app = self.clone();
                let _ = tokio::task::spawn_blocking(move || app.evict_expired()).await;
            }
        }
    }

    /// Tries the relays again and again, and at once when there are others, for as long as it is polled.
    pub async fn run_turn_probe(self) {
        let every = self.config.turn_probe;
        if every.is_zero() {
            return;
        }
        let our_own = self.config.tls.as_ref().map(|tls| tls.certificate.as_path());
        loop {
            let ice = self.ice();
            let Turn { secret, urls, ttl } = &ice.turn;
            // Without a secret nothing is issued that could be tried.
            let urls = if secret.expose_secret().is_empty() { &[] } else { urls.as_slice() };
            self.relays.look(urls, secret, *ttl, our_own).await;
            let _ = timeout(every, self.ice_replaced.notified()).await;
        }
    }

    /// Tells every open socket that the server stops, and waits until all are gone.
    pub async fn close(&self) {
        let _ = timeout(STOP_ACCEPTING_TIMEOUT, self.rooms.backend().stop_accepting()).await;
        self.rooms.begin_shutdown();
        // Whoever comes back in time is to find its seat.
        let within = match self.config.resume_window {
            Duration::ZERO => self.config.shutdown_grace,
            window => self.config.shutdown_grace.min(window / 2),
        };
        self.closing.send_replace(Some(within));
        self.sessions.close();
        self.sessions.wait().await;
        self.detached.close();
        self.detached.wait().await;
    }

    /// Gives the seats of those who may come back to other servers, and says to them that this one is gone. Call
    /// it last.
    pub async fn hand_over_members(&self) {
        let backend = self.rooms.backend();
        if backend.node().is_none() {
            return;
        }
        let (others, until) = (backend.other_nodes().await, Instant::now() + HAND_OVER_TIMEOUT);
        loop {
            // First also those that clients have fetched meanwhile, or that have come here last.
            if timeout_at(until, backend.wait_for_migrations()).await.is_err() {
                tracing::warn!("not all seats have come to another server in time");
                break;
            }
            let mut survivors = self.snapshot.take();
            if survivors.is_empty() {
                break;
            }
            state_file::keep_fitting(&mut survivors, DetachedMember::bytes);
            tracing::info!(members = survivors.len(), "their seats go to other servers");
            for (number, parked) in survivors.into_iter().enumerate() {
                let nodes = others.get(backend.shard_of(parked.room()));
                // Without another one its seat is dropped, which is to leave.
                if let Some(node) = nodes.and_then(|nodes| nodes.get(number % nodes.len().max(1))) {
                    parked.migrate_to(node.clone());
                }
            }
        }
        backend.deregister(&self.rooms).await;
    }

    /// Takes in the seats that come from other servers, for as long as it is polled.
    async fn accept_migrations(self, mut arrivals: MigratedMembers, workers: Workers) {
        while let Some((arrival, _on_its_way)) = arrivals.recv().await {
            let parked = DetachedMember::from_migration(
                arrival,
                self.config.resume_window,
                |ticket, outbox| self.authorize_resume(ticket, outbox),
            );
            match parked {
                Some(parked) if self.is_closing() => self.snapshot.push(parked),
                Some(parked) => {
                    let worker = workers.of(parked.room());
                    self.spawn_resume_wait(parked, None, worker);
                }
                None => {}
            }
        }
    }

    /// Keeps the seat of a member whose connection, from `address`, is gone, for as long as it may come back;
    /// or not, where that many from this address are away already. `worker` is its room's.
    pub fn keep_detached(&self, parked: DetachedMember, address: IpAddr, worker: &Handle) {
        let Some(place) = self.detached_permits.acquire(address) else {
            self.metrics.limited(Limit::Seats);
            return tracing::warn!(%address, "a seat not kept: too many from this address are away");
        };
        self.spawn_resume_wait(parked, Some(place), worker);
    }

    fn spawn_resume_wait(&self, parked: DetachedMember, place: Option<Permit>, worker: &Handle) {
        let app = self.clone();
        let lingering = async move {
            parked.wait_for_resume(app.closing(), &app.snapshot, &app.metrics).await;
            drop(place);
        };
        self.detached.spawn_on(lingering, worker);
    }

    /// Lets those sit down again who were here when the process before this one stopped, or, in a cluster, whose
    /// seats come from other servers. Call it once, before anybody else comes in; `workers` are those of the server.
    pub fn restore(&self, workers: &Workers) {
        let arrivals = self.migrated.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(arrivals) = arrivals {
            tokio::spawn(self.clone().accept_migrations(arrivals, workers.clone()));
            return;
        }
        let path = self.config.state_file();
        let records = state_file::take(&path).unwrap_or_else(|error| {
            tracing::error!(%error, file = %path.display(), "nobody may go on where it was");
            Vec::new()
        });
        let (now, window) = (unix_now(), self.config.resume_window);
        let restored = records.into_iter().filter_map(|record| {
            DetachedMember::restore(&self.rooms, record, now, window, |ticket, outbox| {
                let is_allowed = self.check_room_open(&ticket.room).is_none();
                if is_allowed {
                    self.authorize_resume(ticket, outbox)
                } else {
                    Err(AuthError::BadToken)
                }
            })
        });
        // First all of them, so that those who stay hear of those who do not.
        let restored: Vec<_> = restored.collect();
        if !restored.is_empty() {
            tracing::info!(members = restored.len(), "seats of the process before are kept");
        }
        restored.iter().for_each(DetachedMember::announce_detached);
        for parked in restored {
            let worker = workers.of(parked.room());
            self.spawn_resume_wait(parked, None, worker);
        }
    }

    /// Writes down who may go on where it was, for the process after this one. Call it once, when every
    /// session has ended, or is not waited for any more. Blocks while the disk works.
    pub fn save_snapshot(&self) {
        let (mut survivors, now) = (self.snapshot.take(), unix_now());
        // First those leave who may not come back: of the others it is written down what was told before.
        survivors.retain(DetachedMember::can_resume);
        let all = survivors.len();
        state_file::keep_fitting(&mut survivors, DetachedMember::bytes);
        let records: Vec<_> = survivors.iter().filter_map(|parked| parked.to_saved(now)).collect();
        if records.is_empty() {
            return;
        }
        let path = self.config.state_file();
        match state_file::save(&path, records) {
            Ok(members) => {
                // To let go of their seats is not to leave.
                self.webhooks.falls_silent();
                tracing::info!(members, all, file = %path.display(), "kept for the next process")
            }
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "nobody may go on where it was")
            }
        }
    }
}

fn mint_credentials(turn: &Turn, username: &str) -> Result<TurnCredentials, TurnError> {
    let secret = turn.secret.expose_secret();
    if secret.is_empty() {
        return Err(TurnError::NotConfigured);
    }
    if turn.urls.is_empty() {
        return Err(TurnError::NoUrls);
    }
    Ok(turn::mint(secret, username, turn.ttl, unix_now()))
}

/// No rooms yet, of this node alone or shared with others: the one place that chooses between the two.
fn open_rooms(
    config: &Config,
    node: Arc<str>,
    webhooks: &Webhooks,
    state: NodeState,
) -> (RoomRegistry, Option<MigratedMembers>) {
    if config.redis_urls.is_empty() {
        let rooms = RoomRegistry::new(config.max_connections_per_room);
        return (rooms.with_timelines(config.timelines).with_webhooks(webhooks.clone()), None);
    }
    #[expect(clippy::expect_used, reason = "Config::read refuses others")]
    let endpoints = cluster::parse_endpoints(&config.redis_urls, config.redis_authority.as_deref())
        .expect("URLs and a certificate that were looked at");
    let timings = ClusterTimings::default();
    let (gateway, queues, migrated) = ClusterGateway::new(node, endpoints.len(), timings);
    let rooms = RoomRegistry::with_backend(config.max_connections_per_room, gateway.clone());
    let rooms = rooms.with_timelines(config.timelines).with_webhooks(webhooks.clone());
    let state = Arc::new(ClusteredState { state, rooms: rooms.clone() });
    cluster::start(&gateway, queues, endpoints, &rooms, state, webhooks);
    (rooms, Some(migrated))
}

/// Names rows that were kept out of the accounts.
pub fn log_row_faults(faults: &[RowFault]) {
    for RowFault { line, fault } in faults {
        tracing::error!(line, fault, "a row of the users file is kept out");
    }
}

impl AppStateInner {
    /// A new token for somebody who has shown who he is. `account` as it was then: a token that was
    /// logged in with a password must not outlive it.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue(&self, account: &Account) -> Result<IssuedToken, jsonwebtoken::errors::Error> {
        let token = self.tokens.issue(&account.username, &account.stamp(), unix_now())?;
        Ok(IssuedToken { token, lifetime: self.tokens.lifetime() })
    }

    /// Who stands behind a token.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadToken`] and [`Refusal::NoSuchUser`].
    pub fn identify(&self, token: &str) -> Result<(Account, Claims), AuthError> {
        let claims =
            self.tokens.verify(token, unix_now()).map_err(|InvalidToken| AuthError::BadToken)?;
        self.check_account(&claims).map(|account| (account, claims))
    }

    /// The settings as they are now: what [`READ_AGAIN`](crate::config::READ_AGAIN) names is to be asked for here, whenever it is
    /// needed. Not for each message: this takes a lock.
    pub fn settings(&self) -> Arc<Config> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The STUN and TURN servers that count now.
    fn ice(&self) -> Arc<Ice> {
        self.settings().ice.clone()
    }

    /// Another number whenever those were replaced.
    pub fn ice_version(&self) -> u64 {
        self.ice_version.load(Ordering::Relaxed)
    }

    /// Lets `settings` count, that were [read again](Config::read_again). Whoever is in hears of other STUN and
    /// TURN servers at its next deadline, so not all at once, and keeps to the limits that it came in under.
    pub fn apply_settings(&self, settings: Config) {
        self.http_rate.apply_settings(settings.rate_limit_per_minute);
        self.lockouts().apply_settings(settings.auth_max_failures, settings.auth_lockout);
        self.sockets.apply_settings(settings.max_connections_per_ip);
        self.detached_permits.apply_settings(settings.max_connections_per_ip);
        self.rooms.set_default_capacity(settings.max_connections_per_room);
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        let has_other_ice = held.ice != settings.ice;
        *held = Arc::new(settings);
        if has_other_ice {
            self.ice_version.fetch_add(1, Ordering::Relaxed);
            self.ice_replaced.notify_one();
        }
    }

    /// Lets accounts count that were read again, and ends the sockets of those that no longer do; whether there
    /// was anything new.
    pub fn apply_users(&self, fresh: PendingUsers<'_>) -> bool {
        let (is_new, faults) = fresh.apply();
        self.end_revoked_sessions(&faults);
        is_new
    }

    fn end_revoked_sessions(&self, faults: &[RowFault]) {
        log_row_faults(faults);
        self.token_sessions.end_revoked(|claims| self.revocation_reason(claims));
    }

    /// TURN credentials for an account, the URLs that they are for, and how long they last.
    ///
    /// # Errors
    ///
    /// [`TurnError`].
    pub fn turn_credentials(
        &self,
        username: &str,
    ) -> Result<(TurnCredentials, Vec<String>, Duration), TurnError> {
        let turn = &self.ice().turn;
        let credentials = mint_credentials(turn, username)?;
        self.metrics.issued_turn_credentials();
        Ok((credentials, self.relays.in_order(&turn.urls), turn.ttl))
    }

    /// STUN for everybody, TURN as well for an account; and how long credentials last.
    pub fn ice_servers(&self, username: Option<&str>) -> (Vec<IceServer>, Duration) {
        let ice = self.ice();
        let stun = &ice.stun_urls;
        let mut servers = Vec::new();
        if !stun.is_empty() {
            servers.push(IceServer { urls: stun.clone(), username: None, credential: None });
        }
        if let Some(Ok(turn)) = username.map(|username| mint_credentials(&ice.turn, username)) {
            self.metrics.issued_turn_credentials();
            servers.push(IceServer {
                urls: self.relays.in_order(&ice.turn.urls),
                username: Some(turn.username),
                credential: Some(turn.credential),
            });
        }
        (servers, ice.turn.ttl)
    }

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

    /// How many logins are being checked or wait for it.
    pub fn pending_logins(&self) -> usize {
        self.logins.in_use()
    }

    /// What tells a session that the server stops.
    pub fn closing(&self) -> watch::Receiver<Option<Duration>> {
        self.closing.subscribe()
    }

    /// Whether the server stops.
    pub fn is_closing(&self) -> bool {
        self.closing.borrow().is_some()
    }

    /// Why nobody may enter `room` at all, whoever it is.
    pub fn check_room_open(&self, room: &str) -> Option<CloseReason> {
        if self.is_closing() {
            return Some(CloseReason::Draining);
        }
        let allowed = &self.settings().allowed_rooms;
        (!allowed.is_empty() && !allowed.iter().any(|allowed| allowed == room))
            .then_some(CloseReason::RoomNotAllowed)
    }

    /// Somebody waits until there is time to check his password, or is turned away.
    async fn queue_login(
        &self,
        username: &str,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        self.lockouts()
            .check_login(&self.username_digest(username), address, Instant::now())
            .map_err(LoginError::Locked)
            .inspect_err(|_| self.metrics.limited(Limit::FailedLogins))?;
        let _place = self.logins.acquire(address).ok_or_else(|| {
            tracing::warn!(%address, "login turned away: too many wait");
            self.metrics.limited(Limit::WaitingLogins);
            LoginError::Busy
        })?;
        self.check_login(username, password, address).await
    }

    async fn check_login(
        &self,
        username: &str,
        password: SecretString,
        address: IpAddr,
    ) -> Result<IssuedToken, LoginError> {
        let name = self.username_digest(username);
        let still_allowed = || self.lockouts().check_login(&name, address, Instant::now());
        let account = self.users.find(username);
        let hash = match &account {
            Some(account) => account.hashed_password.clone(),
            None => dummy_hash(self.users.usual_cost()),
        };
        let checked = self.passwords.check(password, hash, still_allowed).await;
        let matches = checked
            .map_err(LoginError::Locked)
            .inspect_err(|_| self.metrics.limited(Limit::FailedLogins))?;
        match account {
            Some(account) if matches && account.is_active => {
                self.record_auth_event(&AuthEvent::LoggedIn { name, address });
                tracing::info!(user = account.username, "logged in");
                self.issue(&account).map_err(LoginError::Internal)
            }
            known => {
                self.record_auth_event(&AuthEvent::LoginFailed { name, address });
                // Somebody may have typed the password into the field for the name.
                let user = known.map_or_else(|| "(unknown)".to_owned(), |account| account.username);
                tracing::warn!(user, %address, "login failed");
                Err(LoginError::Wrong)
            }
        }
    }

    /// Lets somebody in who waits at the door of a room, from `address`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn authorize(
        &self,
        claim: Credentials<'_>,
        address: IpAddr,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        match claim {
            Credentials::Guest => Ok(self.authorize_guest()),
            Credentials::Token(token) => self.authorize_user(token, address, outbox),
            Credentials::ResumeToken(ticket) => self.authorize_resume(ticket, outbox),
        }
    }

    fn authorize_guest(&self) -> Authorized {
        let username = loop {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let name = format!("guest-{}", id.get(..6).unwrap_or_default());
            if self.users.find(&name).is_none() {
                break name;
            }
        };
        Authorized { username: username.into(), expires_in: None, claims: None, session: None }
    }

    fn authorize_user(
        &self,
        token: &str,
        address: IpAddr,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let now = unix_now();
        let claims = self.tokens.verify(token, now).map_err(|InvalidToken| {
            if self.lockouts().is_blocked(address, Instant::now()) {
                self.metrics.limited(Limit::BadTokens);
                return AuthError::Blocked;
            }
            self.record_auth_event(&AuthEvent::TokenRefused { address });
            AuthError::BadToken
        })?;
        self.authorize_claims(claims, now, outbox)
    }

    /// Whoever was here before comes in on what he came in with then, if that still counts.
    fn authorize_resume(
        &self,
        ticket: &ResumeToken,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let ResumeToken { room, client_id, username, since, .. } = ticket;
        if self.moderation_rules.has_ended(room, username, client_id, *since)
            || self.moderation_rules.check_entry(room, username, client_id, unix_now())
                == Some(EntryDenied::Banned)
        {
            return Err(AuthError::Removed);
        }
        let Some(claims) = &ticket.claims else {
            if !self.config.allow_anonymous || self.users.find(&ticket.username).is_some() {
                return Err(AuthError::NoSuchUser);
            }
            let username = ticket.username.as_str().into();
            return Ok(Authorized { username, expires_in: None, claims: None, session: None });
        };
        let now = unix_now();
        if self.config.enforce_token_expiry && now >= claims.expires_at {
            return Err(AuthError::BadToken);
        }
        self.authorize_claims(claims.clone(), now, outbox)
    }

    fn authorize_claims(
        &self,
        claims: Claims,
        now: u64,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let grant = self.token_sessions.register(&claims, outbox.clone());
        let account = self.check_account(&claims)?;
        Ok(Authorized {
            username: account.username.into(),
            expires_in: Some(Duration::from_secs(claims.expires_at.saturating_sub(now))),
            claims: Some(claims),
            session: Some(grant),
        })
    }

    /// Whose a token is that was signed well: the one place that says so, for REST and for sockets.
    fn check_account(&self, claims: &Claims) -> Result<Account, AuthError> {
        if self.revoked_tokens.contains(claims) {
            return Err(AuthError::BadToken);
        }
        let account = self.users.active(&claims.username).ok_or(AuthError::NoSuchUser)?;
        if claims.stamp.as_ref().is_some_and(|stamp| *stamp != account.stamp()) {
            return Err(AuthError::BadToken);
        }
        Ok(account)
    }

    /// Why sockets end that stand on these claims, where a new users file ends them.
    fn revocation_reason(&self, claims: &Claims) -> Option<DisconnectReason> {
        match self.check_account(claims) {
            Ok(_) => None,
            Err(AuthError::NoSuchUser) => Some(DisconnectReason::AccountGone),
            Err(AuthError::BadToken | AuthError::Blocked | AuthError::Removed) => {
                Some(DisconnectReason::PasswordChanged)
            }
        }
    }

    fn evict_expired(&self) {
        self.lockouts().evict_expired(Instant::now());
        self.revoked_tokens.evict_expired(unix_now());
        self.save_revoked();
        self.moderation_rules.evict_expired(unix_now());
        self.save_rules();
        self.rooms.evict_expired();
        self.http_rate.evict_expired();
    }

    fn save_rules(&self) {
        if let Err(error) = self.moderation_rules.save() {
            tracing::error!(%error, "orders of administrators not saved: a restart would undo them");
        }
    }

    fn save_revoked(&self) {
        if let Err(error) = self.revoked_tokens.save() {
            tracing::error!(%error, "logouts not saved: a restart would undo them");
        }
    }

    /// Notes an attempt here and, where it matters, on every other server.
    fn record_auth_event(&self, attempt: &AuthEvent) {
        let is_news = self.lockouts().record(attempt, Instant::now());
        if is_news && let Ok(attempt) = serde_json::to_string(attempt) {
            self.rooms.backend().report_auth_event(attempt);
        }
    }

    /// What lockouts know a name by, here and on other servers: somebody may have typed a password into the field
    /// for it.
    fn username_digest(&self, username: &str) -> String {
        let tag = hmac::sign(&self.digest_key, username.as_bytes());
        BASE64_STANDARD.encode(tag)
    }

    fn lockouts(&self) -> MutexGuard<'_, Lockouts> {
        self.lockouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
