//! A real redis-server of the test's own.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{compile_clock, eventually, process};

pub struct RedisServer {
    port: u16,
    folder: TempDir,
    process: Child,
    /// Arguments besides the configuration file.
    arguments: Vec<String>,
    scheme: &'static str,
}

impl RedisServer {
    pub async fn start() -> Self {
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &[]).await
    }

    /// A replica of this server, with the same password.
    pub async fn start_replica(&self, password: &str) -> Self {
        let port = self.port.to_string();
        let arguments = ["--replicaof", "127.0.0.1", &port, "--masterauth", password];
        let both = [&["--requirepass", password], &arguments[..]].concat();
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &both).await
    }

    /// A server with other settings than `deploy/redis.conf` has.
    pub async fn start_with_settings(arguments: &[&str]) -> Self {
        Self::start_with("redis://", tempfile::tempdir().unwrap(), arguments).await
    }

    /// A server with one more user, `signaling`, who has these ACL rules; see [`user_url`](Self::user_url).
    pub async fn start_with_user(rules: &str) -> Self {
        let mut arguments = vec!["--user", "signaling", "on", ">hunter2"];
        arguments.extend(rules.split(' '));
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &arguments).await
    }

    /// For that user.
    pub fn user_url(&self) -> String {
        format!("redis://signaling:hunter2@localhost:{}", self.port)
    }

    /// A server that asks for a password.
    pub async fn start_with_password(password: &str) -> Self {
        // It may become the replica of another server.
        let arguments = ["--requirepass", password, "--masterauth", password];
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &arguments).await
    }

    /// A server whose wall clock a test can [move](Self::move_clock).
    pub async fn start_with_clock() -> Self {
        let folder = tempfile::tempdir().unwrap();
        compile_clock(&folder).await;
        Self::start_with("redis://", folder, &[]).await
    }

    /// Moves its wall clock by so many seconds from the real time.
    pub fn move_clock(&self, seconds: i64) {
        std::fs::write(self.folder.path().join("offset"), seconds.to_string()).unwrap();
    }

    /// A server that takes TLS alone, and asks for a password.
    pub async fn start_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let arguments = "--tls-cert-file ca.pem --tls-key-file key.pem --tls-auth-clients no --requirepass hunter2";
        Self::start_with("rediss://", folder, &arguments.split(' ').collect::<Vec<_>>()).await
    }

    /// The certificate of a server that takes TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    async fn start_with(scheme: &'static str, mut folder: TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        // Another process may take the port before it does. One that knows no TLS never starts.
        for _ in 0..10 {
            let port = free_port();
            let process = launch(port, &folder, scheme, &arguments);
            let arguments = arguments.clone();
            let mut redis = Self { port, folder, process, arguments, scheme };
            if redis.is_ready().await {
                return redis;
            }
            folder = redis.folder;
        }
        panic!("{} does not start with {arguments:?}", binary());
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        // The last that is named counts.
        let passwords = self.arguments.windows(2).filter(|pair| pair[0] == "--requirepass");
        let credentials =
            passwords.map(|pair| format!(":{}@", pair[1])).next_back().unwrap_or_default();
        format!("{}{credentials}localhost:{}", self.scheme, self.port)
    }

    /// Waits until it answers; false where it ends instead.
    async fn is_ready(&mut self) -> bool {
        eventually("Redis answers", async || {
            if self.process.try_wait().unwrap().is_some() {
                return Ok(false);
            }
            let Some(mut connection) = self.connection().await else { return Err("no connection") };
            let mut about = redis::cmd("INFO");
            let about: Result<String, _> = about.arg("server").query_async(&mut connection).await;
            let about = about.map_err(|_| "no answer")?;
            // Another one may have the port, until this one notices and ends.
            let own = self.process.id().map(|id| format!("process_id:{id}"));
            let is_own = about.lines().any(|line| Some(line) == own.as_deref());
            if is_own { Ok(true) } else { Err("another Redis has the port") }
        })
        .await
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let root_cert = std::fs::read(self.ca_file()).ok();
        let client = match root_cert {
            None => redis::Client::open(self.url()),
            root_cert => redis::Client::build_with_tls(
                self.url(),
                redis::TlsCertificates { client_tls: None, root_cert },
            ),
        };
        client.unwrap().get_multiplexed_async_connection_with_config(&patient()).await.ok()
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Writes what it holds to disk, for [`restart`](Self::restart).
    pub async fn save(&self) {
        let mut connection = self.connection().await.expect("no connection to Redis");
        redis::cmd("SAVE").query_async::<()>(&mut connection).await.unwrap();
    }

    /// Another process on the same port, which holds what was [saved](Self::save) last, if anything.
    pub async fn restart(&mut self) {
        self.process = launch(self.port, &self.folder, self.scheme, &self.arguments);
        assert!(self.is_ready().await, "Redis does not start again");
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(&self.process, signal);
    }

    /// Writes so many entries of no known kind into a node's inbox.
    pub async fn flood_inbox(&self, node: &str, entries: usize) {
        // In Redis itself, which takes less than a lease for all, and less than a response may take for each call.
        let script = "for _ = 1, tonumber(ARGV[1]) do
            redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'kind', 'noise')
        end";
        let mut connection = self.connection().await.expect("no connection to Redis");
        for _ in 0..entries.div_ceil(5_000) {
            let mut flood = redis::cmd("EVAL");
            flood.arg(script).arg(1).arg(format!("{{sig2_0}}:inbox:{node}")).arg(5_000);
            flood.query_async::<()>(&mut connection).await.unwrap();
        }
    }

    /// A node for a Redis Cluster, which has no slot yet.
    pub async fn start_cluster_node() -> Self {
        let bus = free_port().to_string();
        let arguments = "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-port";
        let arguments: Vec<_> = arguments.split(' ').chain([bus.as_str()]).collect();
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &arguments).await
    }

    /// Of a node of a Redis Cluster.
    pub fn bus_port(&self) -> &str {
        self.arguments.last().unwrap()
    }

    /// Runs a command line.
    pub async fn execute(&self, line: &str) {
        self.try_execute(line).await.unwrap();
    }

    /// The same, where it may be refused.
    pub async fn try_execute(&self, line: &str) -> Result<(), redis::RedisError> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        command_line(line).query_async(&mut connection).await
    }

    /// What it answers to a command line.
    pub async fn ask<T: redis::FromRedisValue>(&self, line: &str) -> T {
        let mut connection = self.connection().await.expect("no connection to Redis");
        command_line(line).query_async(&mut connection).await.unwrap()
    }

    /// All keys.
    pub async fn keys(&self) -> Vec<String> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        connection.keys("*").await.unwrap()
    }

    /// How often it has run a command, by clients and in scripts.
    pub async fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats").await;
        let line = stats.lines().find_map(|it| it.strip_prefix(&format!("cmdstat_{command}:")));
        let calls = line.and_then(|it| it.strip_prefix("calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }

    /// Runs a command.
    pub async fn run(&self, command: &[&str]) {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let mut to_run = redis::cmd(command[0]);
        to_run.arg(&command[1..]).query_async::<redis::Value>(&mut connection).await.unwrap();
    }

    /// Deletes keys of the first shard, by their names without the prefix.
    pub async fn delete(&self, keys: &[&str]) {
        let keys: Vec<_> = keys.iter().map(|key| format!("{{sig2_0}}:{key}")).collect();
        let mut delete = vec!["DEL"];
        delete.extend(keys.iter().map(String::as_str));
        self.run(&delete).await;
    }

    /// Drops all entries of a node's inbox.
    pub async fn trim_inbox(&self, node: &str) {
        self.run(&["XTRIM", &format!("{{sig2_0}}:inbox:{node}"), "MAXLEN", "0"]).await;
    }

    /// A number in a hash.
    pub async fn count(&self, key: &str, field: &str) -> usize {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let count: Option<usize> =
            connection.hget(format!("{{sig2_0}}:{key}"), field).await.unwrap();
        count.unwrap_or(0)
    }

    /// A connection to one of its databases.
    async fn database(&self, number: usize) -> MultiplexedConnection {
        let client = redis::Client::open(format!("{}/{number}", self.url())).unwrap();
        client.get_multiplexed_async_connection_with_config(&patient()).await.unwrap()
    }

    /// Empties a database.
    pub async fn flush(&self, database: usize) {
        let mut connection = self.database(database).await;
        redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await.unwrap();
    }

    /// Deletes a key of the first shard in a database.
    pub async fn delete_in(&self, database: usize, key: &str) {
        let mut connection = self.database(database).await;
        connection.del::<_, ()>(format!("{{sig2_0}}:{key}")).await.unwrap();
    }

    /// The client ids of the members of a room in a database.
    pub async fn members_in(
        &self,
        database: usize,
        room: &str,
    ) -> std::collections::BTreeSet<String> {
        let mut connection = self.database(database).await;
        connection.hkeys(format!("{{sig2_0}}:room:{room}")).await.unwrap()
    }

    /// Its clock, and when the lease of each node in a database ends by it, in seconds.
    pub async fn leases_in(&self, database: usize) -> (f64, BTreeMap<String, f64>) {
        let mut connection = self.database(database).await;
        let (seconds, micros): (f64, f64) =
            redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        let ends = connection.zrange_withscores("{sig2_0}:nodes", 0, -1).await.unwrap();
        (seconds + micros / 1_000_000.0, ends)
    }

    /// The bytes that it uses.
    pub async fn used_memory(&self) -> usize {
        self.memory("used_memory").await
    }

    /// The most that it has used.
    pub async fn most_used_memory(&self) -> usize {
        self.memory("used_memory_peak").await
    }

    async fn memory(&self, name: &str) -> usize {
        let info = self.info("memory").await;
        let bytes = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        bytes.unwrap().trim().parse().unwrap()
    }

    /// Sets one of its settings.
    pub async fn configure(&self, name: &str, value: &str) {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value).query_async::<()>(&mut connection).await.unwrap();
    }

    /// A section of its INFO.
    pub async fn info(&self, section: &str) -> String {
        // A failover ends connections.
        eventually("Redis answers INFO", async || {
            let mut connection = self.connection().await.ok_or("no connection")?;
            let info = redis::cmd("INFO").arg(section).query_async(&mut connection).await;
            info.map_err(|_| "no answer")
        })
        .await
    }

    /// The client ids of all members, by room.
    pub async fn members(&self) -> BTreeMap<String, Vec<String>> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        // Of whatever shard it is.
        let keys: Vec<String> = connection.keys("{sig2_?}:room:*").await.unwrap();
        let mut members = BTreeMap::new();
        for key in keys {
            let mut ids: Vec<String> = connection.hkeys(&key).await.unwrap();
            ids.sort();
            members.insert(key.split_once(":room:").unwrap().1.to_owned(), ids);
        }
        members
    }

    /// Its clock, in seconds.
    pub async fn time(&self) -> f64 {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let (seconds, micros): (f64, f64) =
            redis::cmd("TIME").query_async(&mut connection).await.unwrap();
        seconds + micros / 1_000_000.0
    }

    /// When the lease of each node ends, by its clock in seconds.
    pub async fn lease_ends(&self) -> BTreeMap<String, f64> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        connection.zrange_withscores("{sig2_0}:nodes", 0, -1).await.unwrap()
    }

    /// The entries of an inbox, from the oldest to the one with the id `to`.
    async fn entries(&self, inbox: &str, to: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let mut range = redis::cmd("XRANGE");
        range.arg(inbox).arg("-").arg(to).query_async(&mut connection).await.unwrap()
    }

    pub async fn inbox(&self, node: &str) -> String {
        format!("{:?}", self.entries(&format!("{{sig2_0}}:inbox:{node}"), "+").await)
    }

    /// Waits until every node has read what is in its inbox now: its next heartbeat drops all but the last entry.
    pub async fn wait_until_inboxes_are_read(&self) {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let inboxes: Vec<String> = connection.keys("{sig2_0}:inbox:*").await.unwrap();
        for inbox in inboxes {
            let entries = self.entries(&inbox, "+").await;
            let before_last = format!("({}", entries.last().unwrap().0);
            eventually("an inbox is read", async || {
                self.entries(&inbox, &before_last).await.is_empty()
            })
            .await;
        }
    }

    /// The keys that belong to rooms, and not to nodes.
    pub async fn room_keys(&self) -> Vec<String> {
        let mut connection = self.connection().await.expect("no connection to Redis");
        let mut keys: Vec<String> = connection.keys("*").await.unwrap();
        let of_nodes =
            "inbox: nodes life pulse arrivals ended logouts processes registrations fingerprint";
        keys.retain(|key| {
            !of_nodes.split(' ').any(|of| key.starts_with(&format!("{{sig2_0}}:{of}")))
        });
        keys
    }
}

