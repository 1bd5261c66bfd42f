//! `signaling-server`: the whole life of the process on one screen.

use std::{
    error::Error,
    io::{self, Write},
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;

use rustix::process::Signal;
use sd_notify::NotifyState;
use secrecy::ExposeSecret;
use signaling::{
    administration,
    app::{self, App},
    auth::{revoked::Revoked, users, users::Users},
    clock::unix_now,
    config::{self, Changes, Config, Faults},
    doctor::{self, Finding, Verdict},
    dotenv, healthcheck, http,
    moderation::Orders,
    server::{self, Gate},
    telemetry::{self, LogLevelHandle},
    tls::{PendingCertificate, ServerCertificate},
    webhooks,
    workers::Workers,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

/// Where musl is linked, its own allocator would cost a tenth and more (docs/DEPLOYMENT.md, "One file").
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: signaling-server [admin … | doctor [--json] [--date URL] | healthcheck | webhook-secret | --check-config | --version]\n\
    Settings come from the environment and from .env in this folder; env.example lists them.\n\
    admin           look after rooms and members of a server that runs; `admin --help` says how\n\
    doctor          look at settings, secrets, accounts, files, certificate, port, clock, Redis, and try every STUN and\n\
    \x20               TURN server; exit: 0 if nothing is at fault. --json for programs; --date holds the clock against\n\
    \x20               that of a server, such as https://example.com\n\
    healthcheck     ask the server that they name whether it is ready, and exit: 0 if it is\n\
    webhook-secret  print what receivers of webhooks verify signatures with, and exit\n\
    --check-config  say what keeps these settings and accounts from production, and exit\n\
    --version       say which version this is, and exit";

/// How long webhooks may take to leave at the end: clients that come back wait for the next process meanwhile.
const WEBHOOKS_LEAVE_WITHIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "admin") {
        return administrate(&arguments);
    }
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["doctor", ref options @ ..] => see_doctor(options),
        ["healthcheck"] => is_healthy(),
        ["webhook-secret"] => webhook_secret(),
        ["--check-config"] => check_config(),
        ["--version"] => {
            println!("signaling-server {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    // Before there is a second thread: it changes the environment.
    let handed_over = server::handed_over().map_err(|error| format!("LISTEN_FDS: {error}"))?;
    let config = Config::read(dotenv::environment()?)?;
    let telemetry = telemetry::start(&config)?;
    // What the end itself leaves of it.
    let last_words = config.shutdown_grace / 10;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // before anything signs or encrypts
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, handed_over, telemetry.log_level.clone()));
    // Not waiting for passwords that are still being hashed: nobody reads those answers any more.
    runtime.shutdown_background();
    telemetry.shut_down(last_words);
    served
}

