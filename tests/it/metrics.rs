//! Figures: what is counted, where it is served, and that docs, dashboard and alerts name what there is, held against a
//! real Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::harness::{
    Client, PASSWORD, TEST_TIMEOUT, TestServer,
    coturn::{self, Coturn},
    join_pair,
    process::{DEBUG, INTERVALS, NEVER, RestartableServer, ServerProcess, start_err, text},
    redis_server::RedisServer,
};

const TOKEN: &str = "a-token-for-figures";

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the figures have these lines: some are counted after those whom they are about have heard.
async fn has_counted(server: &TestServer, lines: &[&str]) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let request = server.request(Method::GET, "/metrics").bearer_auth(TOKEN);
        let text = request.send().await.unwrap().text().await.unwrap();
        let missing: Vec<_> =
            lines.iter().filter(|line| !text.lines().any(|known| known == **line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{missing:?} in {text}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn logins_are_counted_by_outcome() {
    let server = TestServer::start(&[("METRICS_TOKEN", TOKEN), ("AUTH_MAX_FAILURES", "2")]).await;

    for (username, password, status) in [
        ("alice", "wrong", 401),
        ("alice", "wrong again", 401),
        ("alice", PASSWORD, 429),
        ("bob", PASSWORD, 200),
    ] {
        assert_eq!(server.log_in(username, password).await.status(), status);
    }

    has_counted(
        &server,
        &[
            "signaling_logins_total{outcome=\"done\"} 1",
            "signaling_logins_total{outcome=\"wrong\"} 2",
            "signaling_logins_total{outcome=\"locked_out\"} 1",
            "signaling_logins_total{outcome=\"busy\"} 0",
            "signaling_rate_limited_total{kind=\"failed_logins\"} 1",
            "signaling_hashing_queue 0",
        ],
    )
    .await;
}

#[tokio::test]
async fn leaves_errors_and_rejections_are_counted() {
    let server = TestServer::start(&[
        ("METRICS_TOKEN", TOKEN),
        ("MAX_CONNECTIONS_PER_IP", "2"),
        ("TURNSERVER_SECRET", "a secret of the relay"),
        ("TURNSERVER_URLS", "turn:turn.example.com"),
    ])
    .await;
    let (mut alice, bob) = join_pair(&server, "den").await;

    assert_eq!(alice.error_after(r#"{"type":"dance"}"#).await["code"], "unknown_type");
    let (frames, close) = server.connect("den").await.read_to_close().await;
    assert_eq!((&frames[0]["code"], close.0), (&json!("too_many_connections"), 1008));
    bob.leave().await;
    assert_eq!(alice.receive().await["type"], "user_left");
    assert_eq!(server.get_as("alice", "/auth/turn-credentials").await.status(), 200);

    has_counted(
        &server,
        &[
            "signaling_errors_total{code=\"unknown_type\"} 1",
            "signaling_errors_total{code=\"too_many_connections\"} 1",
            "signaling_errors_total{code=\"internal_error\"} 0",
            "signaling_closes_total{code=\"1008\"} 1",
            "signaling_closes_total{code=\"1011\"} 0",
            "signaling_rate_limited_total{kind=\"sockets\"} 1",
            "signaling_joins_total 2",
            "signaling_leaves_total{reason=\"left\"} 1",
            "signaling_leaves_total{reason=\"connection_lost\"} 0",
            "signaling_session_ends_total{reason=\"left\",was_member=\"true\"} 1",
            "signaling_turn_credentials_total 3",
            "signaling_connections 1",
            "signaling_unauthenticated_connections 0",
        ],
    )
    .await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_counted_and_scrapes_are_not_limited() {
    let server =
        TestServer::start(&[("METRICS_TOKEN", TOKEN), ("RATE_LIMIT_PER_MINUTE", "2")]).await;
    while server.get("/").await.status() != StatusCode::TOO_MANY_REQUESTS {}

    has_counted(&server, &["signaling_rate_limited_total{kind=\"requests\"} 1"]).await;
}

#[tokio::test]
async fn the_round_trip_time_of_a_ping_is_measured() {
    let server = TestServer::start(&[("METRICS_TOKEN", TOKEN), ("WEBSOCKET_TIMEOUT", "3")]).await;
    let mut alice = server.join("den", "alice").await;

    tokio::select! {
        // Whoever reads answers pings.
        heard = alice.receive_text() => panic!("{heard}"),
        () = has_counted(&server, &["signaling_ping_rtt_seconds_count 1"]) => {}
    }
}

/// Where a process says that it serves figures.
pub fn figures_at(server: &ServerProcess) -> SocketAddr {
    let lines = server.log.lines();
    let line = lines.iter().find(|line| line.contains("metrics listener open")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    line["fields"]["address"].as_str().unwrap().parse().unwrap()
}

async fn scrape(address: SocketAddr) -> String {
    let answer = timeout(TEST_TIMEOUT, reqwest::get(format!("http://{address}/metrics"))).await;
    let answer = answer.expect("no answer").unwrap();
    assert_eq!(answer.status(), 200);
    let kind = &answer.headers()["content-type"];
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own_without_limits_or_https() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        DEBUG[0],
        ("REQUIRE_HTTPS", "true"),
        DEBUG[2],
        DEBUG[3],
        ("METRICS_LISTEN", "127.0.0.1:0"),
        ("RATE_LIMIT_PER_MINUTE", "1"),
    ];
    let mut server = ServerProcess::start(&folder, &settings).await;
    let address = figures_at(&server);
    let ask = async |method, path: &str| {
        let request = reqwest::Client::new().request(method, format!("http://{address}{path}"));
        request.send().await.unwrap().status().as_u16()
    };

    for _ in 0..5 {
        assert!(scrape(address).await.ends_with("# EOF\n"));
    }
    for path in ["/", "/health", "/metrics/more", "/api/rooms", "/auth/login", "/ws/den"] {
        assert_eq!(ask(Method::GET, path).await, 404, "{path}");
    }
    assert_eq!(ask(Method::POST, "/metrics").await, 405);
    let main = reqwest::get(format!("http://{}/metrics", server.address)).await.unwrap();
    assert_eq!(main.status(), 404, "there is no METRICS_TOKEN");
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_metrics_token_is_asked_for_at_the_metrics_address() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = DEBUG.to_vec();
    settings.extend([("METRICS_LISTEN", "[::1]:0"), ("METRICS_TOKEN", TOKEN)]);
    let server = ServerProcess::start(&folder, &settings).await;
    let ask = async |token: Option<&str>| {
        let request = reqwest::Client::new().get(format!("http://{}/metrics", figures_at(&server)));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.unwrap().status().as_u16()
    };

    assert_eq!(
        [ask(None).await, ask(Some("another")).await, ask(Some(TOKEN)).await],
        [401, 401, 200]
    );
}

#[tokio::test]
async fn a_metrics_address_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (text, port) = (address.to_string(), address.port());
    let mut settings = DEBUG.to_vec();
    settings.push(("METRICS_LISTEN", &text));

    let said = start_err(&folder, &settings, &[]).await;

    let expected = format!("METRICS_LISTEN: another program listens on 127.0.0.1 port {port}; ");
    assert!(said.contains(&expected), "{said}");
}

/// A server whose metrics have an address of their own, and so many scrapers there that never finish their request.
async fn with_stuck_scrapers(intervals: &str, count: usize) -> (ServerProcess, Vec<TcpStream>) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = DEBUG.to_vec();
    settings.extend([("METRICS_LISTEN", "127.0.0.1:0"), ("SHUTDOWN_GRACE_SECONDS", "600")]);
    settings.push((INTERVALS, intervals));
    let server = ServerProcess::start(&folder, &settings).await;
    let mut scrapers = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(figures_at(&server)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        scrapers.push(stream);
    }
    (server, scrapers)
}

#[tokio::test]
async fn seven_stuck_scrapers_delay_neither_an_eighth_nor_shutdown() {
    let (mut server, _scrapers) = with_stuck_scrapers(NEVER, 7).await;

    scrape(figures_at(&server)).await;

    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn stuck_scrapers_are_disconnected_and_others_take_their_place() {
    let (mut server, _scrapers) = with_stuck_scrapers("metrics_head=300", 27).await;

    scrape(figures_at(&server)).await;

    assert_eq!(server.stop().await.code(), Some(0));
}

/// Silent connections that come back as often as they are closed keep no monitor out.
#[tokio::test]
async fn a_further_scraper_displaces_the_oldest_silent_one() {
    let (mut server, mut scrapers) = with_stuck_scrapers(NEVER, 40).await;

    scrape(figures_at(&server)).await;

    let mut rest = Vec::new();
    let oldest = timeout(TEST_TIMEOUT, scrapers[0].read_to_end(&mut rest)).await;
    assert!(oldest.is_ok(), "the oldest is still open");
    // The last of them still has its place, and may finish its request.
    scrapers[39].write_all(b"Connection: close\r\n\r\n").await.unwrap();
    let newest = timeout(TEST_TIMEOUT, scrapers[39].read_to_end(&mut rest)).await;
    newest.expect("no answer").unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(server.stop().await.code(), Some(0));
}

/// A real Prometheus that has read the configuration in docs/run/operations.md, but for addresses and pace.
struct Prometheus {
    url: String,
    process: Child,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(targets: &[SocketAddr]) -> Self {
        let docs = fs::read_to_string("docs/run/operations.md").unwrap();
        let (_, shown) = docs.split_once("```yaml\n").unwrap();
        let (shown, _) = shown.split_once("```").unwrap();
        let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let alerts = fs::canonicalize("deploy/alerts.yml").unwrap();
        let mut config =
            "global: { scrape_interval: 250ms, evaluation_interval: 500ms }\n".to_owned() + shown;
        for (placeholder, value) in [
            ("\"127.0.0.1:9464\"", &*targets.join(", ")),
            ("/etc/prometheus/signaling-alerts.yml", alerts.to_str().unwrap()),
        ] {
            assert!(config.contains(placeholder), "{placeholder}");
            config = config.replace(placeholder, value);
        }
        loop {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("prometheus.yml"), &config).unwrap();
            // Somebody else may take it before Prometheus does.
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let process = Command::new("prometheus")
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
                .args([format!("--web.listen-address={free}"), "--log.level=error".to_owned()])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("Debian's package prometheus");
            let mut started = Self { url: format!("http://{free}"), process, _folder: folder };
            if started.is_ready().await {
                return started;
            }
        }
    }

    async fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.process.try_wait().unwrap().is_none() {
            let ready = reqwest::get(format!("{}/-/ready", self.url)).await;
            if ready.is_ok_and(|ready| ready.status() == 200) {
                return true;
            }
            assert!(Instant::now() < deadline, "Prometheus is not ready");
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// What an expression comes to; panics where it is none.
    async fn query(&self, expression: &str) -> Vec<Value> {
        let request = reqwest::Client::new().post(format!("{}/api/v1/query", self.url));
        let answer = request.form(&[("query", expression)]).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The rules that it has, once each has been looked at.
    async fn rules(&self) -> Vec<Value> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let answer = reqwest::get(format!("{}/api/v1/rules", self.url)).await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            let groups = answer["data"]["groups"].as_array().unwrap().iter();
            let rules: Vec<_> =
                groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
            if !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown") {
                return rules;
            }
            assert!(Instant::now() < deadline, "{answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What Prometheus calls each family of some OpenMetrics text, and its type.
fn families(text: &str) -> BTreeMap<String, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let named = types.map(|(name, kind)| match kind {
        "counter" => (format!("{name}_total"), kind),
        "info" => (format!("{name}_info"), kind),
        _ => (name.to_owned(), kind),
    });
    named.collect()
}

/// The same text as Prometheus had it before OpenMetrics, which is what promtool reads.
fn classic(text: &str) -> String {
    let families = families(text);
    let mut classic = String::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => {}
            ["#", word, name, rest] => {
                let counter = (format!("{name}_total"), "counter");
                let info = (format!("{name}_info"), "info");
                let known = |it: &(String, &str)| families.get(&it.0) == Some(&it.1);
                let named = [counter, info].into_iter().find(known);
                let name = named.map_or_else(|| name.to_owned(), |(name, _)| name);
                let rest = if word == "TYPE" && rest == "info" { "gauge" } else { rest };
                classic += &format!("# {word} {name} {rest}\n");
            }
            _ => classic += &format!("{line}\n"),
        }
    }
    classic
}

/// The families that some text names.
fn named(text: &str, families: &BTreeMap<String, &str>) -> BTreeSet<String> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let words = words.filter(|word| word.starts_with("signaling_") || word.starts_with("process_"));
    let family = |word: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let family = word.strip_suffix(end)?;
            (families.get(family) == Some(&"histogram")).then_some(family)
        });
        of_histogram.unwrap_or(word).to_owned()
    };
    words.map(family).collect()
}

