//! A measured server: a separate process, pinned to cores.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nix::{time::clock_getcpuclockid, unistd::Pid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::tls::Certificate;

const JWT_SECRET_KEY: &str = "jwt-key-of-the-bench-0123456789abcdef";

/// The password of the account that all clients use: a bcrypt hash of cost 12.
pub const HASH: &str = "$2b$12$qosdASkcgVz5u2OISmsHteC0pgEIIiA5NyWgi.tosFNo/AilfMfra";

/// The settings of every server that the bench starts.
pub const SETTINGS: [(&str, &str); 7] = [
    ("HOST", "127.0.0.1"),
    ("LOG_FORMAT", "json"),
    ("REQUIRE_HTTPS", "false"),
    ("SECRET_KEY", "own-key-of-the-bench-0123456789abcdef"),
    ("JWT_SECRET_KEY", JWT_SECRET_KEY),
    ("CORS_ORIGINS", "https://app.example.com"),
    ("RATE_LIMIT_PER_MINUTE", "1000000"),
];

const ANY_PORT: &str = "127.0.0.1:0";

/// The kind of a measured server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The signaling server, with all features on.
    Server,
    /// The same behind nginx, which ends TLS; both together.
    Nginx,
    /// [`crate::floor`].
    Floor,
    /// The same, which looks up and copies nothing.
    LeanFloor,
}

/// A running server.
pub struct Subject {
    /// Its address.
    pub address: SocketAddr,
    pid: u32,
    /// `None` if it was started outside the bench.
    child: Option<Child>,
    /// The server that it is a proxy of, which counts with it.
    behind: Option<Box<Subject>>,
    folder: PathBuf,
}

impl Kind {
    /// The name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Nginx => "behind nginx",
            Self::Floor => "floor",
            Self::LeanFloor => "leaner floor",
        }
    }
}

impl Subject {
    /// A server that is already running.
    pub fn running(address: SocketAddr, pid: u32) -> Self {
        Self { address, pid, child: None, behind: None, folder: PathBuf::new() }
    }

    /// Starts a server on `cores`, over TLS if it gets a certificate.
    pub fn start(
        kind: Kind,
        server: &Path,
        cores: &[usize],
        tls: Option<&Certificate>,
    ) -> io::Result<Self> {
        on(cores, || match kind {
            Kind::Server => Self::start_server(server, &settings_of(tls)),
            Kind::Nginx => Self::start_nginx(Self::start_server(server, &[])?, tls),
            Kind::Floor => Self::start_floor(ANY_PORT, &floor_over(tls)),
            Kind::LeanFloor => Self::start_floor(ANY_PORT, &["lean".into()]),
        })
    }

    /// Kills it, as a crash does, and starts it again at the same address and with the same files.
    pub fn restart(
        mut self,
        server: &Path,
        cores: &[usize],
        tls: Option<&Certificate>,
    ) -> io::Result<Self> {
        let address = self.address;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        let folder = std::mem::take(&mut self.folder);
        on(cores, || {
            if folder == Path::new("") {
                return Self::start_floor(&address.to_string(), &floor_over(tls));
            }
            let port = address.port().to_string();
            Self::launch(server, folder, &port, &settings_of(tls))
        })
    }

