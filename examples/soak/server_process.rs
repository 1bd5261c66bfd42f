//! The server as a separate process, and its measurement from outside.

use std::{fmt, fs, io, net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use serde_json::Value;
use signaling::{
    auth::{revocation::RevokedTokens, users::Users},
    clock::unix_now,
    config::Config,
    http,
    moderation::ModerationRules,
    net::{self, ConnectionLimits, workers::Workers},
    state::AppState,
    telemetry,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::clients::{Clients, Failures, JWT_KEY, TIMEOUT, TestError};

/// Runs the server until standard input ends. Answers every line on it with the number of tasks.
pub fn serve(runtime: &Runtime, folder: &Path) -> Result<(), TestError> {
    let users_csv = folder.join("users.csv");
    let path = users_csv.display().to_string();
    let config = Config::read(|name| {
        let value = match name {
            "HOST" => "127.0.0.1",
            "PORT" => "0",
            "LOG_FORMAT" => "json",
            "REQUIRE_HTTPS" => "false",
            "SECRET_KEY" => "soak: another key of 32 bytes or more",
            "JWT_SECRET_KEY" => JWT_KEY,
            // Short, so that revoked tokens and failed logins expire during the test.
            "ACCESS_TOKEN_EXPIRE_MINUTES" => "1",
            "AUTH_LOCKOUT_SECONDS" => "30",
            "USERS_CSV" => &path,
            "CORS_ORIGINS" => "https://soak.example",
            "TRUSTED_PROXIES" => "[]",
            "WEBSOCKET_TIMEOUT" => "10",
            // Every client joins as often as it can.
            "JOINS_PER_MINUTE" => "0",
            _ => return None,
        };
        Some(value.to_owned())
    })?;
    let _log = telemetry::start(&config);
    let (descriptors, proxies) =
        (net::raise_descriptor_limit(), config.startup.listen.trusted_proxies.clone());
    let (users, _) = Users::load(&users_csv)?;
    let revoked = RevokedTokens::load(&users_csv, unix_now())?;
    let rules = ModerationRules::load(&users_csv)?;
    runtime.block_on(async {
        let listener = net::listen(&config.startup.listen.host, config.startup.listen.port).await?;
        println!("address {}", listener.local_addr()?);
        let app = AppState::new(config, users, revoked, rules);
        let (service, limits) = (
            http::http_service(&app),
            ConnectionLimits::new(descriptors, &proxies, app.metrics.clone()),
        );
        tokio::spawn(app.run_maintenance());
        tokio::spawn(net::serve(
            listener,
            service,
            None,
            limits,
            Workers::start(1)?,
            CancellationToken::new(),
        ));
        Ok::<_, io::Error>(())
    })?;
    for _ in io::stdin().lines() {
        println!("tasks {}", runtime.metrics().num_alive_tasks());
    }
    Ok(())
}

/// The process of the server.
pub struct ServerProcess {
    _child: Child,
    pid: u32,
    stdin: ChildStdin,
    task_counts: mpsc::Receiver<usize>,
}

impl ServerProcess {
    /// Starts the server. Error lines in its log become failures of the test.
    pub async fn start(
        folder: &Path,
        failures: Arc<Failures>,
    ) -> Result<(Self, SocketAddr), TestError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("the server has ended")?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let first = lines.next_line().await?.ok_or("the server has printed nothing")?;
        let address = first.strip_prefix("address ").ok_or("no address")?.parse()?;
        let (sender, task_counts) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.strip_prefix("tasks ").and_then(|tasks| tasks.parse().ok()) {
                    Some(tasks) => _ = sender.send(tasks).await,
                    None if line.contains(r#""level":"ERROR""#) => {
                        failures.add(line);
                    }
                    None => {}
                }
            }
        });
        Ok((Self { _child: child, pid, stdin, task_counts }, address))
    }

    /// Measures the process now.
    pub async fn measure(&mut self, clients: &Clients) -> Result<Measurement, TestError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib =
            rss.and_then(|rss| rss.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.parse()?;
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid))?.count();
        self.stdin.write_all(b"\n").await?;
        let tasks = self.task_counts.recv().await.ok_or("the server has ended")?;
        let (_, health) = clients.request("GET /health", "", "").await?;
        let health: Value = serde_json::from_str(&health)?;
        let count = |name| {
            health.get(name).and_then(Value::as_u64).ok_or("a field is missing from /health")
        };
        let (rooms, members) = (count("rooms")?, count("active_connections")?);
        Ok(Measurement { rss_kib, descriptors, tasks, rooms, members })
    }

    /// Waits until the server has released everything, at most three times [`TIMEOUT`].
    pub async fn until_idle(
        &mut self,
        clients: &Clients,
        start: &Measurement,
    ) -> Result<Measurement, TestError> {
        let deadline = Instant::now() + 3 * TIMEOUT;
        loop {
            let now = self.measure(clients).await?;
            if now.leaks(start).is_empty() || Instant::now() > deadline {
                return Ok(now);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What the server process holds.
pub struct Measurement {
    pub rss_kib: f64,
    tasks: usize,
    descriptors: usize,
    rooms: u64,
    members: u64,
}

impl Measurement {
    /// What has not been released since `start`.
    pub fn leaks(&self, start: &Self) -> Vec<&'static str> {
        let more = [
            ("tasks", self.tasks > start.tasks),
            ("file descriptors", self.descriptors > start.descriptors),
            ("rooms", self.rooms > 0),
            ("members", self.members > 0),
        ];
        more.into_iter().filter_map(|(name, more)| more.then_some(name)).collect()
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, tasks, descriptors, rooms, members } = self;
        let mib = rss_kib / 1024.0;
        write!(f, "{mib:>9.1} {tasks:>7} {descriptors:>8} {rooms:>6} {members:>8}")
    }
}
