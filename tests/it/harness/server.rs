//! A server in the test's own process, on a free port.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use signaling::{
    auth::{
        revocation::RevokedTokens,
        users::{Account, Users},
    },
    clock::unix_now,
    config::Config,
    http::http_service,
    moderation::ModerationRules,
    net::{self, ConnectionLimits, workers::Workers},
    state::AppState,
    tls::ServerCertificate,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::{CHEAP, Client, http, users_file};

/// The variable with settings for every [`TestServer`] whose test does not set them itself: `NAME=value` and white space.
pub const MORE_SETTINGS: &str = "SIGNALING_TEST_SETTINGS";

/// A server with the users alice, bob and carol, whose state a test can look into.
pub struct TestServer {
    pub app: AppState,
    pub address: SocketAddr,
    pub folder: TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl TestServer {
    /// Starts a server whose settings differ from a plain `DEBUG=true` by these; `{folder}` stands for its folder.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        std::fs::write(&users_csv, users_file(&["alice", "bob", "carol"], CHEAP)).unwrap();

        let mut all = settings.to_vec();
        let path = users_csv.display().to_string();
        let plain = [
            ("DEBUG", "true"),
            ("REQUIRE_HTTPS", "false"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("JOINS_PER_MINUTE", "0"),
            ("USERS_CSV", &path),
        ];
        all.extend(plain);
        #[expect(clippy::disallowed_methods, reason = "one test gives it to a run of others")]
        let more = std::env::var(MORE_SETTINGS).unwrap_or_default();
        all.extend(more.split_whitespace().filter_map(|setting| setting.split_once('=')));
        let config = Config::read(|name| {
            let set = all.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| value.replace("{folder}", folder.path().to_str().unwrap()))
        });
        Self::with_config(config.unwrap(), folder).await
    }

    async fn with_config(config: Config, folder: TempDir) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener =
            net::listen(&config.startup.listen.host, config.startup.listen.port).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = config.startup.listen.tls.clone();
        let tls = tls.map(|files| Arc::new(ServerCertificate::load(files, None).unwrap()));
        let (users, _) = Users::load(&config.startup.auth.users_csv).unwrap();
        let revoked = RevokedTokens::load(&config.startup.auth.users_csv, unix_now()).unwrap();
        let orders = ModerationRules::load(&config.startup.auth.users_csv).unwrap();
        let app = AppState::new(config, users, revoked, orders);
        let proxies = &app.config.listen.trusted_proxies;
        let gate =
            ConnectionLimits::new(net::raise_descriptor_limit(), proxies, app.metrics.clone())
                .with_memory(app.memory.clone())
                .with_rate(app.connection_rate.clone())
                .with_proxy_headers(app.config.listen.proxy_protocol);
        let mut tasks = vec![tokio::spawn(app.clone().run_maintenance())];
        let interval = app.config.intervals.certificate_poll;
        tasks.extend(
            tls.clone().map(|tls| tokio::spawn(tls.run_reload(app.metrics.clone(), interval))),
        );
        tasks.push(tokio::spawn(net::serve(
            listener,
            http_service(&app),
            tls,
            gate,
            Workers::start(1).unwrap(),
            CancellationToken::new(),
        )));
        Self { app, address, folder, tasks }
    }

    pub fn users_csv(&self) -> PathBuf {
        self.folder.path().join("users.csv")
    }

    /// A good token, made without a login.
    pub fn token(&self, username: &str) -> String {
        let unknown = Account {
            username: username.to_owned(),
            email: String::new(),
            hashed_password: String::new(),
            is_active: true,
        };
        let account = self.app.users.find(username).unwrap_or(unknown);
        self.app.issue(&account).unwrap().token.expose_secret().to_owned()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = http().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn get_as(&self, username: &str, path: &str) -> Response {
        self.request(Method::GET, path).bearer_auth(self.token(username)).send().await.unwrap()
    }

    pub async fn post_json(&self, path: &str, body: Value) -> Response {
        self.request(Method::POST, path).json(&body).send().await.unwrap()
    }

    pub async fn log_in(&self, username: &str, password: &str) -> Response {
        self.post_json("/auth/login", json!({"username": username, "password": password})).await
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
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
