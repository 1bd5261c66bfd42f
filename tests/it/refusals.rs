//! What a hostile client can make the server log.

use futures_util::future::join_all;
use reqwest::Client as HttpClient;
use serde_json::{Value, json};

use crate::harness::{Client, eventually, http, process::RestartableServer};

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// How often each refusal is provoked.
const TIMES: usize = 60;

struct Attacker {
    server: RestartableServer,
    http: HttpClient,
}

impl Attacker {
    /// Sends a GET from `address`; its status.
    async fn get(&self, address: &str, path: &str, token: &str) -> u16 {
        let url = format!("http://{}{path}", self.server.address());
        let request = self.http.get(url).header("x-forwarded-for", address).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    }

    async fn log_in(&self, address: &str) {
        let url = format!("http://{}/auth/login", self.server.address());
        let login = json!({"username":"alice","password":"wrong"});
        let request = self.http.post(url).header("x-forwarded-for", address).json(&login);
        request.send().await.unwrap();
    }

    /// Begins a WebSocket in `room` with this message; what the server answers before it closes.
    async fn knock(&self, address: &str, room: &str, first: &Value) -> Vec<Value> {
        let headers = [("x-forwarded-for", address)];
        let mut client = Client::connect(self.server.address(), room, &headers).await.unwrap();
        client.send(first.clone()).await;
        client.read_to_close().await.0
    }
}

fn matching<'a>(lines: &'a [Value], message: &str, reason: Option<&str>) -> Vec<&'a Value> {
    let is_it = |line: &&Value| {
        let fields = &line["fields"];
        fields["message"] == message && reason.is_none_or(|reason| fields["reason"] == reason)
    };
    lines.iter().filter(is_it).collect()
}

#[tokio::test]
async fn refusals_of_one_address_are_one_line_for_each_kind_and_push_no_other_off_the_page() {
    let settings = [
        ("ADMIN_TOKEN", ADMIN_TOKEN),
        ("RATE_LIMIT_PER_MINUTE", "200"),
        ("AUTH_MAX_FAILURES", "100000"),
        ("MAX_CONNECTIONS_PER_ROOM", "1"),
        ("ALLOWED_ROOMS", "den"),
        // The member keeps the room full without answering a Ping, however long the attempts take.
        ("WEBSOCKET_TIMEOUT", "3600"),
    ];
    let server = RestartableServer::start(&settings).await;
    let token = server.token("alice").await;
    let _member = server.join("bob", &[]).await;
    let attacker = Attacker { server, http: http().build().unwrap() };
    let (address, other) = ("192.0.2.1", "192.0.2.2");
    assert_eq!(attacker.get(other, "/admin/api/status", "wrong").await, 401);

    let good = json!({"type":"auth_token","token":token});
    let bad = json!({"type":"auth_token","token":"forged"});
    let taken = json!({"type":"auth_token","token":token,"clientId":"bob"});
    let malformed = json!({"type":"auth_token","token":token,"clientId":"no id"});
    let resume = json!({"type":"resume","resume_token":"forged","last_seq":0});
    for _ in 0..TIMES {
        attacker.get(address, "/admin/api/status", "wrong").await;
        attacker.log_in(address).await;
    }
    for (room, first) in [
        ("den", &good),
        ("den", &bad),
        ("den", &taken),
        ("den", &malformed),
        ("den", &json!({"type":"ping"})),
        ("attic", &good),
    ] {
        for _ in 0..TIMES / 10 {
            join_all((0..10).map(|_| attacker.knock(address, room, first))).await;
        }
    }
    for _ in 0..TIMES {
        let headers = [("x-forwarded-for", address)];
        let mut client = Client::connect(attacker.server.address(), "den", &headers).await.unwrap();
        client.receive().await;
        client.send(resume.clone()).await;
        assert_eq!(client.receive().await["code"], "resume_failed");
    }
    let mut refused = 0;
    for _ in 0..400 {
        refused += usize::from(attacker.get(address, "/api/rooms", "").await == 429);
    }
    assert!(refused > 0);
    attacker.get(other, "/admin/api/status", "wrong").await;

    let page: Value = {
        let url = format!("http://{}/admin/api/status", attacker.server.address());
        let request = attacker.http.get(url).bearer_auth(ADMIN_TOKEN);
        request.send().await.unwrap().json().await.unwrap()
    };
    let recent = page["recent"].as_array().unwrap();
    assert!(
        recent
            .iter()
            .any(|line| line["message"] == "invalid admin token"
                && line["fields"]["address"] == other)
    );
    let mut server = attacker.server;
    server.stop().await;
    let lines: Vec<Value> = server
        .process
        .log
        .lines()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let refusals: Vec<_> =
        lines.iter().filter(|line| line["fields"].get("count").is_some()).collect();
    // A minute may end in the test: then a kind has another line.
    for (message, reason) in [
        ("invalid admin token", None),
        ("login failed", None),
        ("HTTP rate limit reached", None),
        ("resume refused", None),
        ("connection rejected", Some("room_full")),
        ("connection rejected", Some("invalid_token")),
        ("connection rejected", Some("client_id_taken")),
        ("connection rejected", Some("invalid_client_id")),
        ("connection rejected", Some("auth_required")),
        ("connection rejected", Some("room_not_allowed")),
    ] {
        let count = matching(&lines, message, reason).len();
        assert!((1..=4).contains(&count), "{message} {reason:?}: {count}");
    }
    assert!(refusals.len() < 60, "{} lines", refusals.len());
}

#[tokio::test]
async fn a_line_shows_only_the_beginning_of_what_a_client_has_chosen() {
    let server = RestartableServer::start(&[("RATE_LIMIT_PER_MINUTE", "1")]).await;
    let attacker = Attacker { server, http: http().build().unwrap() };
    let path = format!("/{}", "a".repeat(20_000));
    while attacker.get("192.0.2.1", &path, "").await != 429 {}

    let line = eventually("the refusal is logged", async || {
        let mut lines = attacker.server.process.log.lines().into_iter();
        lines.find(|line| line.contains("HTTP rate limit reached")).ok_or("no line")
    })
    .await;

    assert!(line.contains(&path[..200]) && line.len() < 1000, "{} bytes", line.len());
}