async fn serve(
    config: Config,
    handed_over: Option<TcpListener>,
    log_level: LogLevelHandle,
) -> Result<(), Box<dyn Error>> {
    let mut hung_up = signal(SignalKind::hangup())?;
    // A limit on the size of files is an error when one is written, and not our end.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    warn_of(&config);
    if config.debug && !config.users_csv.exists() {
        users::create_default(&config.users_csv)?;
        tracing::warn!(file = %config.users_csv.display(), "default users made: for development only");
    }
    let (users, faults) =
        Users::load(&config.users_csv).map_err(|error| format!("USERS_CSV: {error}"))?;
    app::report(&faults);
    let revoked = Revoked::load(&config.users_csv, unix_now())?;
    let orders = Orders::load(&config.users_csv)?;
    let tls = config.tls.clone().map(ServerCertificate::load).transpose();
    let tls = tls.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?.map(Arc::new);
    if !config.debug {
        for exposed in config::exposed_files(&config) {
            tracing::warn!(exposed, "a file with secrets is not its owner's alone");
        }
    }
    let handles = server::claim_handles();
    let (host, port) = (config.host.as_str(), config.port);
    let is_handed_over = handed_over.is_some();
    let listener = match handed_over {
        Some(listener) => server::take_over(listener)
            .map_err(|error| format!("cannot listen on the socket of LISTEN_FDS: {error}"))?,
        None => server::listen(host, port)
            .await
            .map_err(|error| format!("cannot listen on {host}:{port}: {error}"))?,
    };
    let figures_at = match config.metrics_listen {
        None => None,
        Some(address) => {
            let listener = server::listen(&address.ip().to_string(), address.port()).await;
            let listener = listener
                .map_err(|error| format!("METRICS_LISTEN: cannot listen on {address}: {error}"))?;
            tracing::info!(address = %listener.local_addr()?, "figures for Prometheus");
            Some(listener)
        }
    };
    let address = listener.local_addr()?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(%address, is_handed_over, tls = tls.is_some(), handles, version, "open");

    let grace = config.shutdown_grace;
    let app = App::new(config, users, revoked, orders);
    let gate = Gate::new(handles, &app.config.trusted_proxies, app.metrics.clone());
    let closing = CancellationToken::new();
    if !app.config.debug {
        let app = app.clone();
        tokio::task::spawn_blocking(move || {
            for fault in doctor::default_passwords(&app.users) {
                tracing::warn!(fault, "a default password is in use");
            }
        });
    }
    let (reloading, served) = (app.clone(), tls.clone());
    // A closed terminal is no reason to end calls.
    tokio::spawn(async move {
        while hung_up.recv().await.is_some() {
            let (app, tls, log_level) = (reloading.clone(), served.clone(), log_level.clone());
            let reloading = move || reload(&app, tls.as_deref(), &log_level);
            let _ = tokio::task::spawn_blocking(reloading).await;
        }
    });
    tokio::spawn(app.clone().keep_house());
    tokio::spawn(app.clone().watch_relays());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.run_reload(app.metrics.clone()));
    }
    let workers = match app.config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let workers = Workers::start(workers)?;
    app.restore(&workers);
    if let Some(listener) = figures_at {
        let gate = Gate::to_figures(app.metrics.clone());
        let (figures, workers) = (http::figures(&app), workers.clone());
        tokio::spawn(server::serve(listener, figures, None, gate, workers, closing.clone()));
    }
    let doors = http::doors(&app);
    let serving = tokio::spawn(server::serve(listener, doors, tls, gate, workers, closing.clone()));
    tell_systemd(NotifyState::Ready);

    let mut asked_to_stop =
        async || tokio::select! { _ = interrupted.recv() => {}, _ = terminated.recv() => {} };
    tokio::select! { () = asked_to_stop() => {}, () = app.stop.cancelled() => {} }
    let ends_by = Instant::now() + grace;
    tracing::info!("closing");
    tell_systemd(NotifyState::Stopping);
    if is_handed_over {
        // Whoever comes now waits in the socket's queue, for the next process.
        closing.cancel();
    }
    // Less than the grace itself: what is left must suffice to write down who may come back.
    let all_gone = timeout(grace.mul_f64(0.8), async {
        // Until all have left, whoever comes is told that we do: also a load balancer that asks.
        app.close().await;
        closing.cancel();
        serving.await
    });
    tokio::select! {
        gone = all_gone => if gone.is_err() {
            tracing::warn!("closing on clients that did not leave in time");
        },
        () = asked_to_stop() => tracing::warn!("asked twice: closing at once"),
    }
    app.leaves_cluster().await;
    app.save_survivors();
    let left = ends_by.saturating_duration_since(Instant::now());
    app.webhooks.close(left.min(WEBHOOKS_LEAVE_WITHIN)).await;
    tracing::info!("closed");
    Ok(())
}

/// Where systemd waits for it (`Type=notify`, sd_notify(3)); elsewhere nobody is told.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd, which NOTIFY_SOCKET names, cannot be told");
    }
}

