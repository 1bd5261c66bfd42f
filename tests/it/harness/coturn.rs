//! A real coturn with deploy/turnserver.conf, in a folder of its own.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::Stdio,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::log::ProcessLog;

pub const SECRET: &str = "a-secret-that-server-and-coturn-share";

/// Part of the line that coturn prints when it takes clients.
const IS_READY: &str = "Total General servers";

pub struct Coturn {
    pub port: u16,
    pub tls_port: u16,
    /// Its own, self-signed certificate.
    pub certificate: PathBuf,
    folder: TempDir,
    child: Child,
    pub log: ProcessLog,
}

/// A port that neither TCP nor UDP has taken. It is not reserved until it is used.
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

    /// A coturn that asks for no credentials.
    pub async fn start_open() -> Self {
        let secret = "static-auth-secret=REPLACE_WITH_TURNSERVER_SECRET";
        Self::start_with(&[("\nuse-auth-secret\n", "\nno-auth\n"), (secret, "")]).await
    }

    /// A coturn whose self-signed certificate says that it is an authority.
    pub async fn start_with_authority() -> Self {
        let is_authority = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::start_as(&[("REPLACE_WITH_TURNSERVER_SECRET", SECRET)], is_authority).await
    }

    /// A coturn whose configuration has the second text of each pair in place of the first.
    pub async fn start_with(changes: &[(&str, &str)]) -> Self {
        Self::start_as(changes, IsCa::NoCa).await
    }

    async fn start_as(changes: &[(&str, &str)], is_ca: IsCa) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("fullchain.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("privkey.pem"), key.serialize_pem()).unwrap();
        let (port, tls_port) = (free_port(), free_port());
        let mut text = fs::read_to_string("deploy/turnserver.conf").unwrap();
        text += "\nlistening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nverbose\n";
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
        text += &format!("userdb={path}/turndb\npidfile={path}/pid\n");
        fs::write(folder.path().join("turnserver.conf"), text).unwrap();
        Self::run(folder, port, tls_port).await
    }

    async fn run(folder: TempDir, port: u16, tls_port: u16) -> Self {
        let mut command = Command::new("turnserver");
        command.arg("-c").arg(folder.path().join("turnserver.conf"));
        command.current_dir(folder.path()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut log = ProcessLog::default();
        log.keep(child.stdout.take().unwrap());
        log.line_with(IS_READY).await;
        let certificate = folder.path().join("fullchain.pem");
        Self { port, tls_port, certificate, folder, child, log }
    }

    /// Its URLs over UDP, TCP and TLS.
    pub fn urls(&self) -> [String; 3] {
        let (port, tls_port) = (self.port, self.tls_port);
        [
            format!("turn:127.0.0.1:{port}"),
            format!("turn:127.0.0.1:{port}?transport=tcp"),
            format!("turns:localhost:{tls_port}"),
        ]
    }

    /// Ends it at once.
    pub async fn kill(mut self) -> StoppedCoturn {
        self.child.kill().await.unwrap();
        StoppedCoturn { folder: self.folder, port: self.port, tls_port: self.tls_port }
    }
}

/// A coturn that can be started again on the same ports.
pub struct StoppedCoturn {
    folder: TempDir,
    port: u16,
    tls_port: u16,
}

impl StoppedCoturn {
    pub async fn restart(self) -> Coturn {
        Coturn::run(self.folder, self.port, self.tls_port).await
    }
}
