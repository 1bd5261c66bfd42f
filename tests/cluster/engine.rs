//! A real redis-server of our own.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::harness::SOON;

pub struct Engine {
    port: u16,
    folder: TempDir,
    process: Child,
    /// What it takes besides.
    arguments: Vec<String>,
    scheme: &'static str,
}

impl Engine {
    pub async fn start() -> Self {
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &[]).await
    }

    /// A copy of this one, which wants the same password.
    pub async fn replica(&self, password: &str) -> Self {
        let port = self.port.to_string();
        let arguments = ["--replicaof", "127.0.0.1", &port, "--masterauth", password];
        let both = [&["--requirepass", password], &arguments[..]].concat();
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &both).await
    }

    /// One with other settings than `deploy/redis.conf` has.
    pub async fn start_with_settings(arguments: &[&str]) -> Self {
        Self::start_with("redis://", tempfile::tempdir().unwrap(), arguments).await
    }

    /// One that wants a password.
    pub async fn start_with_password(password: &str) -> Self {
        // It may have been the replica before it is the first again.
        let arguments = ["--requirepass", password, "--masterauth", password];
        Self::start_with("redis://", tempfile::tempdir().unwrap(), &arguments).await
    }

    /// One that takes TLS alone, and wants a password; its certificate is in the folder, as `ca.pem`.
    pub async fn start_secret() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let arguments = "--tls-cert-file ca.pem --tls-key-file key.pem --tls-auth-clients no --requirepass hunter2";
        Self::start_with("rediss://", folder, &arguments.split(' ').collect::<Vec<_>>()).await
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    async fn start_with(scheme: &'static str, mut folder: TempDir, arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        loop {
            let port = free_port();
            let process = launch(port, &folder, scheme, &arguments);
            let arguments = arguments.clone();
            let mut engine = Self { port, folder, process, arguments, scheme };
            // Somebody else may have taken the port since.
            if engine.answers().await {
                return engine;
            }
            folder = engine.folder;
        }
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

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline && self.process.try_wait().unwrap().is_none() {
            if let Some(mut connection) = self.connection().await
                && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        let root_cert = std::fs::read(self.authority()).ok();
        let client = match root_cert {
            None => redis::Client::open(self.url()),
            root_cert => redis::Client::build_with_tls(
                self.url(),
                redis::TlsCertificates { client_tls: None, root_cert },
            ),
        };
        let client = client.unwrap();
        client.get_multiplexed_async_connection().await.ok()
    }

    /// kill -9.
    pub async fn dies(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Writes down what it knows, for [`comes_back`](Self::comes_back).
    pub async fn saves(&self) {
        let mut connection = self.connection().await.expect("no engine");
        redis::cmd("SAVE").query_async::<()>(&mut connection).await.unwrap();
    }

    /// Another process on the same port, which remembers what was [saved](Self::saves) last, if anything.
    pub async fn comes_back(&mut self) {
        self.process = launch(self.port, &self.folder, self.scheme, &self.arguments);
        assert!(self.answers().await, "the engine does not come back");
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }

    /// Writes so many entries into a node's inbox that nobody knows what to do with.
    pub async fn floods(&self, node: &str, entries: usize) {
        let mut connection = self.connection().await.expect("no engine");
        for _ in 0..entries.div_ceil(1_000) {
            let mut pipe = redis::pipe();
            for _ in 0..1_000 {
                let mut add = redis::cmd("XADD");
                add.arg(format!("{{sig1}}:inbox:{node}")).arg("MAXLEN").arg("~").arg(100_000);
                pipe.add_command(add.arg("*").arg("kind").arg("noise").clone());
            }
            pipe.exec_async(&mut connection).await.unwrap();
        }
    }

    /// What it says about itself.
    pub async fn info(&self, section: &str) -> String {
        let mut connection = self.connection().await.expect("no engine");
        redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap()
    }

    /// Who is where: client ids by room.
    pub async fn members(&self) -> BTreeMap<String, Vec<String>> {
        let mut connection = self.connection().await.expect("no engine");
        let rooms: Vec<String> = connection.hkeys("{sig1}:rooms").await.unwrap();
        let mut members = BTreeMap::new();
        for room in rooms {
            let mut ids: Vec<String> =
                connection.hkeys(format!("{{sig1}}:room:{room}")).await.unwrap();
            ids.sort();
            members.insert(room, ids);
        }
        members
    }

    /// What waits for a node, from its oldest entry to that with the id `to`.
    async fn entries(&self, inbox: &str, to: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let mut connection = self.connection().await.expect("no engine");
        let mut range = redis::cmd("XRANGE");
        range.arg(inbox).arg("-").arg(to).query_async(&mut connection).await.unwrap()
    }

    pub async fn inbox(&self, node: &str) -> String {
        format!("{:?}", self.entries(&format!("{{sig1}}:inbox:{node}"), "+").await)
    }

    /// Waits until every node has read what was there: with its next beat it drops all but the last.
    pub async fn inboxes_are_read(&self) {
        let mut connection = self.connection().await.expect("no engine");
        let inboxes: Vec<String> = connection.keys("{sig1}:inbox:*").await.unwrap();
        for inbox in inboxes {
            let entries = self.entries(&inbox, "+").await;
            let before_last = format!("({}", entries.last().unwrap().0);
            super::eventually("an inbox is read", async || {
                self.entries(&inbox, &before_last).await.is_empty()
            })
            .await;
        }
    }

    /// What is kept there beside what belongs to nodes themselves.
    pub async fn room_keys(&self) -> Vec<String> {
        let mut connection = self.connection().await.expect("no engine");
        let mut keys: Vec<String> = connection.keys("*").await.unwrap();
        let of_nodes = ["inbox:", "nodes", "life", "pulse", "arrivals", "logouts"];
        keys.retain(|key| !of_nodes.iter().any(|of| key.starts_with(&format!("{{sig1}}:{of}"))));
        keys
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(port: u16, folder: &TempDir, scheme: &str, arguments: &[String]) -> Child {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
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
    command.arg("--dir").arg(folder.path()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("redis-server is missing: apt-get install redis-server")
}