/// On SIGHUP: everything that may change while we run, or nothing of it.
fn reload(app: &App, tls: Option<&ServerCertificate>, log_level: &LogLevelHandle) {
    let before = app.settings().log_level;
    match try_reload(app, tls) {
        Ok(Changes { changed, need_restart }) => {
            let (changed, need_restart) = (changed.join(", "), need_restart.join(", "));
            let level = app.settings().log_level;
            // However quiet the log is: somebody waits for this line.
            log_level.set(level.max(before).max(LevelFilter::INFO));
            tracing::info!(changed, need_restart, "reloaded");
            log_level.set(level);
        }
        Err(error) => {
            let error = error.to_string().replace('\n', "; ");
            tracing::error!(error, "not reloaded; everything stays as it was");
        }
    }
}

fn try_reload(app: &App, tls: Option<&ServerCertificate>) -> Result<Changes, Box<dyn Error>> {
    let (settings, mut changes) = app.settings().read_again(dotenv::environment()?)?;
    let users = app.users.read_again().map_err(|error| format!("USERS_CSV: {error}"))?;
    let certificate = tls.map(ServerCertificate::reload).transpose();
    let certificate =
        certificate.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?;

    // From here on nothing fails.
    if !changes.changed.is_empty() {
        warn_of(&settings);
    }
    app.adopt(settings);
    if app.adopt_users(users) {
        changes.changed.push("the users file".to_owned());
    }
    if certificate.is_some_and(PendingCertificate::apply) {
        changes.changed.push("the certificate".to_owned());
    }
    Ok(changes)
}

fn warn_of(settings: &Config) {
    for warning in settings.warnings() {
        tracing::warn!(warning, "a setting is dangerous");
    }
}

/// `signaling-server admin …`; what is wrong with the words of it is said as clap says it.
fn administrate(arguments: &[String]) -> ExitCode {
    let arguments = match administration::Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let asked = || -> Result<String, Box<dyn Error>> {
        let variable = dotenv::environment()?;
        let (host, port, token) = config::of_administrator(&variable)?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = runtime.block_on(administration::run(arguments, &host, port, token));
        runtime.shutdown_background();
        Ok(told?)
    };
    let (told, code) = match asked() {
        Ok(told) => (writeln!(io::stdout(), "{told}"), ExitCode::SUCCESS),
        Err(error) => (writeln!(io::stderr(), "{error}"), ExitCode::FAILURE),
    };
    // Whoever reads may have had enough.
    let _ = told;
    code
}

fn is_healthy() -> Result<(), Box<dyn Error>> {
    let config = Config::read(dotenv::environment()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(healthcheck::ask(&config.host, config.port));
    // Not waiting for a name that is still being looked up.
    runtime.shutdown_background();
    Ok(answer?)
}

/// Made of `SECRET_KEY`, which no receiver is to have.
fn webhook_secret() -> Result<(), Box<dyn Error>> {
    let config = Config::read(dotenv::environment()?)?;
    println!("{}", webhooks::receiver_secret(&config.secret_key).expose_secret());
    Ok(())
}

/// Looks at everything, and says what was found.
fn see_doctor(options: &[&str]) -> Result<(), Box<dyn Error>> {
    let (mut as_json, mut date, mut rest) = (false, None, options);
    loop {
        rest = match rest {
            [] => break,
            ["--json", rest @ ..] => {
                as_json = true;
                rest
            }
            ["--date", url, rest @ ..] => {
                date = Some(*url);
                rest
            }
            _ => return Err(USAGE.into()),
        };
    }
    let variable = dotenv::environment()?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(doctor::look(variable, date));
    // Not waiting for a name that is still being looked up.
    runtime.shutdown_background();
    if as_json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    let at_fault = findings.iter().filter(|it| it.verdict == Verdict::Fault).count();
    if at_fault == 0 { Ok(()) } else { Err(format!("{at_fault} at fault").into()) }
}

/// What keeps these settings and accounts from production, all of it.
fn check_config() -> Result<(), Box<dyn Error>> {
    let (_, findings) = doctor::settings(dotenv::environment()?);
    if findings.is_empty() {
        return Ok(());
    }
    let line = |Finding { says, mend, .. }: &Finding| match mend.as_str() {
        "" => says.clone(),
        mend => format!("{says}; {mend}"),
    };
    Err(Faults(findings.iter().map(line).collect()).into())
}
