//! The server as a process of its own, and what can be seen of it from outside.

use std::{fmt, fs, io, net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use serde_json::Value;
use signaling::{
    app::AppState,
    auth::{revoked::RevokedTokens, users::Users},
    clock::unix_now,
    config::Config,
    http,
    moderation::ModerationRules,
    server::{self, ConnectionLimits},
    telemetry,
    workers::Workers,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Fault,
    town::{JWT_KEY, SOON, Surprises, Town},
};

/// Serves until standard input ends; every line on it is answered with how many tasks there are.
pub fn serve(runtime: &Runtime, folder: &Path) -> Result<(), Fault> {
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
            // So that what is remembered of tokens and failures comes and goes while we watch.
            "ACCESS_TOKEN_EXPIRE_MINUTES" => "1",
            "AUTH_LOCKOUT_SECONDS" => "30",
            "USERS_CSV" => &path,
            "CORS_ORIGINS" => "https://soak.example",
            "TRUSTED_PROXIES" => "[]",
            "WEBSOCKET_TIMEOUT" => "10",
            _ => return None,
        };
        Some(value.to_owned())
    })?;
    let _log = telemetry::start(&config);
    let (handles, proxies) = (server::raise_descriptor_limit(), config.trusted_proxies.clone());
    let (users, _) = Users::load(&users_csv)?;
    let revoked = RevokedTokens::load(&users_csv, unix_now())?;
    let orders = ModerationRules::load(&users_csv)?;
    runtime.block_on(async {
        let listener = server::listen(&config.host, config.port).await?;
        println!("address {}", listener.local_addr()?);
        let app = AppState::new(config, users, revoked, orders);
        let (doors, gate) = (
            http::http_service(&app),
            ConnectionLimits::new(handles, &proxies, app.metrics.clone()),
        );
        tokio::spawn(app.run_maintenance());
        tokio::spawn(server::serve(
            listener,
            doors,
            None,
            gate,
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

/// The other process, as it is seen from here.
pub struct House {
    _child: Child,
    pid: u32,
    ask: ChildStdin,
    told: mpsc::Receiver<usize>,
}

impl House {
    /// Starts it; error lines in its log go to `surprises`.
    pub async fn open(
        folder: &Path,
        surprises: Arc<Surprises>,
    ) -> Result<(Self, SocketAddr), Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("the server has ended")?;
        let ask = child.stdin.take().ok_or("no stdin")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let first = lines.next_line().await?.ok_or("the server said nothing")?;
        let address = first.strip_prefix("address ").ok_or("no address")?.parse()?;
        let (tell, told) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.strip_prefix("tasks ").and_then(|tasks| tasks.parse().ok()) {
                    Some(tasks) => _ = tell.send(tasks).await,
                    None if line.contains(r#""level":"ERROR""#) => {
                        surprises.add(line);
                    }
                    None => {}
                }
            }
        });
        Ok((Self { _child: child, pid, ask, told }, address))
    }

    pub async fn look(&mut self, town: &Town) -> Result<Reading, Fault> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib =
            rss.and_then(|rss| rss.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.parse()?;
        let handles = fs::read_dir(format!("/proc/{}/fd", self.pid))?.count();
        self.ask.write_all(b"\n").await?;
        let tasks = self.told.recv().await.ok_or("the server has ended")?;
        let (_, health) = town.ask("GET /health", "", "").await?;
        let health: Value = serde_json::from_str(&health)?;
        let count = |name| health.get(name).and_then(Value::as_u64).ok_or("no such figure");
        let (rooms, members) = (count("rooms")?, count("active_connections")?);
        Ok(Reading { rss_kib, handles, tasks, rooms, members })
    }

    /// Waits until nobody is there and nothing is left of them, or until that is hopeless.
    pub async fn quiet(&mut self, town: &Town, start: &Reading) -> Result<Reading, Fault> {
        let deadline = Instant::now() + 3 * SOON;
        loop {
            let now = self.look(town).await?;
            if now.left_over(start).is_empty() || Instant::now() > deadline {
                return Ok(now);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

/// What can be counted of the server.
pub struct Reading {
    pub rss_kib: f64,
    tasks: usize,
    handles: usize,
    rooms: u64,
    members: u64,
}

impl Reading {
    /// What is there that was not at the start.
    pub fn left_over(&self, start: &Self) -> Vec<&'static str> {
        let more = [
            ("tasks", self.tasks > start.tasks),
            ("handles", self.handles > start.handles),
            ("rooms", self.rooms > 0),
            ("members", self.members > 0),
        ];
        more.into_iter().filter_map(|(name, more)| more.then_some(name)).collect()
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rss_kib, tasks, handles, rooms, members } = self;
        let mib = rss_kib / 1024.0;
        write!(f, "{mib:>9.1} {tasks:>7} {handles:>8} {rooms:>6} {members:>8}")
    }
}
