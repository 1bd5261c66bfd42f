//! A server under measurement: a process of its own on a core of its own.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const JWT_SECRET_KEY: &str = "jwt-key-of-the-bench-0123456789abcdef";

/// The password of the user that every client is: a bcrypt hash of cost 12.
pub const HASH: &str = "$2b$12$qosdASkcgVz5u2OISmsHteC0pgEIIiA5NyWgi.tosFNo/AilfMfra";

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The signaling server, with everything switched on.
    Server,
    /// [`crate::floor`].
    Floor,
}

/// A running server.
pub struct Subject {
    /// Where it listens.
    pub address: SocketAddr,
    pid: u32,
    /// `None` where somebody else started it.
    child: Option<Child>,
    folder: PathBuf,
}

impl Kind {
    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Floor => "floor",
        }
    }
}

impl Subject {
    /// One that runs already.
    pub fn running(address: SocketAddr, pid: u32) -> Self {
        Self { address, pid, child: None, folder: PathBuf::new() }
    }

    /// Starts one on `cores`.
    pub fn start(kind: Kind, server: &Path, cores: &[usize]) -> io::Result<Self> {
        on(cores, || match kind {
            Kind::Server => Self::start_server(server, &[]),
            Kind::Floor => Self::start_floor(),
        })
    }

    /// Starts a server on `cores` that shares its rooms with others, and waits until it can.
    pub fn start_node(
        server: &Path,
        cores: &[usize],
        redis_url: &str,
        node: &str,
    ) -> io::Result<Self> {
        let settings = [("REDIS_URL", redis_url), ("NODE_ID", node)];
        let node = on(cores, || Self::start_server(server, &settings))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !node.health()?.contains(r#""engine":"up""#) {
            if Instant::now() > deadline {
                return Err(io::Error::other("a node does not reach its engine"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    fn start_floor() -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        Self::heard_of(Kind::Floor, child, PathBuf::new(), |line| line.trim().parse().ok())
    }

    fn start_server(server: &Path, more: &[(&str, &str)]) -> io::Result<Self> {
        let folder = folder()?;
        let users = format!(
            "username,email,hashed_password,is_active\nbench,bench@example.com,{HASH},True\n"
        );
        fs::write(folder.join("users.csv"), users)?;
        let child = Command::new(server)
            .env_clear()
            .envs([
                ("HOST", "127.0.0.1"),
                ("PORT", "0"),
                ("LOG_FORMAT", "json"),
                ("REQUIRE_HTTPS", "false"),
                ("SECRET_KEY", "own-key-of-the-bench-0123456789abcdef"),
                ("JWT_SECRET_KEY", JWT_SECRET_KEY),
                ("CORS_ORIGINS", "https://app.example.com"),
                // Limits are on, and wide enough for one machine to be everybody.
                ("WEBSOCKET_MESSAGES_PER_SECOND", "1000000"),
                ("WEBSOCKET_MESSAGE_BURST", "1000000"),
                ("RATE_LIMIT_PER_MINUTE", "1000000"),
                ("AUTH_MAX_FAILURES", "1000000"),
                ("WEBSOCKET_TIMEOUT", "120"),
            ])
            .envs(more.iter().copied())
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", server.display())))?;
        Self::heard_of(Kind::Server, child, folder, |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["fields"]["address"].as_str()?.parse().ok()
        })
    }

    fn heard_of(
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
        // Its log is read like any journal reads it, on a core that is not the server's.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Ok(Self { address, pid: child.id(), child: Some(child), folder })
    }

    /// A token that is good for a day.
    pub fn token() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = format!(r#"{{"sub":"bench","exp":{}}}"#, now + 86_400);
        let parts = [r#"{"alg":"HS256","typ":"JWT"}"#, &claims];
        let signed = parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET_KEY.as_bytes());
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The processor time that it has had so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        cpu_of(self.pid)
    }

    /// The memory that it holds, in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes << 10).ok_or_else(|| io::Error::other("no VmRSS"))
    }

    fn health(&self) -> io::Result<String> {
        let mut stream = self.http()?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// A plain connection, for what is no WebSocket.
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

/// Starts something on `cores`; this thread stays where it is.
pub fn on<T>(cores: &[usize], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ours = sched_getaffinity(None)?;
    pin(cores)?;
    let started = start();
    sched_setaffinity(None, &ours)?;
    started
}

/// Keeps this thread, and what it starts, on these cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
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
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks(), ticks());
    let both = user.zip(system).map(|(user, system)| user + system);
    both.map(|ticks| Duration::from_millis(10 * ticks)).ok_or_else(|| io::Error::other("no times"))
}

/// Waits until the process does nothing any more, so that the next figure is not the last one's.
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
