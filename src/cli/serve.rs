//! `signaling-server` without a command: the life of the server process, in the order in which it happens.

use std::{error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use rustix::process::Signal as SignalNumber;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    read_settings,
    reload::reload_on_hangup,
    warnings::{
        log_dangerous_settings, log_default_passwords, log_env_file, log_file_modes,
        log_ignored_lines,
    },
};
use crate::{
    auth::{revocation::RevokedTokens, users, users::Users},
    clock::unix_now,
    config::{Config, Environment, ListenSettings, StartupSettings},
    doctor::{self, Diagnostic},
    http,
    intervals::{HttpTimeouts, Intervals},
    memory,
    moderation::ModerationRules,
    net::{self, ConnectionLimits, InheritedListener, Listener, UnixSocketGuard, workers::Workers},
    state::{self, AppState},
    telemetry::{self, LogLevelHandle},
    tls::{HOURS_KEPT, SealedTicketKey, ServerCertificate, TicketKeys},
};

/// How long the last webhooks may take at shutdown: clients that reconnect wait for the next process meanwhile.
const WEBHOOK_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The share of `SHUTDOWN_GRACE_SECONDS` in which clients must leave. The rest is for the shutdown snapshot.
const DRAIN_SHARE: f64 = 0.8;

/// Serves until SIGTERM, SIGINT or `POST /admin/api/drain`.
pub(super) fn run(
    env_file: Option<PathBuf>,
    environment: Environment,
    started: impl FnOnce(&AppState, &Workers),
) -> Result<(), Box<dyn Error>> {
    // Before there is a second thread: this changes the environment.
    let inherited = net::inherited_listener().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let mut config = read_settings(&environment)?;
    config.startup.intervals = Intervals::from_environment(|name| environment.variable(name));
    let telemetry = telemetry::start(&config)?;
    log_env_file(&environment);
    log_ignored_lines(&environment);
    let trace_timeout = config.startup.process.shutdown_grace / 10;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // before anything signs or encrypts
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = (env_file, environment);
    let log_level = telemetry.log_level.clone();
    let served = runtime.block_on(serve(config, settings, inherited, log_level, started));
    // Not shut down, as those of the other workers: it would drop one by one the sessions whose clients did not disconnect in
    // time, or wait for passwords that are still being hashed. The process ends.
    std::mem::forget(runtime);
    telemetry.shut_down(trace_timeout);
    served
}

async fn serve(
    config: Config,
    (env_file, environment): (Option<PathBuf>, Environment),
    inherited: Option<InheritedListener>,
    log_level: LogLevelHandle,
    started: impl FnOnce(&AppState, &Workers),
) -> Result<(), Box<dyn Error>> {
    let (mut stop_signals, hangup) = (StopSignals::register()?, signal(SignalKind::hangup())?);
    // Where file sizes are limited, a write fails; without a handler the signal would end the process.
    let _file_too_large = signal(SignalKind::from_raw(SignalNumber::XFSZ.as_raw()))?;
    log_dangerous_settings(&config.startup, &config.reloadable);
    let faults = doctor::start_faults(&config, &[]);
    if !faults.is_empty() {
        let lines: Vec<_> = faults.iter().map(Diagnostic::line).collect();
        return Err(lines.join("\n").into());
    }
    let (users, revoked, rules) = load_accounts(&config.startup)?;
    let tls = load_tls(&config.startup)?;
    log_file_modes(&config.startup, &environment);
    drop(environment); // and the secrets in it
    let listeners = Listeners::open(&config.startup, inherited, tls.is_some()).await?;

    let app = AppState::new(config, users, revoked, rules);
    let budget_mib = app.memory.limit() >> 20;
    tracing::info!(budget_mib, available_mib = memory::available() >> 20, "memory budget set");
    memory::start_guard(&app.memory)?;
    app.load_issuer_keys()?;
    app.end_tokens_of_disabled();
    log_default_passwords(&app);
    tokio::spawn(reload_on_hangup(hangup, env_file, app.clone(), tls.clone(), log_level));
    spawn_maintenance(&app, tls.as_ref());
    let workers = start_workers(app.config.process.workers)?;
    app.restore(&workers);
    let server = Server::start(&app, listeners, tls, &workers);
    notify_systemd(NotifyState::Ready);
    started(&app, &workers);

    let failure = tokio::select! {
        () = stop_signals.next() => None,
        () = app.stop.cancelled() => None,
        reason = app.rooms.backend().failure() => {
            tracing::error!(reason, "this server cannot be part of the cluster");
            Some(reason)
        }
    };
    let deadline = Instant::now() + app.config.process.shutdown_grace;
    tracing::info!("shutting down");
    notify_systemd(NotifyState::Stopping);
    server.drain(&app, &mut stop_signals).await;
    app.hand_over_members().await;
    // The rest is for writing it.
    app.save_snapshot(Instant::now() + deadline.saturating_duration_since(Instant::now()) / 4);
    let left = deadline.saturating_duration_since(Instant::now());
    app.webhooks.close(left.min(WEBHOOK_SHUTDOWN_TIMEOUT)).await;
    tracing::info!("shutdown complete");
    failure.map_or(Ok(()), |reason| Err(reason.into()))
}

