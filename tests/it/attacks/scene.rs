//! Where an attack takes place: a server process of its own, and bystanders who must notice nothing.

use std::{fs, net::SocketAddr, process::Stdio, sync::Mutex, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::tungstenite;

use super::{
    bystanders::{Bystanders, HERE, MEMBERS, ROOMS},
    jwt,
    log::Log,
    raw::{Raw, RawSocket},
};
use crate::harness::{Client, PASSWORD, SOON, http, users_file};

/// The key that signs tokens here.
pub const JWT_SECRET_KEY: &str = "jwt-key-of-the-scene-0123456789abcdef";
/// The server's other key.
pub const SECRET_KEY: &str = "own-key-of-the-scene-0123456789abcdef";

/// Handles return when idle connections have been closed: after ten seconds.
const HANDLES_RETURN: Duration = Duration::from_secs(20);

/// Memory that a case may leave behind, in a debug build whose heap is fresh.
const MAY_GROW: u64 = 16 << 20;

/// What a case wants that is not usual.
pub struct Plan {
    settings: Vec<(String, String)>,
    folder: Option<TempDir>,
    through: &'static [&'static str],
    cost: u32,
    may_hear: &'static [&'static str],
    may_log: &'static [&'static str],
    may_grow: u64,
}

/// A running server, with a pair of bystanders in the room "den", where the case happens, and one in
/// "attic". They come from [`HERE`], so that limits on an address do not meet them.
pub struct Scene {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Where it runs: users.csv is there.
    pub folder: TempDir,
    child: Child,
    log: Log,
    jwt_key: String,
    bystanders: Bystanders,
    secrets: Mutex<Vec<String>>,
    before: Holdings,
    may_log: &'static [&'static str],
    may_grow: u64,
}

/// What is left of a scene whose promises were all kept.
pub struct Aftermath {
    /// Where the server ran; a further scene can be opened in it.
    pub folder: TempDir,
    /// Everything that it printed.
    pub log: Vec<String>,
    /// How many members the bystanders in "den" have seen come and go.
    pub visits: usize,
}

/// What the process holds of the system.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    handles: usize,
    resident: u64,
}

