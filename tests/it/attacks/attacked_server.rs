//! The target of an attack: a server process of its own, and bystanders who must not be affected.

use std::{fs, net::SocketAddr, process::Stdio, sync::Mutex};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use tokio_tungstenite::tungstenite;

use super::{
    bystanders::{Bystanders, HERE, MEMBERS, ROOMS},
    jwt,
    raw::{Raw, RawSocket},
};
use crate::harness::{
    CHEAP, Client, PASSWORD, TEST_TIMEOUT, eventually, folder_with_users, http,
    process::{SERVER, ServerProcess},
};

/// The key that signs tokens here.
pub const JWT_SECRET_KEY: &str = "jwt-key-of-the-target-0123456789abcdef";
/// The server's other key.
pub const SECRET_KEY: &str = "own-key-of-the-target-0123456789abcdef";

/// Memory that a case may leave behind, in a debug build whose heap is fresh.
const MAY_GROW: u64 = 16 << 20;

/// What a case wants that is not usual.
pub struct Builder {
    settings: Vec<(String, String)>,
    folder: Option<TempDir>,
    through: &'static [&'static str],
    cost: u32,
    may_receive: &'static [&'static str],
    may_log: &'static [&'static str],
    may_grow: u64,
}

/// A running server, with a pair of bystanders in the room "den", where the attack happens, and one in "attic". They come
/// from [`HERE`], so that limits on the attacker's address do not apply to them.
pub struct AttackedServer {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Where it runs: users.csv is there.
    pub folder: TempDir,
    process: ServerProcess,
    jwt_key: String,
    bystanders: Bystanders,
    secrets: Mutex<Vec<String>>,
    before: ResourceUse,
    may_log: &'static [&'static str],
    may_grow: u64,
}

/// What is left of a server that an attack has not harmed.
pub struct Aftermath {
    /// Where the server ran; another can be started in it.
    pub folder: TempDir,
    /// Everything that it printed.
    pub log: Vec<String>,
    /// How many members the bystanders in "den" have seen join and leave.
    pub visits: usize,
}

/// What the process holds of the system.
#[derive(Clone, Copy, Debug)]
struct ResourceUse {
    open_files: usize,
    resident: u64,
}