    /// Starts a cluster node on `cores`, and waits until it has reached its engine.
    pub fn start_node(
        server: &Path,
        cores: &[usize],
        redis_url: &str,
        node: &str,
    ) -> io::Result<Self> {
        let settings =
            [("REDIS_URL", redis_url), ("NODE_ID", node)].map(|(name, value)| (name, value.into()));
        let node = on(cores, || Self::start_server(server, &settings))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !node.health()?.contains(r#""engine":"up""#) {
            if Instant::now() > deadline {
                return Err(io::Error::other("a node cannot reach its engine"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    /// Starts a floor on `cores` that reaches the members of `peer` through a Redis.
    pub fn start_linked_floor(
        cores: &[usize],
        redis: SocketAddr,
        own: &str,
        peer: &str,
    ) -> io::Result<Self> {
        let redis = redis.to_string();
        let link = ["link", &redis, own, peer].map(PathBuf::from);
        on(cores, || Self::start_floor(ANY_PORT, &link))
    }

    fn start_floor(address: &str, more: &[PathBuf]) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["floor", address])
            .args(more)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        Self::wait_for_address(Kind::Floor, child, PathBuf::new(), |line| line.trim().parse().ok())
    }

    fn start_server(server: &Path, more: &[(&str, PathBuf)]) -> io::Result<Self> {
        let folder = folder()?;
        let users = format!(
            "username,email,hashed_password,is_active\nbench,bench@example.com,{HASH},True\n"
        );
        fs::write(folder.join("users.csv"), users)?;
        Self::launch(server, folder, "0", more)
    }

    fn launch(
        server: &Path,
        folder: PathBuf,
        port: &str,
        more: &[(&str, PathBuf)],
    ) -> io::Result<Self> {
        let child = Command::new(server)
            .env_clear()
            .envs(SETTINGS)
            .envs([
                ("PORT", port),
                // Limits are on, and high enough for all clients on one machine.
                ("WEBSOCKET_MESSAGES_PER_SECOND", "1000000"),
                ("WEBSOCKET_MESSAGE_BURST", "1000000"),
                ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
                ("JOINS_PER_MINUTE", "0"),
                ("AUTH_MAX_FAILURES", "1000000"),
                ("WEBSOCKET_TIMEOUT", "120"),
            ])
            .envs(more.iter().cloned())
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", server.display())))?;
        Self::wait_for_address(Kind::Server, child, folder, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["fields"]["address"].as_str()?.parse().ok()
        })
    }

    fn wait_for_address(
        kind: Kind,
        mut child: Child,
        folder: PathBuf,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> io::Result<Self> {
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!("the {} did not start", kind.name())));
            }
            if let Some(address) = address(&line) {
                break address;
            }
        };
        // The log is read as a journal would read it, on a core that the server does not use.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Ok(Self { address, pid: child.id(), child: Some(child), behind: None, folder })
    }

    /// nginx in front of `server`, with the file of `deploy/`.
    fn start_nginx(server: Self, tls: Option<&Certificate>) -> io::Result<Self> {
        let tls = tls.ok_or_else(|| io::Error::other("nginx without a certificate"))?;
        let folder = folder()?;
        let [http, https] = [free_port()?, free_port()?];
        let mut site = include_str!("../../deploy/nginx.conf").to_owned();
        for (from, to) in [
            ("127.0.0.1:8080", server.address.to_string()),
            ("listen [::]:80;", String::new()),
            ("listen [::]:443 ssl;", String::new()),
            ("listen 80;", format!("listen 127.0.0.1:{http};")),
            ("listen 443 ssl;", format!("listen 127.0.0.1:{https} ssl;")),
            (
                "/etc/letsencrypt/live/signaling.example.com/fullchain.pem",
                tls.chain().display().to_string(),
            ),
            (
                "/etc/letsencrypt/live/signaling.example.com/privkey.pem",
                tls.key().display().to_string(),
            ),
        ] {
            if !site.contains(from) {
                return Err(io::Error::other(format!("deploy/nginx.conf has no {from}")));
            }
            site = site.replace(from, &to);
        }
        let all = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr error; \n\
             events {{ worker_connections 40000; }}\n\
             http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n{site} }}\n"
        );
        fs::write(folder.join("nginx.conf"), all)?;
        // Debian has it where the PATH of a user does not look.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("nginx")
            .env("PATH", path)
            .args([Path::new("-p"), &folder, Path::new("-c"), Path::new("nginx.conf")])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("nginx: {error}")))?;
        let address = SocketAddr::from(([127, 0, 0, 1], https));
        let pid = child.id();
        let mut nginx =
            Self { address, pid, child: Some(child), behind: Some(server.into()), folder };
        while nginx.http().is_err() {
            if let Some(child) = &mut nginx.child
                && let Some(status) = child.try_wait()?
            {
                return Err(io::Error::other(format!("nginx has ended: {status}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// An access token of the account that all clients use.
    pub fn token() -> String {
        token_of("bench")
    }

    /// The processor time that it has used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        let behind = self.behind.as_ref().map_or(Ok(Duration::ZERO), |server| server.cpu())?;
        Ok(cpu_of(self.pid)? + behind)
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let behind = self.behind.as_ref().map_or(Ok(0), |server| server.resident())?;
        Ok(resident_of(self.pid)? + behind)
    }

    fn health(&self) -> io::Result<String> {
        let mut stream = self.http()?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// A TCP connection for HTTP requests.
    pub fn http(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.address)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.folder != Path::new("") {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The settings of a server with a certificate.
fn settings_of(tls: Option<&Certificate>) -> Vec<(&'static str, PathBuf)> {
    let files = tls.map(|tls| [("SSL_CERT_FILE", tls.chain()), ("SSL_KEY_FILE", tls.key())]);
    files.into_iter().flatten().collect()
}

/// The arguments of a floor with a certificate.
fn floor_over(tls: Option<&Certificate>) -> Vec<PathBuf> {
    tls.map(|tls| vec!["tls".into(), tls.chain(), tls.key()]).unwrap_or_default()
}

/// An access token of an account, valid for a day.
pub fn token_of(username: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = format!(r#"{{"sub":"{username}","exp":{}}}"#, now + 86_400);
    let parts = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims];
    let signed = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET_KEY.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// The given path, or that of the server beside this program.
pub fn binary(given: Option<PathBuf>) -> io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("signaling-server");
    given.unwrap_or(beside).canonicalize()
}

/// Runs `start` on `cores`, where the processes that it starts stay; this thread returns to its own cores.
pub fn on<T>(cores: &[usize], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = sched_getaffinity(None)?;
    pin(cores)?;
    let started = start();
    sched_setaffinity(None, &own)?;
    started
}

/// Pins this thread, and the threads and processes that it starts, to these cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// A port that nobody listens on.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A new, empty folder.
pub fn folder() -> io::Result<PathBuf> {
    let number = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let folder = std::env::temp_dir().join(format!("bench-{}", number.as_nanos()));
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// The cores that this process may use.
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// The processor time of a process, in user and in kernel mode together.
fn cpu_of(pid: u32) -> io::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    Ok(Duration::from(clock_getcpuclockid(pid)?.now()?))
}

/// The resident memory of a process, in bytes.
pub fn resident_of(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map(|kibibytes| kibibytes << 10).ok_or_else(|| io::Error::other("no VmRSS"))
}

/// Waits until the process is idle, so that earlier work does not count in the next measurement.
pub fn settle(subject: &Subject) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = subject.cpu()?;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
        let now = subject.cpu()?;
        if now <= last + Duration::from_millis(10) {
            return Ok(());
        }
        last = now;
    }
    Ok(())
}
