//! What the tests share: servers in this process and in processes of their own, clients, what stands between them, and
//! one way to wait.

pub mod client;
pub mod coturn;
pub mod log;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod redis_server;
pub mod resumable;
mod server;

use std::{fmt::Debug, time::Duration};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub use self::{
    client::{Client, join_pair},
    server::{MORE_SETTINGS, TestServer},
};

/// Longer than anything here takes, also on a loaded machine; nothing waits for it to pass.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The password of every account.
pub const PASSWORD: &str = "correct horse";

/// A bcrypt cost that takes no time.
pub const CHEAP: u32 = 4;

/// For requests over plain HTTP: reading the system's certificate authorities takes longer than most of them.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_certs_only([])
}

/// A users file with these accounts, all with [`PASSWORD`], hashed at this bcrypt cost.
pub fn users_file(names: &[&str], cost: u32) -> String {
    let hash = bcrypt::hash(PASSWORD, cost).unwrap();
    let rows = names.iter().map(|name| format!("{name},{name}@example.com,{hash},True\n"));
    format!("username,email,hashed_password,is_active\n{}", rows.collect::<String>())
}

/// A folder with a users file in which alice, bob, carol and dave are.
pub fn folder_with_users(cost: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let users = users_file(&["alice", "bob", "carol", "dave"], cost);
    std::fs::write(folder.path().join("users.csv"), users).unwrap();
    folder
}

/// Replaces a file that a server may be reading at this moment: it finds the old one or the new one, and never a part.
pub fn replace_file(path: &std::path::Path, text: impl AsRef<[u8]>) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Compiles what moves a process's wall clock by the seconds in the file `offset` of the folder, and the settings that load
/// it; `{folder}` stands for the folder.
pub async fn compile_clock(folder: &TempDir) -> [(&'static str, &'static str); 2] {
    let mut compiler = tokio::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so"));
    let compiled = compiler.args(["tests/it/attacks/clock.c", "-ldl"]).status().await.unwrap();
    assert!(compiled.success());
    std::fs::write(folder.path().join("offset"), "0").unwrap();
    [("LD_PRELOAD", "{folder}/clock.so"), ("CLOCK_OFFSET", "{folder}/offset")]
}

/// What [`eventually`] waits for: `true`, or an `Ok`.
pub trait Condition {
    /// What is there once the condition holds.
    type Value;

    /// The value, or how it stands now.
    fn check(self) -> Result<Self::Value, String>;
}

impl Condition for bool {
    type Value = ();

    fn check(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T, E: Debug> Condition for Result<T, E> {
    type Value = T;

    fn check(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#?}"))
    }
}

/// Looks again and again until the condition holds, and returns its value. Panics after [`TEST_TIMEOUT`] with how it stood
/// last; `what` completes "waited in vain until …".
pub async fn eventually<C: Condition>(
    what: &str,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        match condition().await.check() {
            Ok(value) => return value,
            Err(last) => {
                assert!(Instant::now() < deadline, "waited in vain until {what}: {last}");
                sleep(POLL_INTERVAL).await;
            }
        }
    }
}