impl Builder {
    /// Runs in the folder of an earlier server, on its users.csv.
    pub fn in_folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Starts the server by a command that becomes it, like `prlimit`; `{folder}` stands for where it runs.
    pub fn through(mut self, command: &'static [&'static str]) -> Self {
        self.through = command;
        self
    }

    /// Hashes passwords as production does (bcrypt cost 12), where the work matters; else they cost little.
    pub fn with_production_hashes(self) -> Self {
        self.with_hash_cost(12)
    }

    /// Hashes passwords at another bcrypt cost.
    pub fn with_hash_cost(mut self, cost: u32) -> Self {
        self.cost = cost;
        self
    }

    /// The types of message that the attacker may send to all members of "den".
    pub fn den_may_receive(mut self, types: &'static [&'static str]) -> Self {
        self.may_receive = types;
        self
    }

    /// Parts of the lines of level ERROR that the attack provokes.
    pub fn may_log(mut self, parts: &'static [&'static str]) -> Self {
        self.may_log = parts;
        self
    }

    /// How many MiB of memory the attack may leave behind.
    pub fn may_grow_by(mut self, mebibytes: u64) -> Self {
        self.may_grow = mebibytes << 20;
        self
    }

    /// Starts the server and lets the bystanders join, who exchange messages when this returns.
    pub async fn start(self) -> AttackedServer {
        let folder = self.folder.unwrap_or_else(|| folder_with_users(self.cost));
        let setting = |name: &str| {
            self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let jwt_key = setting("JWT_SECRET_KEY").unwrap_or(JWT_SECRET_KEY).to_owned();
        let per_second =
            setting("WEBSOCKET_MESSAGES_PER_SECOND").map_or(50, |n| n.parse().unwrap());
        let place = |text: &str| text.replace("{folder}", folder.path().to_str().unwrap());
        let settings = self.settings.iter().map(|(name, value)| (name, place(value)));
        let mut words = self.through.iter().map(|word| place(word)).collect::<Vec<_>>();
        words.push(SERVER.to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs([
                ("HOST", "127.0.0.1"),
                ("PORT", "0"),
                ("DEBUG", "true"),
                ("REQUIRE_HTTPS", "false"),
                ("RATE_LIMIT_PER_MINUTE", "0"),
                ("JOINS_PER_MINUTE", "0"),
                ("LOG_FORMAT", "json"),
                ("SECRET_KEY", SECRET_KEY),
                ("JWT_SECRET_KEY", JWT_SECRET_KEY),
            ])
            .envs(settings)
            .current_dir(folder.path())
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let process = ServerProcess::run(command).await;
        let address = process.address;

        let token = |username: &str| jwt::good(username, &jwt_key);
        let bystanders = Bystanders::join(address, token, per_second, self.may_receive).await;
        let mut server = AttackedServer {
            address,
            folder,
            process,
            jwt_key,
            bystanders,
            secrets: Mutex::new(vec![PASSWORD.into(), JWT_SECRET_KEY.into(), SECRET_KEY.into()]),
            before: ResourceUse { open_files: 0, resident: 0 },
            may_log: self.may_log,
            may_grow: self.may_grow,
        };
        server.wait_until_idle().await;
        server.before = server.least_resource_use().await;
        server
    }
}

impl AttackedServer {
    /// A server that has these settings beside the usual ones.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::with(settings).start().await
    }

    /// A server that is not started yet.
    pub fn with(settings: &[(&str, &str)]) -> Builder {
        let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Builder {
            settings: settings.collect(),
            folder: None,
            through: &[],
            cost: CHEAP,
            may_receive: &[],
            may_log: &[],
            may_grow: MAY_GROW,
        }
    }

    /// A good token, as another service mints it; the log must not hold it.
    pub fn token(&self, username: &str) -> String {
        let token = jwt::good(username, &self.jwt_key);
        self.keep_secret(&token);
        token
    }

    /// A good token, as a login gives it; the log must not hold it.
    pub async fn log_in(&self, username: &str) -> String {
        let login = json!({"username": username, "password": PASSWORD});
        let answer = self.request(Method::POST, "/auth/login").json(&login).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        self.keep_secret(&token);
        token
    }

    /// Something that the log must not hold.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// A socket to `room` (percent-encoded) on which nothing has been received yet.
    pub async fn connect(&self, room: &str) -> Client {
        self.connect_with(room, &[]).await.unwrap()
    }

    pub async fn connect_with(
        &self,
        room: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, tungstenite::Error> {
        Client::connect(self.address, room, headers).await
    }

    /// The HTTP status with which an upgrade is rejected.
    pub async fn upgrade_status(&self, room: &str, headers: &[(&'static str, &str)]) -> u16 {
        Client::upgrade_status(self.address, room, headers).await
    }

    /// A member of `room` under an id that the server chose; `users_in_room` has been received.
    pub async fn join(&self, room: &str, username: &str) -> Client {
        self.join_as(room, username, Value::Null).await.0
    }

    /// A member of `room` that asked for an id, and the peers in `users_in_room`.
    pub async fn join_as(&self, room: &str, username: &str, client_id: Value) -> (Client, Value) {
        let mut client = self.connect(room).await;
        let peers = client.authenticate(username, &self.token(username), client_id).await;
        (client, peers)
    }

    /// A connection on which nothing has been sent.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// A WebSocket to `room` whose frames are made by hand, on which nothing has been received yet.
    pub async fn raw_socket(&self, room: &str) -> RawSocket {
        RawSocket::open(self.address, room).await
    }

    /// A member of `room` whose frames are made by hand.
    pub async fn raw_member(&self, room: &str, username: &str) -> RawSocket {
        let mut socket = self.raw_socket(room).await;
        socket.authenticate(&self.token(username)).await;
        socket
    }

    /// A request on a connection of its own.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = http()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        client.request(method, format!("http://{}{path}", self.address))
    }

    /// The first line of the log that contains `text`, also when it has been written already.
    pub async fn wait_for_log(&self, text: &str) -> String {
        self.process.log.line_with(text).await
    }

    /// Waits until so many lines of the log contain `text`.
    pub async fn wait_for_log_lines(&self, text: &str, count: usize) {
        self.process.log.lines_with(text, count).await;
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// The most memory that the process held since [`reset_peak`](Self::reset_peak), in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// From now on the peak counts anew (proc(5), `clear_refs`).
    pub fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// The memory that the process holds, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The processor time that the process has used, in ticks of a hundredth of a second (proc(5), `utime` and `stime`).
    pub fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The second field is a name in parentheses, which may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// The niceness of each thread of this name, and of the main thread (proc(5), `nice`).
    pub fn niceness(&self, name: &str) -> (Vec<i32>, i32) {
        let of = |stat: String| -> (String, i32) {
            let (before, after) = stat.rsplit_once(')').unwrap();
            let name = before.split_once('(').unwrap().1.to_owned();
            (name, after.split_whitespace().nth(16).unwrap().parse().unwrap())
        };
        let process = format!("/proc/{}", self.pid());
        let threads = fs::read_dir(format!("{process}/task")).unwrap();
        // A thread may end meanwhile.
        let stats = threads
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok().map(of));
        let niceness = stats.filter(|(of, _)| of == name).map(|(_, niceness)| niceness).collect();
        (niceness, of(fs::read_to_string(format!("{process}/stat")).unwrap()).1)
    }

    /// How many files and sockets the process has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The answer to `GET /health`.
    pub async fn health(&self) -> Value {
        let mut request = self.request(Method::GET, "/health");
        for (name, value) in HERE {
            request = request.header(name, value);
        }
        let answer = timeout(TEST_TIMEOUT, request.send()).await.expect("no answer").unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Ends the attack, and checks all that must be true after every one.
    pub async fn assert_unharmed(mut self) -> Aftermath {
        self.bystanders.receive_more().await;
        self.wait_until_idle().await;
        let after = self.wait_until_files_are_closed().await;
        let grown = after.resident.saturating_sub(self.before.resident);
        assert!(grown < self.may_grow, "{grown} bytes of memory are still held");
        self.bystanders.receive_more().await;

        let (clients, visits) = self.bystanders.finish().await;
        self.process.signal(rustix::process::Signal::TERM);
        let closing = clients.into_iter().map(Client::read_to_close);
        for (_, close) in futures_util::future::join_all(closing).await {
            assert_eq!(close, (1012, "Server is restarting".to_owned()));
        }
        assert_eq!(self.process.wait().await.code(), Some(0));

        let log = self.process.log.lines();
        let secrets = self.secrets.into_inner().unwrap();
        for line in &log {
            assert!(!line.contains("did not disconnect in time"), "{line}");
            let expected = self.may_log.iter().any(|part| line.contains(part));
            let bad = ["panicked", "\"level\":\"ERROR\""].iter().any(|part| line.contains(part));
            assert!(!bad || expected, "{line}");
            assert!(!secrets.iter().any(|secret| line.contains(secret)), "a secret: {line}");
        }
        Aftermath { folder: self.folder, log, visits }
    }

    /// Ends the process as a crash does; nothing is checked. Another server can be started in the folder.
    pub async fn kill(mut self) -> TempDir {
        self.process.kill().await;
        self.folder
    }

    /// Waits until only the bystanders are connected.
    async fn wait_until_idle(&self) {
        let (members, rooms) = (json!(MEMBERS), json!(ROOMS.len()));
        eventually("only the bystanders are connected", async || {
            let health = self.health().await;
            let is_idle = (&health["active_connections"], &health["rooms"]) == (&members, &rooms);
            if is_idle { Ok(()) } else { Err(health) }
        })
        .await;
    }

    async fn wait_until_files_are_closed(&self) -> ResourceUse {
        let before = self.before.open_files;
        eventually(&format!("no more than {before} files are open"), async || {
            let now = self.resource_use();
            if now.open_files <= before { Ok(now) } else { Err(now) }
        })
        .await
    }

    fn pid(&self) -> u32 {
        self.process.child.id().unwrap()
    }

    fn resource_use(&self) -> ResourceUse {
        ResourceUse { open_files: self.open_files(), resident: self.resident() }
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes << 10
    }

    /// The least of some moments: the server opens and closes the users file while it polls it.
    async fn least_resource_use(&self) -> ResourceUse {
        let mut least = self.resource_use();
        for _ in 0..10 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            least.open_files = least.open_files.min(self.open_files());
        }
        least
    }
}
