//! A server on a free port, and clients that talk to it as anybody would.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
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
    http,
    moderation::ModerationRules,
    net::{self, ConnectionLimits, workers::Workers},
    state::AppState,
    tls::ServerCertificate,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes, also on a loaded machine; nothing waits for it to pass.
pub const SOON: Duration = Duration::from_secs(60);

/// The password of everybody.
pub const PASSWORD: &str = "correct horse";

/// For requests over plain HTTP: to read whom the system trusts takes longer than most of them.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_certs_only([])
}

/// A users file with these accounts, all with [`PASSWORD`], hashed at this bcrypt cost.
pub fn users_file(names: &[&str], cost: u32) -> String {
    let hash = bcrypt::hash(PASSWORD, cost).unwrap();
    let rows = names.iter().map(|name| format!("{name},{name}@example.com,{hash},True\n"));
    format!("username,email,hashed_password,is_active\n{}", rows.collect::<String>())
}

/// A server of our own, with the users alice, bob and carol.
pub struct Server {
    pub app: AppState,
    pub address: SocketAddr,
    pub folder: TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server whose settings differ from a plain `DEBUG=true` by these.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        std::fs::write(&users_csv, users_file(&["alice", "bob", "carol"], 4)).unwrap();

        let mut all = settings.to_vec();
        let path = users_csv.display().to_string();
        let plain = [
            ("DEBUG", "true"),
            ("REQUIRE_HTTPS", "false"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("USERS_CSV", &path),
        ];
        all.extend(plain);
        let config = Config::read(|name| {
            let set = all.iter().find(|(known, _)| *known == name);
            set.map(|(_, value)| value.replace("{folder}", folder.path().to_str().unwrap()))
        });
        Self::with(config.unwrap(), folder).await
    }

    async fn with(config: Config, folder: TempDir) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener =
            net::listen(&config.startup.listen.host, config.startup.listen.port).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = config
            .startup
            .listen
            .tls
            .clone()
            .map(|files| Arc::new(ServerCertificate::load(files).unwrap()));
        let (users, _) = Users::load(&config.startup.auth.users_csv).unwrap();
        let revoked = RevokedTokens::load(&config.startup.auth.users_csv, unix_now()).unwrap();
        let orders = ModerationRules::load(&config.startup.auth.users_csv).unwrap();
        let app = AppState::new(config, users, revoked, orders);
        let proxies = &app.config.listen.trusted_proxies;
        let gate =
            ConnectionLimits::new(net::raise_descriptor_limit(), proxies, app.metrics.clone());
        let mut tasks = vec![tokio::spawn(app.clone().run_maintenance())];
        tasks.extend(tls.clone().map(|tls| tokio::spawn(tls.run_reload(app.metrics.clone()))));
        tasks.push(tokio::spawn(net::serve(
            listener,
            http::http_service(&app),
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
        let nobody = Account {
            username: username.to_owned(),
            email: String::new(),
            hashed_password: String::new(),
            is_active: true,
        };
        let account = self.app.users.find(username).unwrap_or(nobody);
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
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A WebSocket client that knows nothing but JSON.
pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    pub id: String,
}

impl Client {
    /// A socket to `room` (percent-encoded) that has heard nothing yet.
    pub async fn connect(
        address: SocketAddr,
        room: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}/ws/{room}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket, id: String::new() })
    }

    /// Becomes a member that has asked for an id; returns whom it finds there.
    pub async fn comes_in(&mut self, username: &str, token: &str, client_id: Value) -> Value {
        assert_eq!(self.hears().await["type"], "auth_required");
        self.says(json!({"type":"auth_token","token":token,"clientId":client_id})).await;
        let success = self.hears().await;
        assert_eq!(
            (&success["type"], &success["user"]),
            (&json!("auth_success"), &json!(username)),
            "{success}"
        );
        self.id = success["client_id"].as_str().unwrap().to_owned();
        let there = self.hears().await;
        assert_eq!(there["type"], "users_in_room");
        there["users"].clone()
    }

    pub async fn says(&mut self, message: Value) {
        self.says_text(&message.to_string()).await;
    }

    pub async fn says_text(&mut self, text: &str) {
        self.sends(Message::text(text)).await;
    }

    pub async fn sends(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Says something without sending it yet.
    pub async fn feeds(&mut self, message: &Value) {
        self.socket.feed(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn flushes(&mut self) {
        self.socket.flush().await.unwrap();
    }

    pub async fn hears(&mut self) -> Value {
        serde_json::from_str(&self.hears_text().await).unwrap()
    }

    pub async fn hears_text(&mut self) -> String {
        timeout(SOON, self.next_text()).await.expect("nothing was heard")
    }

    async fn next_text(&mut self) -> String {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no message"),
            }
        }
    }

    /// Shows that nothing waits to be heard, by what is answered last: our own ping.
    pub async fn hears_nothing_else(&mut self) {
        self.says(json!({"type":"ping"})).await;
        assert_eq!(self.hears().await, json!({"type":"pong"}));
    }

    /// The error that `message` is answered with.
    pub async fn is_told_after(&mut self, message: &str) -> Value {
        self.says_text(message).await;
        let error = self.hears().await;
        assert_eq!(error["type"], "error", "{error}");
        error
    }

    /// What is heard before the server closes, and how it closes.
    pub async fn is_let_go(self) -> (Vec<Value>, (u16, String)) {
        timeout(SOON, self.listen_to_the_end()).await.expect("not let go")
    }

    async fn listen_to_the_end(mut self) -> (Vec<Value>, (u16, String)) {
        let mut before = Vec::new();
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => before.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (before, (frame.code.into(), frame.reason.as_str().to_owned()));
                }
                other => panic!("{other:?} after {before:?}"),
            }
        }
    }

    /// How the server closes, where it says nothing before.
    pub async fn is_refused(self) -> (u16, String) {
        let (before, close) = self.is_let_go().await;
        assert_eq!(before, [] as [Value; 0]);
        close
    }

    /// Closes as a browser does, and waits until the server has closed too.
    pub async fn leaves(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// Two members of one room who have heard of each other.
pub async fn couple(server: &Server, room: &str) -> (Client, Client) {
    let mut alice = server.join(room, "alice").await;
    let bob = server.join(room, "bob").await;
    assert_eq!(alice.hears().await["type"], "user_joined");
    (alice, bob)
}
