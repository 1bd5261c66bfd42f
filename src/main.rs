//! `signaling-server`: the whole life of the process on one screen.

use std::{
    error::Error,
    io::{self, Write},
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;

use rustix::process::Signal;
use signaling::{
    administration,
    app::{self, App},
    auth::{password, revoked::Revoked, users, users::Users, users_file::DEFAULT_ACCOUNTS},
    clock::unix_now,
    config::{self, Config, Faults},
    doctor::{self, Finding, Verdict},
    dotenv, healthcheck, http,
    moderation::Orders,
    server::{self, Gate},
    telemetry,
    tls::Tls,
    workers::Workers,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const USAGE: &str = "usage: signaling-server [admin … | doctor [--json] | healthcheck | --check-config | --version]\n\
    Settings come from the environment and from .env in this folder; env.example lists them.\n\
    admin           look after rooms and members of a server that runs; `admin --help` says how\n\
    doctor          look whether settings, accounts and Redis are as they should be, and exit: 0 if nothing is at fault\n\
    healthcheck     ask the server that they name whether it is ready, and exit: 0 if it is\n\
    --check-config  say what keeps these settings and accounts from production, and exit\n\
    --version       say which version this is, and exit";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "admin") {
        return administrate(&arguments);
    }
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["doctor"] => see_doctor(false),
        ["doctor", "--json"] => see_doctor(true),
        ["healthcheck"] => is_healthy(),
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
    let _log = telemetry::start(&config);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // before anything signs or encrypts
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, handed_over));
    // Not waiting for passwords that are still being hashed: nobody reads those answers any more.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config, handed_over: Option<TcpListener>) -> Result<(), Box<dyn Error>> {
    let mut hung_up = signal(SignalKind::hangup())?;
    // A limit on the size of files is an error when one is written, and not our end.
    let _too_large = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if config.debug && !config.users_csv.exists() {
        users::create_default(&config.users_csv)?;
        tracing::warn!(file = %config.users_csv.display(), "default users made: for development only");
    }
    let (users, faults) =
        Users::load(&config.users_csv).map_err(|error| format!("USERS_CSV: {error}"))?;
    app::report(&faults);
    let revoked = Revoked::load(&config.users_csv, unix_now())?;
    let orders = Orders::load(&config.users_csv)?;
    let tls = config.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(|error| format!("SSL_CERT_FILE, SSL_KEY_FILE: {error}"))?.map(Arc::new);
    if !config.debug {
        config::exposed_files(&config).iter().for_each(|exposed| tracing::warn!("{exposed}"));
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
            default_passwords(&app.users).for_each(|fault| tracing::warn!("{fault}"))
        });
    }
    let reloading = app.clone();
    // A closed terminal is no reason to end calls.
    tokio::spawn(async move {
        while hung_up.recv().await.is_some() {
            reload(&reloading);
        }
    });
    tokio::spawn(app.clone().keep_house());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.keep_fresh(app.metrics.clone()));
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

    let mut asked_to_stop =
        async || tokio::select! { _ = interrupted.recv() => {}, _ = terminated.recv() => {} };
    tokio::select! { () = asked_to_stop() => {}, () = app.stop.cancelled() => {} }
    tracing::info!("closing");
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
    tracing::info!("closed");
    Ok(())
}

/// On SIGHUP: settings that may change while we run, all of them or none. Users and certificates are watched.
fn reload(app: &App) {
    let read = dotenv::environment().map_err(|error| error.to_string());
    match read.and_then(|variable| Config::read(variable).map_err(|faults| faults.to_string())) {
        Ok(config) => {
            let news = if app.reload(config) { "changed" } else { "as before" };
            tracing::info!(news, "STUN and TURN settings read again; others need a restart");
        }
        Err(error) => tracing::error!(%error, "settings not read again; all stay as they were"),
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

/// Looks at everything, and says what was found.
fn see_doctor(as_json: bool) -> Result<(), Box<dyn Error>> {
    let variable = dotenv::environment()?;
    let mut findings: Vec<_> = faults(&variable).into_iter().map(Finding::fault).collect();
    // Settings that cannot be read name nothing that could be looked at.
    if let Ok(config) = Config::read(&variable) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        findings.extend(runtime.block_on(doctor::look(&config)));
    }
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
    let faults = faults(dotenv::environment()?);
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults).into()) }
}

fn faults(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let users_csv = config::users_csv(&variable);
    let mut faults = match Config::read(&variable) {
        Ok(config) if config.debug => {
            vec!["DEBUG=true is for development: it allows published secrets, and serves the examples".to_owned()]
        }
        Ok(_) => Vec::new(),
        Err(Faults(faults)) => faults,
    };
    if users_csv.exists() {
        match Users::load(&users_csv) {
            Ok((users, rows)) => {
                let path = users_csv.display();
                faults.extend(
                    rows.iter().map(|row| format!("{path}, line {}: {}", row.line, row.fault)),
                );
                faults.extend(default_passwords(&users));
            }
            Err(error) => faults.push(format!("USERS_CSV: {error}")),
        }
    }
    faults
}

fn default_passwords(users: &Users) -> impl Iterator<Item = String> {
    let is_default = |(username, password): &(&str, &str)| {
        users
            .active(username)
            .is_some_and(|user| password::has_hash(&(*password).into(), &user.hashed_password))
    };
    DEFAULT_ACCOUNTS.into_iter().filter(is_default).map(|(username, _)| {
        format!("user \"{username}\" still has the default password, which is published; give another with `manage_users passwd {username}`")
    })
}