impl Plan {
    /// Runs in the folder of an earlier scene, on its users.csv.
    pub fn in_folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Starts the server by a command that becomes it, like `prlimit`; `{folder}` stands for where it runs.
    pub fn through(mut self, command: &'static [&'static str]) -> Self {
        self.through = command;
        self
    }

    /// Hashes passwords as production does (bcrypt cost 12), where time matters; else they cost little.
    pub fn with_real_hashes(mut self) -> Self {
        self.cost = 12;
        self
    }

    /// The types of message that the case may say to everybody in "den".
    pub fn den_may_hear(mut self, types: &'static [&'static str]) -> Self {
        self.may_hear = types;
        self
    }

    /// Words of the lines of level ERROR that the case provokes.
    pub fn may_log(mut self, words: &'static [&'static str]) -> Self {
        self.may_log = words;
        self
    }

    /// How many MiB of memory the case may leave behind.
    pub fn may_grow_by(mut self, mebibytes: u64) -> Self {
        self.may_grow = mebibytes << 20;
        self
    }

    /// Starts the server and seats the bystanders, who are talking when this returns.
    pub async fn open(self) -> Scene {
        let folder = self.folder.unwrap_or_else(|| folder_with_users(self.cost));
        let setting = |name: &str| {
            self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let jwt_key = setting("JWT_SECRET_KEY").unwrap_or(JWT_SECRET_KEY).to_owned();
        let per_second =
            setting("WEBSOCKET_MESSAGES_PER_SECOND").map_or(50, |n| n.parse().unwrap());
        let placed = |text: &str| text.replace("{folder}", folder.path().to_str().unwrap());
        let settings = self.settings.iter().map(|(name, value)| (name, placed(value)));
        let mut words = self.through.iter().map(|word| placed(word)).collect::<Vec<_>>();
        words.push(env!("CARGO_BIN_EXE_signaling-server").to_owned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env_clear()
            .envs([
                ("HOST", "127.0.0.1"),
                ("PORT", "0"),
                ("DEBUG", "true"),
                ("REQUIRE_HTTPS", "false"),
                ("RATE_LIMIT_PER_MINUTE", "0"),
                ("LOG_FORMAT", "json"),
                ("SECRET_KEY", SECRET_KEY),
                ("JWT_SECRET_KEY", JWT_SECRET_KEY),
            ])
            .envs(settings)
            .current_dir(folder.path())
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = Log::default();
        log.keep(child.stdout.take().unwrap());
        log.keep(child.stderr.take().unwrap());
        let open: Value = serde_json::from_str(&log.line("\"open\"").await).unwrap();
        let address: SocketAddr = open["fields"]["address"].as_str().unwrap().parse().unwrap();

        let token = |username: &str| jwt::good(username, &jwt_key);
        let bystanders = Bystanders::sit_down(address, token, per_second, self.may_hear).await;
        let mut scene = Scene {
            address,
            folder,
            child,
            log,
            jwt_key,
            bystanders,
            secrets: Mutex::new(vec![PASSWORD.into(), JWT_SECRET_KEY.into(), SECRET_KEY.into()]),
            before: Holdings { handles: 0, resident: 0 },
            may_log: self.may_log,
            may_grow: self.may_grow,
        };
        scene.is_quiet().await.expect("nobody but the bystanders is there yet");
        scene.before = scene.least_holdings().await;
        scene
    }
}

impl Scene {
    /// A scene whose server has these settings beside the usual ones.
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::plan(settings).open().await
    }

    /// A scene that is not opened yet.
    pub fn plan(settings: &[(&str, &str)]) -> Plan {
        let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Plan {
            settings: settings.collect(),
            folder: None,
            through: &[],
            cost: 4,
            may_hear: &[],
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

    /// A socket to `room` (percent-encoded) that has heard nothing yet.
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

    /// The status with which an upgrade is refused.
    pub async fn refused_with(&self, room: &str, headers: &[(&'static str, &str)]) -> u16 {
        match self.connect_with(room, headers).await {
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            Ok(_) => panic!("not refused"),
            Err(other) => panic!("{other}"),
        }
    }

    /// A member of `room` under an id that the server chose; `users_in_room` has been heard.
    pub async fn join(&self, room: &str, username: &str) -> Client {
        self.join_as(room, username, Value::Null).await.0
    }

    /// A member of `room` that asked for an id, and whom it found there.
    pub async fn join_as(&self, room: &str, username: &str, client_id: Value) -> (Client, Value) {
        let mut client = self.connect(room).await;
        let there = client.comes_in(username, &self.token(username), client_id).await;
        (client, there)
    }

    /// A connection that has said nothing.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// A WebSocket to `room` whose frames are made by hand; it has heard nothing yet.
    pub async fn raw_socket(&self, room: &str) -> RawSocket {
        RawSocket::open(self.address, room).await
    }

    /// A member of `room` whose frames are made by hand.
    pub async fn raw_member(&self, room: &str, username: &str) -> RawSocket {
        let mut socket = self.raw_socket(room).await;
        socket.comes_in(&self.token(username)).await;
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

    /// The first line of the log with these words, also when it has been written already.
    pub async fn logs(&self, words: &str) -> String {
        self.log.line(words).await
    }

    /// The process, for what can be done to it from outside.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The most memory that the process held since [`forget_peak`](Self::forget_peak), in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// From now on the peak counts anew (proc(5), `clear_refs`).
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// The memory that the process holds, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// How many files and sockets the process has open.
    pub fn handles(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// What `GET /health` says.
    pub async fn health(&self) -> Value {
        let mut request = self.request(Method::GET, "/health");
        for (name, value) in HERE {
            request = request.header(name, value);
        }
        let answer = timeout(SOON, request.send()).await.expect("no answer").unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    /// Ends the case, and checks all that must be true after every case.
    pub async fn still_stands(mut self) -> Aftermath {
        self.bystanders.hear_more().await;
        self.is_quiet().await.unwrap_or_else(|health| panic!("somebody is still there: {health}"));
        let after = self.handles_return().await;
        let grown = after.resident.saturating_sub(self.before.resident);
        assert!(grown < self.may_grow, "{grown} bytes of memory are still held");
        self.bystanders.hear_more().await;

        let (clients, visits) = self.bystanders.finish().await;
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let farewells = clients.into_iter().map(Client::is_let_go);
        for (_, close) in futures_util::future::join_all(farewells).await {
            assert_eq!(close, (1012, "Server is restarting".to_owned()));
        }
        let ended = timeout(SOON, self.child.wait()).await.expect("still running").unwrap();
        assert_eq!(ended.code(), Some(0));

        let log = self.log.to_the_end().await;
        let secrets = self.secrets.into_inner().unwrap();
        for line in &log {
            assert!(!line.contains("did not leave in time"), "{line}");
            let expected = self.may_log.iter().any(|words| line.contains(words));
            let bad = ["panicked", "\"level\":\"ERROR\""].iter().any(|words| line.contains(words));
            assert!(!bad || expected, "{line}");
            assert!(!secrets.iter().any(|secret| line.contains(secret)), "a secret: {line}");
        }
        Aftermath { folder: self.folder, log, visits }
    }

    /// Ends the process as a crash does; nothing is checked. A further scene can be opened in the folder.
    pub async fn is_killed(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.folder
    }

    /// Waits until nobody but the bystanders is there; says who is, if that does not come.
    async fn is_quiet(&self) -> Result<(), Value> {
        let (members, rooms) = (json!(MEMBERS), json!(ROOMS.len()));
        eventually(SOON, async || {
            let health = self.health().await;
            let quiet = (&health["active_connections"], &health["rooms"]) == (&members, &rooms);
            if quiet { Ok(()) } else { Err(health) }
        })
        .await
    }

    async fn handles_return(&self) -> Holdings {
        let returned = eventually(HANDLES_RETURN, async || {
            let now = self.holdings();
            if now.handles <= self.before.handles { Ok(now) } else { Err(now) }
        });
        returned.await.unwrap_or_else(|now| panic!("{now:?} are held; before: {:?}", self.before))
    }

    fn holdings(&self) -> Holdings {
        Holdings { handles: self.handles(), resident: self.resident() }
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        kibibytes << 10
    }

    /// The least of some moments: files are opened and closed while the accounts are looked at.
    async fn least_holdings(&self) -> Holdings {
        let mut least = self.holdings();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            least.handles = least.handles.min(self.holdings().handles);
        }
        least
    }
}

fn folder_with_users(cost: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let users_csv = folder.path().join("users.csv");
    fs::write(users_csv, users_file(&["alice", "bob", "carol", "dave"], cost)).unwrap();
    folder
}

/// Asks again until it is so, or until `within` has passed; then how it was last.
pub async fn eventually<T, E>(
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match ask().await {
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}
