//! A redis-server, and the measurement of its work.

use std::{
    cell::RefCell,
    error::Error,
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::{Connection, RedisResult};

use crate::subject::{folder, on};

/// The prefix of every key of the first shard (`src/cluster/keys.rs`).
pub const PREFIX: &str = "{sig2_0}:";

/// The recommended configuration; it stores nothing on disk.
const SETTINGS: &str = include_str!("../../../deploy/redis.conf");

/// Longer than any response takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running redis-server; it is killed when this is dropped.
pub struct Engine {
    port: u16,
    process: Child,
    folder: PathBuf,
    /// `None` until it responds.
    control: RefCell<Option<Connection>>,
}

/// Statistics of the engine since its start, from `INFO`.
#[derive(Clone, Copy)]
pub struct Stats {
    /// Processor time, to the microsecond: `/proc` counts in hundredths of a second.
    pub cpu: Duration,
    /// Allocated bytes.
    pub memory: u64,
    /// Reads from sockets.
    pub reads: u64,
    /// Entries that were added by commands, not by scripts.
    pub xadds: u64,
    /// Reads of inboxes.
    pub xreads: u64,
}

/// The work of the engine for some messages.
pub struct Work {
    /// Delivered messages.
    pub messages: u64,
    /// The duration.
    pub seconds: f64,
    /// The statistics before and after.
    pub samples: [Stats; 2],
}

impl Work {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Processor time of the engine per message, in microseconds.
    pub fn cpu(&self) -> f64 {
        let [before, after] = self.samples;
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / self.messages as f64
    }

    /// Messages in one read of a socket, on average.
    pub fn written_at_once(&self) -> f64 {
        let [before, after] = self.samples;
        // Every `XREAD` command is one read of a socket as well.
        let reads = (after.reads - before.reads).saturating_sub(after.xreads - before.xreads);
        self.messages as f64 / reads.max(1) as f64
    }

    /// Messages in one response to an `XREAD`, on average.
    pub fn read_at_once(&self) -> f64 {
        let [before, after] = self.samples;
        self.messages as f64 / (after.xreads - before.xreads).max(1) as f64
    }
}

impl Engine {
    /// Starts a redis-server on `core`.
    pub fn start(core: usize) -> io::Result<Self> {
        loop {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let folder = folder()?;
            fs::write(folder.join("redis.conf"), SETTINGS)?;
            let mut command = Command::new("redis-server");
            command.args(["redis.conf", "--port", &port.to_string(), "--requirepass", ""]);
            command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
            let process = on(&[core], || command.spawn()).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    io::Error::other("redis-server is missing: apt-get install redis-server")
                }
                _ => error,
            })?;
            let mut engine = Self { port, process, folder, control: RefCell::new(None) };
            // Another process may have taken the port meanwhile.
            if engine.wait_until_up()? {
                return Ok(engine);
            }
        }
    }

    fn wait_until_up(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.process.try_wait()?.is_none() {
            if let Ok(control) = self.connection() {
                *self.control.get_mut() = Some(control);
                // Another redis-server on that port would respond too.
                let pid = self.info().ok().and_then(|info| field(&info, "process_id:"));
                return Ok(pid == Some(f64::from(self.process.id())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// The value for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A new connection.
    pub fn connection(&self) -> RedisResult<Connection> {
        let connection = redis::Client::open(self.url())?.get_connection()?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        Ok(connection)
    }

    /// The statistics now.
    pub fn stats(&self) -> io::Result<Stats> {
        let info = self.info()?;
        let get = |name| {
            field(&info, name).ok_or_else(|| io::Error::other(format!("INFO has no {name}")))
        };
        let cpu = get("used_cpu_user:")? + get("used_cpu_sys:")?;
        // A command that was not called yet has no line.
        let calls = |command: &str| {
            field(&info, &format!("cmdstat_{command}:calls=")).unwrap_or_default() as u64
        };
        Ok(Stats {
            cpu: Duration::from_secs_f64(cpu),
            memory: get("used_memory:")? as u64,
            reads: get("total_reads_processed:")? as u64,
            xadds: calls("xadd"),
            xreads: calls("xread"),
        })
    }

    /// Removes inboxes, of which none has an owner any more.
    pub fn remove_inboxes(&self, names: &[&str]) -> RedisResult<()> {
        redis::cmd("DEL").arg(names).exec(&mut self.connection()?)
    }

    /// Waits up to 10 s until only the keys of the nodes themselves are left; an error if others remain.
    pub fn expect_empty(&self) -> Result<(), Box<dyn Error>> {
        const NODE_KEYS: [&str; 10] = [
            "inbox:",
            "nodes",
            "life",
            "pulse",
            "arrivals",
            "logouts",
            "fingerprint",
            "processes",
            "registrations",
            // Memberships that have ended, for two leases.
            "ended",
        ];
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut connection = self.connection()?;
        loop {
            let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection)?;
            keys.retain(|key| {
                !NODE_KEYS.iter().any(|name| key.starts_with(&format!("{PREFIX}{name}")))
            });
            match keys.first() {
                None => return Ok(()),
                Some(key) if Instant::now() > deadline => {
                    return Err(format!("all members have left, and {key} still exists").into());
                }
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn info(&self) -> io::Result<String> {
        let mut control = self.control.borrow_mut();
        let control = control.as_mut().ok_or(ErrorKind::NotConnected)?;
        redis::cmd("INFO").arg("everything").query(control).map_err(io::Error::other)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The number that follows `name` at the start of a line.
fn field(info: &str, name: &str) -> Option<f64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    let end = line.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(line.len());
    line[..end].parse().ok()
}