/// The first cells of the tables in a page that begin so.
fn described(docs: &str, beginning: &[&str]) -> BTreeSet<String> {
    let cells = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let names = cells.map(|(name, _)| name.to_owned());
    names.filter(|name| beginning.iter().any(|start| name.starts_with(start))).collect()
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

async fn promtool(arguments: &[&str], typed: &str) {
    let mut child = Command::new("promtool");
    let child = child.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).await.unwrap();
    let output = timeout(TEST_TIMEOUT, child.wait_with_output()).await.unwrap().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "promtool {arguments:?}: {said}\n{typed}");
}

/// A certificate for localhost that is good for so many days.
async fn certificate(folder: &TempDir, days: &str) {
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem -days";
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split(' ')).arg(days).current_dir(folder.path());
    assert!(openssl.stderr(Stdio::null()).status().await.unwrap().success());
}

#[tokio::test]
async fn alerts_fire_at_their_thresholds() {
    promtool(&["check", "rules", "deploy/alerts.yml"], "").await;
    promtool(&["test", "rules", "tests/fixtures/alerts_test.yml"], "").await;
}

/// One server has a cluster, another one TLS: together they have every figure that there is.
#[tokio::test]
async fn documents_dashboard_and_alerts_name_exactly_the_metrics_that_exist() {
    let (engine, keys) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    certificate(&keys, "30").await;
    let key = |name: &str| keys.path().join(name).display().to_string();
    let coturn = Coturn::start().await;
    let [relay, ..] = coturn.urls();
    let shared = RestartableServer::start(&[
        ("METRICS_LISTEN", "127.0.0.1:0"),
        ("REDIS_URL", &engine.url()),
        ("TURNSERVER_SECRET", coturn::SECRET),
        ("TURNSERVER_URLS", &relay),
        ("TURN_PROBE_SECONDS", "60"),
    ])
    .await;
    let secure = RestartableServer::start(&[
        ("METRICS_LISTEN", "127.0.0.1:0"),
        ("SSL_CERT_FILE", &key("cert.pem")),
        ("SSL_KEY_FILE", &key("key.pem")),
    ])
    .await;
    let targets = [figures_at(&shared.process), figures_at(&secure.process)];
    eventually("Redis is there", async || shared.health().await["cluster"]["engine"] == "up").await;

    // A little of everything.
    let mut members = Vec::new();
    for name in ["alice", "bob"] {
        let mut member = Client::connect(shared.address(), "den", &[]).await.unwrap();
        member.authenticate(name, &shared.token(name).await, Value::Null).await;
        members.push(member);
    }
    let [alice, bob] = &mut members[..] else { panic!() };
    assert_eq!(alice.receive().await["type"], "user_joined");
    alice.send(json!({"type":"offer","offer":{"sdp":"v=0"}})).await;
    assert_eq!(bob.receive().await["type"], "offer");
    bob.send(
        json!({"type":"call_report","peer":"a","outcome":"connected","ms":750,"path":"relay"}),
    )
    .await;
    bob.error_after(r#"{"type":"dance"}"#).await;

    eventually("the relay was tried", async || {
        scrape(targets[0]).await.contains("signaling_turn_latency_seconds{")
    })
    .await;
    let prometheus = Prometheus::start(&targets).await;
    let texts = [scrape(targets[0]).await, scrape(targets[1]).await];
    let mut families = families(&texts[0]);
    families.extend(self::families(&texts[1]));
    let there: BTreeSet<_> = families.keys().cloned().collect();
    let read = |path| fs::read_to_string(path).unwrap();
    let (reference, operations) =
        (read("docs/reference/metrics.md"), read("docs/run/operations.md"));
    let (dashboard, alerts) = (read("deploy/grafana.json"), read("deploy/alerts.yml"));

    for text in &texts {
        assert!(!["alice", "bob", "\"den\""].iter().any(|name| text.contains(name)), "{text}");
        promtool(&["check", "metrics"], &classic(text)).await;
    }
    let mut described_figures = described(&reference, &["signaling_", "process_"]);
    // There only with an issuer of tokens.
    assert!(described_figures.remove("signaling_issuer_keys_age_seconds"));
    let strange: Vec<_> = described_figures.symmetric_difference(&there).collect();
    assert_eq!(strange, [] as [&String; 0], "described and not there, or there and not described");
    for text in [&reference, &operations, &dashboard, &alerts] {
        let mut named = named(text, &families);
        named.remove("signaling_issuer_keys_age_seconds");
        let strange: Vec<_> = named.difference(&there).cloned().collect();
        assert_eq!(strange, [] as [String; 0], "there is no such figure");
    }
    let expires = texts[1]
        .lines()
        .find_map(|line| line.strip_prefix("signaling_tls_certificate_expiry_timestamp_seconds "));
    let left = expires.unwrap().parse::<u64>().unwrap() - unix_now();
    assert!((30 * 86_400 - 600..=30 * 86_400).contains(&left), "{left}");

    eventually("both are scraped", async || {
        let up = prometheus.query("sum(up{job=\"signaling\"}) == 2").await;
        !up.is_empty()
    })
    .await;
    for expression in expressions(&serde_json::from_str(&dashboard).unwrap()) {
        let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "20s");
        eventually(&format!("there is data for {expression}"), async || {
            !prometheus.query(&expression).await.is_empty()
        })
        .await;
    }
    // A scrape that a busy machine delays lets a rule wait until the next one.
    eventually("no rule is at fault, and none has a reason to alert", async || {
        prometheus.rules().await.iter().all(|rule| {
            (rule["health"].as_str(), rule["state"].as_str()) == (Some("ok"), Some("inactive"))
        })
    })
    .await;
    let rules = prometheus.rules().await;
    let names = rules.iter().map(|rule| rule["name"].as_str().unwrap().to_owned());
    let (names, described_alerts) = (names.collect(), described(&operations, &["Signaling"]));
    let strange: Vec<_> = described_alerts.symmetric_difference(&names).collect();
    assert_eq!(strange, [] as [&String; 0], "described and not there, or there and not described");
}