/// SIGINT and SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn register() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of them. Safe to cancel.
    async fn next(&mut self) {
        tokio::select! { _ = self.interrupt.recv() => {}, _ = self.terminate.recv() => {} }
    }
}

/// The users file, which is created in development where it is missing, and the revoked tokens and moderation rules beside
/// it.
fn load_accounts(
    startup: &StartupSettings,
) -> Result<(Users, RevokedTokens, ModerationRules), Box<dyn Error>> {
    if startup.process.debug && !startup.auth.users_csv.exists() {
        users::create_default(&startup.auth.users_csv)?;
        tracing::warn!(file = %startup.auth.users_csv.display(), "default users created: for development only");
    }
    let users_csv = &startup.auth.users_csv;
    let load = if startup.tokens.users_required { Users::load } else { Users::load_optional };
    let (users, faults) =
        load(users_csv).map_err(|error| doctor::users_file_fault(&error).line())?;
    state::log_row_faults(&faults);
    let revoked = RevokedTokens::load(&startup.auth.users_csv, unix_now())?;
    let rules = ModerationRules::load(&startup.auth.users_csv)?;
    Ok((users, revoked, rules))
}

fn load_tls(startup: &StartupSettings) -> Result<Option<Arc<ServerCertificate>>, Box<dyn Error>> {
    let secret_key = &startup.auth.secret_key;
    let tickets = startup.ticket_file().map(|file| TicketKeys::load(file, secret_key, unix_now()));
    let tickets = tickets.transpose()?.map(Arc::new);
    let load = |files| ServerCertificate::load(files, tickets);
    let tls = startup.listen.tls.clone().map(load).transpose();
    Ok(tls.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?.map(Arc::new))
}

/// The sockets that the server accepts connections on.
struct Listeners {
    clients: Listener,
    /// Removes the Unix socket that the server has made for `clients`.
    socket_file: Option<UnixSocketGuard>,
    /// Whether `clients` was inherited (`LISTEN_FDS`): it then stays open while the next process starts.
    is_inherited: bool,
    metrics: Option<TcpListener>,
    /// How many file descriptors this process may have.
    file_descriptors: usize,
}

impl Listeners {
    async fn open(
        startup: &StartupSettings,
        inherited: Option<InheritedListener>,
        tls: bool,
    ) -> Result<Self, Box<dyn Error>> {
        let file_descriptors = net::raise_descriptor_limit();
        let is_inherited = inherited.is_some();
        let (clients, socket_file) = match inherited {
            Some(socket) => {
                let socket = net::adopt_listener(socket).map_err(|error| {
                    format!("cannot listen on the socket of LISTEN_FDS: {error}")
                })?;
                (socket, None)
            }
            None => listen(&startup.listen).await?,
        };
        if tls && matches!(clients, Listener::Unix(_)) {
            return Err("LISTEN_FDS: the server has TLS of its own on TCP only; leave SSL_CERT_FILE, SSL_KEY_FILE and \
                        SSL_SELF_SIGNED empty"
                .into());
        }
        let metrics = open_metrics_listener(startup).await?;
        // The system names a socket by the path that it was made at, before it was moved to its place.
        let address = match socket_file {
            Some(_) => startup.listen.host.clone(),
            None => clients.address()?,
        };
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(address, is_inherited, tls, file_descriptors, version, "listening");
        Ok(Self { clients, socket_file, is_inherited, metrics, file_descriptors })
    }
}

/// Listens where `HOST` and `PORT` say.
async fn listen(
    settings: &ListenSettings,
) -> Result<(Listener, Option<UnixSocketGuard>), Box<dyn Error>> {
    if let Some(file) = settings.unix_socket() {
        let (listener, guard) = net::listen_on_unix_socket(&file)
            .map_err(|error| doctor::cannot_listen_on_socket(&file, &error).line())?;
        return Ok((listener.into(), Some(guard)));
    }
    let ListenSettings { host, port, .. } = settings;
    let listener = net::listen(host, *port).await;
    let listener =
        listener.map_err(|error| doctor::cannot_listen("PORT", host, *port, &error).line())?;
    Ok((listener.into(), None))
}

