//! The two programs as processes: `manage_users`, and a server that can be signalled, stopped and started again.

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use super::{
    CHEAP, PASSWORD, TEST_TIMEOUT, folder_with_users, http, log::ProcessLog,
    resumable::ResumableClient,
};

/// The server's program.
pub const SERVER: &str = env!("CARGO_BIN_EXE_signaling-server");
/// The program that edits the users file.
pub const MANAGE_USERS: &str = env!("CARGO_BIN_EXE_manage_users");

/// Settings of a server in DEBUG on a free port.
pub const DEBUG: [(&str, &str); 5] = [
    ("DEBUG", "true"),
    ("REQUIRE_HTTPS", "false"),
    ("HOST", "127.0.0.1"),
    ("PORT", "0"),
    ("JOINS_PER_MINUTE", "0"),
];

/// The variable that shortens the intervals of a server, such as `lease=3000`.
pub const INTERVALS: &str = signaling::intervals::TEST_VARIABLE;

/// Longer than any test takes: where a time-out is this long, nothing that the test sees is due to it.
pub const NEVER: &str = "head=3600000 metrics_head=3600000 body=3600000 write_stall=3600000";

/// Stands among settings for the network namespace that the server is to run in.
pub const IN_NAMESPACE: &str = "IN_NAMESPACE";

/// Of iproute2.
pub const IP: &str = "/sbin/ip";

/// The room of [`RestartableServer::join`].
pub const ROOM: &str = "den";

/// A command that inherits no variable.
pub fn command(binary: &str, folder: &TempDir) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().current_dir(folder.path()).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs `manage_users` with `typed` on its standard input.
pub async fn manage(folder: &TempDir, arguments: &[&str], typed: &str) -> Output {
    let mut child = command(MANAGE_USERS, folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A process that rejects its arguments does not read what is typed.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes()).await;
    timeout(TEST_TIMEOUT, child.wait_with_output()).await.unwrap().unwrap()
}

/// What `manage_users` prints, on either stream; panics where it fails.
pub async fn manage_ok(folder: &TempDir, arguments: &[&str], typed: &str) -> String {
    let output = manage(folder, arguments, typed).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// What `manage_users` prints where it fails with 1.
pub async fn manage_err(folder: &TempDir, arguments: &[&str], typed: &str) -> String {
    let output = manage(folder, arguments, typed).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
    assert!(output.stdout.is_empty());
    text(&output)
}

/// What a server prints that ends with 1 instead of serving.
pub async fn start_err(folder: &TempDir, settings: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut server = command(SERVER, folder);
    let output = server.args(arguments).envs(settings.iter().copied()).output();
    let output = timeout(TEST_TIMEOUT, output).await.expect("it starts").unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

/// What a command has printed, on both streams.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Sends a signal to a process that was started here.
pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("it has ended")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A server process that listens.
pub struct ServerProcess {
    pub child: Child,
    pub address: SocketAddr,
    pub log: ProcessLog,
}

impl ServerProcess {
    pub async fn start(folder: &TempDir, settings: &[(&str, &str)]) -> Self {
        let mut command = match settings.iter().find(|(name, _)| *name == IN_NAMESPACE) {
            None => command(SERVER, folder),
            Some((_, namespace)) => {
                let mut command = command(IP, folder);
                command.args(["netns", "exec", namespace, SERVER]);
                command
            }
        };
        command.envs(settings.iter().copied());
        Self::run(command).await
    }

    /// Starts a server as systemd does with socket activation: it inherits `listener`.
    pub async fn start_on(listener: &TcpListener, folder: &TempDir) -> Self {
        let mut command = command("/bin/sh", folder);
        let start = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\"";
        command.args(["-c", start, SERVER]).envs(DEBUG);
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        Self::run(command).await
    }

    /// Starts `command`, which becomes a server that logs JSON.
    pub async fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut log = ProcessLog::default();
        log.keep(child.stdout.take().unwrap());
        if let Some(stderr) = child.stderr.take() {
            log.keep(stderr);
        }
        let open: Value = serde_json::from_str(&log.next_line_with("\"listening\"").await).unwrap();
        let address = open["fields"]["address"].as_str().unwrap().parse().unwrap();
        Self { child, address, log }
    }

    pub fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }

    /// Waits until the process has ended and its log is complete.
    pub async fn wait(&mut self) -> ExitStatus {
        let waiting = timeout(TEST_TIMEOUT, self.child.wait());
        let status = waiting.await.expect("still running").unwrap();
        self.log.read_to_end().await;
        status
    }

    /// Asks the process to end, as systemd does, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait().await
    }

    /// Ends the process as a crash does.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The lines of level ERROR so far.
    pub fn errors(&self) -> Vec<String> {
        let mut lines = self.log.lines();
        lines.retain(|line| line.contains("\"level\":\"ERROR\""));
        lines
    }
}

