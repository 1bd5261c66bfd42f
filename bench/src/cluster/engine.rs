//! A redis-server of our own, and what it costs.

use std::{
    cell::RefCell,
    error::Error,
    fs,
    io::{self, ErrorKind},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::{Connection, RedisResult};

use crate::subject::{folder, on};

/// What stands in front of every key (`src/cluster/mod.rs`).
pub const PREFIX: &str = "{sig1}:";

/// As operators are told to run it; it keeps nothing on disk.
const SETTINGS: &str = include_str!("../../../deploy/redis.conf");

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running redis-server; it ends with this value.
pub struct Engine {
    port: u16,
    process: Child,
    folder: PathBuf,
    /// `None` until it answers.
    control: RefCell<Option<Connection>>,
}

/// What the engine says of itself, since it was started.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Processor time, to the microsecond: `/proc` counts in hundredths of a second.
    pub cpu: Duration,
    /// Bytes that it has allocated.
    pub memory: u64,
    /// How often it has read from a socket.
    pub reads: u64,
    /// How many entries were added by commands, not by scripts.
    pub xadds: u64,
    /// How often an inbox was read.
    pub xreads: u64,
}

/// What the engine did while some messages went through it.
pub struct Work {
    /// How many messages arrived.
    pub messages: u64,
    /// How long that took.
    pub seconds: f64,
    /// The engine before, and after.
    pub looks: [Figures; 2],
}

impl Work {
    /// Messages in a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// Processor time of the engine for a message, in microseconds.
    pub fn cpu(&self) -> f64 {
        let [before, after] = self.looks;
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / self.messages as f64
    }

    /// Messages that the engine read at once from a socket, on average.
    pub fn written_at_once(&self) -> f64 {
        let [before, after] = self.looks;
        // Every `XREAD` is read from a socket, too.
        let reads = (after.reads - before.reads).saturating_sub(after.xreads - before.xreads);
        self.messages as f64 / reads.max(1) as f64
    }

    /// Messages in one answer to an `XREAD`, on average.
    pub fn read_at_once(&self) -> f64 {
        let [before, after] = self.looks;
        self.messages as f64 / (after.xreads - before.xreads).max(1) as f64
    }
}

impl Engine {
    /// Starts one on `core`.
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
            // Somebody else may have taken the port since.
            if engine.answers()? {
                return Ok(engine);
            }
        }
    }

    fn answers(&mut self) -> io::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.process.try_wait()?.is_none() {
            if let Ok(control) = self.connection() {
                *self.control.get_mut() = Some(control);
                // Another redis-server on that port would answer, too.
                let pid = self.info().ok().and_then(|info| field(&info, "process_id:"));
                return Ok(pid == Some(f64::from(self.process.id())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// As `REDIS_URL` has it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of its own.
    pub fn connection(&self) -> RedisResult<Connection> {
        let connection = redis::Client::open(self.url())?.get_connection()?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// What it says of itself now.
    pub fn figures(&self) -> io::Result<Figures> {
        let info = self.info()?;
        let get = |name| {
            field(&info, name).ok_or_else(|| io::Error::other(format!("INFO tells no {name}")))
        };
        let cpu = get("used_cpu_user:")? + get("used_cpu_sys:")?;
        // No line where a command has not been called yet.
        let calls = |command: &str| {
            field(&info, &format!("cmdstat_{command}:calls=")).unwrap_or_default() as u64
        };
        Ok(Figures {
            cpu: Duration::from_secs_f64(cpu),
            memory: get("used_memory:")? as u64,
            reads: get("total_reads_processed:")? as u64,
            xadds: calls("xadd"),
            xreads: calls("xread"),
        })
    }

    /// An error where there is anything beside what belongs to nodes themselves, within some seconds.
    pub fn becomes_empty(&self) -> Result<(), Box<dyn Error>> {
        const OF_NODES: [&str; 6] = ["inbox:", "nodes", "life", "pulse", "arrivals", "logouts"];
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut connection = self.connection()?;
        loop {
            let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection)?;
            keys.retain(|key| !OF_NODES.iter().any(|of| key.starts_with(&format!("{PREFIX}{of}"))));
            match keys.first() {
                None => return Ok(()),
                Some(key) if Instant::now() > deadline => {
                    return Err(format!("everybody has left, and {key} is still there").into());
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