/// The program; `TEST_REDIS_SERVER` names that of another version.
#[expect(clippy::disallowed_methods, reason = "no setting of the server")]
pub fn binary() -> String {
    std::env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// By default a connection waits half a second, which a busy machine needs for a SAVE alone.
fn patient() -> redis::AsyncConnectionConfig {
    let patient = Some(std::time::Duration::from_secs(10));
    redis::AsyncConnectionConfig::new()
        .set_connection_timeout(patient)
        .set_response_timeout(patient)
}

fn command_line(line: &str) -> redis::Cmd {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(port: u16, folder: &TempDir, scheme: &str, arguments: &[String]) -> Child {
    let port = port.to_string();
    let mut command = Command::new(binary());
    // A copy: sentinels make a Redis write what they have changed into its file.
    let settings = folder.path().join("redis.conf");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis.conf"), &settings).unwrap();
    command.arg(settings);
    if scheme.starts_with("rediss") {
        command.args(["--port", "0", "--tls-port", &port]);
    } else {
        command.args(["--port", &port, "--requirepass", ""]);
    }
    command.args(arguments).current_dir(folder.path());
    let clock = folder.path().join("clock.so");
    if clock.exists() {
        command.env("LD_PRELOAD", clock).env("CLOCK_OFFSET", folder.path().join("offset"));
    }
    command.arg("--dir").arg(folder.path()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("redis-server is missing: apt-get install redis-server")
}