/// A server process that can be started again where it was: same port, same folder. alice, bob, carol and dave have
/// accounts there.
pub struct RestartableServer {
    pub folder: TempDir,
    pub process: ServerProcess,
    settings: Vec<(String, String)>,
}

/// The `JWT_SECRET_KEY` of a [`RestartableServer`].
pub const KEY: &str = "jwt-key-of-the-server-0123456789abcdef";

impl RestartableServer {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(folder_with_users(CHEAP), settings).await
    }

    /// Starts in a folder that has a users file; `{folder}` in a setting stands for it.
    pub async fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let usual = [
            ("DEBUG", "true"),
            ("LOG_LEVEL", "INFO"),
            ("LOG_FORMAT", "json"),
            ("REQUIRE_HTTPS", "false"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("JOINS_PER_MINUTE", "0"),
            ("MAX_CONNECTIONS_PER_IP", "0"),
            ("TURN_PROBE_SECONDS", "0"),
            ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
            ("WEBSOCKET_MESSAGE_BURST", "100000"),
            ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
            ("SECRET_KEY", "own-key-of-the-server-0123456789abcdef"),
            ("JWT_SECRET_KEY", KEY),
        ];
        let place = |text: &str| text.replace("{folder}", folder.path().to_str().unwrap());
        let settings = usual.iter().chain(settings);
        let mut settings: Vec<_> =
            settings.map(|&(name, value)| (name.to_owned(), place(value))).collect();
        let process = Self::start_process(&folder, &settings).await;
        settings.push(("PORT".to_owned(), process.address.port().to_string()));
        Self { folder, process, settings }
    }

    async fn start_process(folder: &TempDir, settings: &[(String, String)]) -> ServerProcess {
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        ServerProcess::start(folder, &settings.collect::<Vec<_>>()).await
    }

    /// The next process, after the one before has ended.
    pub async fn restart(&mut self) {
        self.process = Self::start_process(&self.folder, &self.settings).await;
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops the process in order; the lines of level ERROR that it has logged.
    pub async fn stop(&mut self) -> Vec<String> {
        assert_eq!(self.process.stop().await.code(), Some(0));
        assert!(self.process.log.count("\"shutdown complete\"") > 0);
        self.process.errors()
    }

    pub async fn token(&self, username: &str) -> String {
        let client = http().build().unwrap();
        let request = client.post(format!("http://{}/auth/login", self.address()));
        let login = json!({"username":username,"password":PASSWORD});
        let answer = timeout(TEST_TIMEOUT, request.json(&login).send()).await;
        let answer = answer.expect("no answer").unwrap();
        answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn health(&self) -> Value {
        let client = http().build().unwrap();
        let asked = client.get(format!("http://{}/health", self.address())).send();
        let answer = timeout(TEST_TIMEOUT, asked).await.expect("no answer").unwrap();
        answer.json().await.unwrap()
    }

    /// A member of [`ROOM`] whose client id is its name.
    pub async fn join(&self, username: &str, features: &[&str]) -> ResumableClient {
        self.join_through(self.address(), username, features).await
    }

    /// The same, on a connection to another address that leads to this server.
    pub async fn join_through(
        &self,
        address: SocketAddr,
        username: &str,
        features: &[&str],
    ) -> ResumableClient {
        let token = self.token(username).await;
        ResumableClient::join(address, ROOM, username, &token, features).await
    }
}