async fn open_metrics_listener(
    startup: &StartupSettings,
) -> Result<Option<TcpListener>, Box<dyn Error>> {
    let Some(address) = startup.telemetry.metrics_listen else { return Ok(None) };
    let (host, port) = (address.ip().to_string(), address.port());
    let listener = net::listen(&host, port)
        .await
        .map_err(|error| doctor::cannot_listen("METRICS_LISTEN", &host, port, &error).line())?;
    tracing::info!(address = %listener.local_addr()?, "metrics listener open");
    Ok(Some(listener))
}

/// The tasks that last as long as the process.
fn spawn_maintenance(app: &AppState, tls: Option<&Arc<ServerCertificate>>) {
    tokio::spawn(app.clone().run_maintenance());
    tokio::spawn(app.clone().run_turn_probe());
    tokio::spawn(app.clone().run_clock_watch());
    tokio::spawn(app.clone().run_issuer_keys());
    if let Some(tls) = tls {
        tokio::spawn(
            tls.clone().run_reload(app.metrics.clone(), app.config.intervals.certificate_poll),
        );
        if let Some(tickets) = tls.tickets() {
            let rooms = app.rooms.clone();
            tokio::spawn(tickets.run_rotation(async move |SealedTicketKey { hour, sealed }| {
                let shared = rooms.backend().share_ticket_key(hour, &sealed, HOURS_KEPT).await;
                let keys = shared.ok()?.into_iter();
                Some(keys.map(|(hour, sealed)| SealedTicketKey { hour, sealed }).collect())
            }));
        }
    }
}

/// `count` workers; 0 stands for one for each core.
fn start_workers(count: usize) -> io::Result<Workers> {
    Workers::start(match count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    })
}

/// The accept loops.
struct Server {
    /// Ends when the last connection of a client has ended, after `stop_accepting`.
    clients: JoinHandle<()>,
    stop_accepting: CancellationToken,
    is_inherited: bool,
    _socket_file: Option<UnixSocketGuard>,
}

impl Server {
    fn start(
        app: &AppState,
        listeners: Listeners,
        tls: Option<Arc<ServerCertificate>>,
        workers: &Workers,
    ) -> Self {
        let Listeners { clients, socket_file, is_inherited, metrics, file_descriptors } = listeners;
        let stop_accepting = CancellationToken::new();
        if let Some(listener) = metrics {
            let Intervals { http, metrics_head, .. } = app.config.intervals;
            let timeouts = HttpTimeouts { head: metrics_head, ..http };
            let limits = ConnectionLimits::for_metrics(app.metrics.clone()).with_timeouts(timeouts);
            let (service, workers) = (http::metrics_service(app), workers.clone());
            let stop = stop_accepting.clone();
            tokio::spawn(net::serve(listener, service, None, limits, workers, stop));
        }
        let trusted_proxies = &app.config.listen.trusted_proxies;
        let limits = ConnectionLimits::new(file_descriptors, trusted_proxies, app.metrics.clone())
            .with_timeouts(app.config.intervals.http)
            .with_memory(app.memory.clone())
            .with_rate(app.connection_rate.clone())
            .with_proxy_headers(app.config.listen.proxy_protocol);
        let (service, workers) = (http::http_service(app), workers.clone());
        let stop = stop_accepting.clone();
        let clients = tokio::spawn(net::serve(clients, service, tls, limits, workers, stop));
        Self { clients, stop_accepting, is_inherited, _socket_file: socket_file }
    }

    /// Ends all sessions and connections, until [`DRAIN_SHARE`] of `SHUTDOWN_GRACE_SECONDS` is over or another signal
    /// comes.
    async fn drain(self, app: &AppState, stop_signals: &mut StopSignals) {
        if self.is_inherited {
            // New connections wait in the socket's queue for the next process.
            self.stop_accepting.cancel();
        }
        let drained = timeout(app.config.process.shutdown_grace.mul_f64(DRAIN_SHARE), async {
            // Until the last session has ended, new clients and load balancers still get an answer: the server is stopping.
            app.close().await;
            self.stop_accepting.cancel();
            self.clients.await
        });
        tokio::select! {
            drained = drained => if drained.is_err() {
                tracing::warn!("clients did not disconnect in time; closing their connections");
            },
            () = stop_signals.next() => tracing::warn!("second stop signal; closing at once"),
        }
    }
}

/// Tells systemd, where it asks for that (`Type=notify`, sd_notify(3)).
fn notify_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify systemd through NOTIFY_SOCKET");
    }
}
