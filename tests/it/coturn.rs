//! A real coturn with deploy/turnserver.conf, in a folder of its own.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::harness::SOON;

pub const SECRET: &str = "a-secret-that-server-and-coturn-share";

/// What coturn says in a line of its own when it takes clients.
const IS_READY: &str = "Total General servers";

pub struct Coturn {
    pub port: u16,
    pub tls_port: u16,
    /// Its own certificate, which nobody else has signed.
    pub certificate: PathBuf,
    folder: TempDir,
    child: Child,
    log: watch::Receiver<usize>,
    said: Arc<Mutex<Vec<String>>>,
}

/// A port that neither TCP nor UDP has taken. Nobody keeps it for us until it is used.
pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Coturn {
    pub async fn start() -> Self {
        Self::start_with(&[("REPLACE_WITH_TURNSERVER_SECRET", SECRET)]).await
    }

    /// One that asks nobody who he is.
    pub async fn start_open() -> Self {
        let secret = "static-auth-secret=REPLACE_WITH_TURNSERVER_SECRET";
        Self::start_with(&[("\nuse-auth-secret\n", "\nno-auth\n"), (secret, "")]).await
    }

    /// Whose configuration has the second in place of the first.
    async fn start_with(changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let made =
            rcgen::generate_simple_self_signed(["localhost", "127.0.0.1"].map(str::to_owned))
                .unwrap();
        fs::write(folder.path().join("fullchain.pem"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
        let (port, tls_port) = (free_port(), free_port());
        let mut text = fs::read_to_string("deploy/turnserver.conf").unwrap();
        let ours = [
            ("tls-listening-port=5349", format!("tls-listening-port={tls_port}")),
            ("\nlistening-port=3478", format!("\nlistening-port={port}")),
            ("/etc/letsencrypt/live/turn.example.com", path.clone()),
        ];
        let changes = changes.iter().map(|&(from, to)| (from, to.to_owned()));
        for (from, to) in changes.chain(ours) {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, &to);
        }
        text += "\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nverbose\n";
        text += &format!("userdb={path}/turndb\npidfile={path}/pid\n");
        fs::write(folder.path().join("turnserver.conf"), text).unwrap();
        Self::run(folder, port, tls_port).await
    }

    async fn run(folder: TempDir, port: u16, tls_port: u16) -> Self {
        let mut command = Command::new("turnserver");
        command.arg("-c").arg(folder.path().join("turnserver.conf"));
        command.current_dir(folder.path()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (count, log) = watch::channel(0);
        let theirs = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                theirs.lock().unwrap().push(line);
                count.send_modify(|count| *count += 1);
            }
        });
        let certificate = folder.path().join("fullchain.pem");
        let mut coturn = Self { port, tls_port, certificate, folder, child, log, said };
        coturn.says(IS_READY).await;
        coturn
    }

    /// Waits until it has said these words so often that `times` lines have them.
    pub async fn says_times(&mut self, words: &str, times: usize) {
        let said = self.said.clone();
        let count =
            |words: &str| said.lock().unwrap().iter().filter(|line| line.contains(words)).count();
        let heard = async {
            while count(words) < times {
                self.log.changed().await.expect("coturn has ended");
            }
        };
        if timeout(SOON, heard).await.is_err() {
            panic!("no {words:?} in {:#?}", said.lock().unwrap());
        }
    }

    pub async fn says(&mut self, words: &str) {
        self.says_times(words, 1).await;
    }

    /// How many lines have these words by now.
    pub fn said(&self, words: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    pub fn log(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Where it relays, over UDP, TCP and TLS.
    pub fn urls(&self) -> [String; 3] {
        let (port, tls_port) = (self.port, self.tls_port);
        [
            format!("turn:127.0.0.1:{port}"),
            format!("turn:127.0.0.1:{port}?transport=tcp"),
            format!("turns:localhost:{tls_port}"),
        ]
    }

    /// Ends it at once.
    pub async fn dies(mut self) -> Dead {
        self.child.kill().await.unwrap();
        Dead { folder: self.folder, port: self.port, tls_port: self.tls_port }
    }
}

/// One that may be started again where it was.
pub struct Dead {
    folder: TempDir,
    port: u16,
    tls_port: u16,
}

impl Dead {
    pub async fn starts_again(self) -> Coturn {
        Coturn::run(self.folder, self.port, self.tls_port).await
    }
}
