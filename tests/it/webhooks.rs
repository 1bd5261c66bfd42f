//! What others are told of rooms. How it is delivered, to receivers of all kinds, is in `webhooks`' own tests.

use std::{collections::BTreeSet, process::Stdio, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{Instant, timeout},
};

use crate::harness::{
    TEST_TIMEOUT, TestServer, eventually, process::RestartableServer, receiver::WebhookReceiver,
    resumable::RESUME,
};

const DOCUMENT: &str = include_str!("../../docs/build/webhooks.md");

/// The blocks of the page that are of this kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let opening = format!("```{kind}\n");
    let blocks = DOCUMENT.split(opening.as_str()).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

async fn server_that_tells(receiver: &WebhookReceiver) -> TestServer {
    server_with(receiver, &[]).await
}

async fn server_with(receiver: &WebhookReceiver, settings: &[(&str, &str)]) -> TestServer {
    let url = receiver.url();
    let mut all = vec![("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true")];
    all.extend(settings);
    TestServer::start(&all).await
}

#[tokio::test]
async fn webhooks_report_a_room_from_opening_to_closing() {
    let receiver = WebhookReceiver::start().await;
    let server = server_that_tells(&receiver).await;
    let (mut alice, _) = server.join_as("den", "alice", json!("a")).await;
    let (bob, _) = server.join_as("den", "bob", json!("b")).await;
    let report =
        json!({"type":"call_report","peer":"b","outcome":"connected","ms":830,"path":"relay"});
    alice.send(report).await;
    alice.send(json!({"type":"call_report","peer":"nobody","outcome":"failed","ms":30000})).await;
    alice.receive_type("user_joined").await;
    alice.assert_no_more_messages().await;
    bob.leave().await;
    let (newer, _) = server.join_as("den", "alice", json!("a")).await;
    newer.leave().await;
    server.join_as("attic", "carol", json!("c")).await.0.leave().await;

    receiver
        .wait_for_events(
            "den",
            &[
                "room.opened",
                "member.joined a",
                "member.joined b",
                "call.report a connected",
                "call.report a failed",
                "member.left b left",
                "member.left a replaced",
                "member.joined a",
                "member.left a left",
                "room.closed",
            ],
        )
        .await;
    let attic = ["room.opened", "member.joined c", "member.left c left", "room.closed"];
    receiver.wait_for_events("attic", &attic).await;
}

impl super::harness::Client {
    async fn receive_type(&mut self, kind: &str) {
        assert_eq!(self.receive().await["type"], kind);
    }
}

/// Each example of the page is what is told, but for what differs from time to time.
#[tokio::test]
async fn webhook_events_have_the_documented_form() {
    let documented: Vec<Value> =
        blocks("json event").iter().map(|block| serde_json::from_str(block).unwrap()).collect();
    let kinds: BTreeSet<_> =
        documented.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let all = ["call.report", "member.joined", "member.left", "room.closed", "room.opened"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    let receiver = WebhookReceiver::start().await;
    let server = server_that_tells(&receiver).await;

    let (mut alice, _) = server.join_as("standup", "alice", json!("alice-1")).await;
    let (bob, _) = server.join_as("standup", "bob", json!("bob-1")).await;
    alice.receive_type("user_joined").await;
    let report =
        json!({"type":"call_report","peer":"bob-1","outcome":"connected","ms":830,"path":"host"});
    alice.send(report).await;
    alice.assert_no_more_messages().await;
    bob.leave().await;
    alice.leave().await;
    eventually("seven events arrive", async || receiver.events().len() == 7).await;

    let events = receiver.events();
    let shape = |event: &Value| {
        let mut event = event.clone();
        let object = event.as_object_mut().unwrap();
        object.remove("node");
        for differs in ["id", "time", "sequence"] {
            object.insert(differs.into(), json!(null));
        }
        event
    };
    for event in &documented {
        assert!(events.iter().any(|sent| shape(sent) == shape(event)), "{event} among {events:#?}");
    }
    let of_two_servers = documented.iter().find(|event| !event["node"].is_null());
    assert!(of_two_servers.is_some(), "no example has a node");
    assert!(events.iter().all(|event| event["node"].is_null()));
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), events.len());
}

/// The receivers of the page, in Python and in Node, on a webhook of a real server; and openssl.
#[tokio::test]
async fn a_webhook_signature_is_verified_by_the_documented_code_and_by_openssl() {
    let receiver = WebhookReceiver::start().await;
    let url = receiver.url();
    let settings = [("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true")];
    let server = RestartableServer::start(&settings).await;
    let _alice = server.join("alice", &[]).await;
    receiver.wait_for_events("den", &["room.opened", "member.joined alice"]).await;
    let delivered = receiver.delivered()[1].clone();
    let header = |name: &str| delivered.headers[name].to_str().unwrap().to_owned();
    let (id, time) = (header("webhook-id"), header("webhook-timestamp"));
    let secret = printed_secret(&[("SECRET_KEY", "own-key-of-the-server-0123456789abcdef")]).await;
    let body = std::str::from_utf8(&delivered.body).unwrap();

    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mac = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{hex}"), "-binary"];
    let signed = piped("openssl", &mac, &format!("{id}.{time}.{body}")).await;
    assert_eq!(header("webhook-signature"), format!("v1,{}", BASE64_STANDARD.encode(signed)));

    let [python] = blocks("python")[..] else { panic!("one block of Python") };
    let python = format!(
        "{python}\nimport json, sys\nit = json.load(sys.stdin)\nprint(is_genuine(it['secret'], it['headers'], it['body'].encode()))"
    );
    let [node] = blocks("js")[..] else { panic!("one block of JavaScript") };
    let node = format!(
        "{node}\nlet text = '';\nfor await (const part of process.stdin) text += part;\nconst it = JSON.parse(text);\nconsole.log(isGenuine(it.secret, it.headers, it.body));"
    );
    let headers = json!({"webhook-id":id,"webhook-timestamp":time,"webhook-signature":header("webhook-signature")});
    let rotated = format!("v1,AAAA {}", header("webhook-signature"));
    let old = (time.parse::<u64>().unwrap() - 600).to_string();
    let with = |name: &str, value: &str| {
        let mut headers = headers.clone();
        headers[name] = json!(value);
        headers
    };
    for (headers, body, is_genuine) in [
        (headers.clone(), body.to_owned(), true),
        (with("webhook-signature", &rotated), body.to_owned(), true),
        (headers.clone(), body.replace("alice", "mallory"), false),
        (with("webhook-id", "another"), body.to_owned(), false),
        (with("webhook-timestamp", &old), body.to_owned(), false),
        (with("webhook-timestamp", "soon"), body.to_owned(), false),
        (with("webhook-signature", "v1,"), body.to_owned(), false),
        (with("webhook-signature", ""), body.to_owned(), false),
    ] {
        let typed = json!({"secret":secret,"headers":headers,"body":body}).to_string();
        let by_python = piped("/usr/bin/python3", &["-c", &python], &typed).await;
        let by_node = piped("node", &["--input-type=module", "-e", &node], &typed).await;
        let said = [by_python, by_node].map(|said| String::from_utf8(said).unwrap().to_lowercase());
        assert_eq!(said, [format!("{is_genuine}\n"), format!("{is_genuine}\n")], "{headers}");
    }
}

async fn printed_secret(settings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signaling-server"));
    command.arg("webhook-secret").env_clear().env("DEBUG", "true").envs(settings.iter().copied());
    let output = command.current_dir(folder.path()).output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What a program says to what is typed into it.
async fn piped(program: &str, arguments: &[&str], typed: &str) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    running.stdin.take().unwrap().write_all(typed.as_bytes()).await.unwrap();
    let output =
        timeout(TEST_TIMEOUT, running.wait_with_output()).await.expect("it hangs").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn webhooks_report_a_leave_only_for_members_that_do_not_resume() {
    let receiver = WebhookReceiver::start().await;
    let url = receiver.url();
    let mut settings = vec![("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true")];
    settings.push(("RESUME_WINDOW_SECONDS", "2"));
    let server = RestartableServer::start(&settings).await;
    let mut alice = server.join("alice", RESUME).await;
    let mut bob = server.join("bob", RESUME).await;

    alice.drop_connection().await;
    alice.resume(server.address()).await;
    bob.drop_connection().await;

    let so_far = ["room.opened", "member.joined alice", "member.joined bob"];
    receiver
        .wait_for_events("den", &[&so_far[..], &["member.left bob resume_timeout"]].concat())
        .await;
}

/// Who resumes has not left, and the numbers go on; who does not has left, and that is told before the end.
#[tokio::test]
async fn webhook_numbers_continue_after_a_restart_without_events_for_members_that_resume() {
    let receiver = WebhookReceiver::start().await;
    let url = receiver.url();
    let settings = [("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true")];
    let mut server = RestartableServer::start(&settings).await;
    let mut alice = server.join("alice", RESUME).await;
    let _bob = server.join("bob", &[]).await;

    assert_eq!(server.stop().await, [] as [String; 0]);
    let before = ["room.opened", "member.joined alice", "member.joined bob"];
    let before = [&before[..], &["member.left bob server_restarting"]].concat();
    receiver.wait_for_events("den", &before).await;
    server.restart().await;
    alice.resume(server.address()).await;
    let _carol = server.join("carol", &[]).await;

    receiver.wait_for_events("den", &[&before[..], &["member.joined carol"]].concat()).await;
}

#[tokio::test]
async fn a_webhook_receiver_that_hangs_delays_no_member() {
    let receiver = WebhookReceiver::start_hanging().await;
    let server = server_that_tells(&receiver).await;
    let (mut alice, _) = server.join_as("den", "alice", json!("a")).await;

    for _ in 0..100 {
        let bob = server.join("den", "bob").await;
        alice.receive_type("user_joined").await;
        bob.leave().await;
        alice.receive_type("user_left").await;
        alice.assert_no_more_messages().await;
    }
    let figures = &server.app.metrics.webhooks;

    eventually("the first arrives", async || !receiver.events().is_empty()).await;
    assert_eq!((figures.delivered.get(), figures.queued.get(), figures.dropped.get()), (0, 202, 0));
}

/// Eight members report without end, and the receiver takes 20 ms for each event.
#[tokio::test]
async fn webhooks_of_a_quiet_room_do_not_wait_behind_those_of_a_busy_one() {
    let receiver = WebhookReceiver::start_slow(Duration::from_millis(20)).await;
    let server = server_with(&receiver, &[("JOINS_PER_MINUTE", "0")]).await;
    let mut members = Vec::new();
    for number in 0..8 {
        members.push(server.join_as("busy", "alice", json!(format!("a-{number}"))).await.0);
    }
    for member in &mut members {
        for _ in 0..150 {
            member.send(json!({"type":"call_report","outcome":"failed","ms":1})).await;
        }
    }
    let metrics = &server.app.metrics.webhooks;
    eventually("many events wait", async || metrics.queued.get() > 400).await;

    let (_bob, _) = server.join_as("quiet", "bob", json!("b")).await;
    let before = receiver.events().len();

    receiver.wait_for_events("quiet", &["room.opened", "member.joined b"]).await;
    assert!(metrics.queued.get() > 100, "the busy room has most still before it");
    let arrived = receiver.events();
    let mut quiet = arrived.iter().enumerate().filter(|(_, event)| event["room_id"] == "quiet");
    let (opened, joined) = (quiet.next().unwrap().0, quiet.next().unwrap().0);
    assert!(opened < before + 2 && joined < before + 4, "{opened}, {joined} after {before}");
}

/// Ten at once where an account joins twice a minute. No client is told: a report has no answer.
#[tokio::test]
async fn calls_that_an_account_reports_too_often_are_ignored_and_others_notice_nothing() {
    let receiver = WebhookReceiver::start().await;
    let server = server_with(&receiver, &[("JOINS_PER_MINUTE", "2")]).await;
    let (mut alice, _) = server.join_as("den", "alice", json!("a")).await;
    let (mut bob, _) = server.join_as("den", "bob", json!("b")).await;
    alice.receive_type("user_joined").await;

    let report = json!({"type":"call_report","outcome":"failed","ms":1});
    for _ in 0..200 {
        alice.send(report.clone()).await;
    }
    alice.assert_no_more_messages().await;
    bob.send(report).await;
    bob.assert_no_more_messages().await;
    bob.leave().await;

    let of = |who: &str, events: &[(u64, String)]| {
        let report = format!("call.report {who} failed");
        events.iter().filter(|(_, event)| *event == report).count()
    };
    eventually("bob's leave arrives", async || {
        receiver.room_events("den").iter().any(|(_, event)| event == "member.left b left")
    })
    .await;
    let events = receiver.room_events("den");
    assert!((10..100).contains(&of("a", &events)), "{events:?}");
    assert_eq!(of("b", &events), 1, "{events:?}");
    let numbers = events.iter().map(|(number, _)| *number);
    assert!(numbers.eq(1..=events.len() as u64), "what is ignored has no number: {events:?}");
}

#[tokio::test]
async fn webhook_deliveries_are_counted() {
    let receiver = WebhookReceiver::start().await;
    let token = "figures-of-webhooks-0123456789abcdef";
    let server = server_with(&receiver, &[("METRICS_TOKEN", token)]).await;

    server.join_as("den", "alice", json!("a")).await.0.leave().await;
    receiver
        .wait_for_events(
            "den",
            &["room.opened", "member.joined a", "member.left a left", "room.closed"],
        )
        .await;

    // The receiver has it before the server knows.
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let text = server.get("/metrics").await;
        assert_eq!(text.status(), 401);
        let asked = server.request(reqwest::Method::GET, "/metrics").bearer_auth(token);
        let text = asked.send().await.unwrap().text().await.unwrap();
        let figures = text.lines().filter_map(|line| line.strip_prefix("signaling_webhooks_"));
        let figures: Vec<_> = figures.collect();
        if figures.contains(&"delivered_total 4") {
            for figure in ["failed_total 0", "retried_total 0", "dropped_total 0", "queued 0"] {
                assert!(figures.contains(&figure), "{figures:?}");
            }
            break;
        }
        assert!(Instant::now() < deadline, "{figures:?}");
    }
}

#[tokio::test]
async fn the_certificate_of_a_webhook_receiver_is_verified() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let receiver = WebhookReceiver::start_tls(Arc::new(config).into()).await;
    let port = receiver.address.port();
    let url = format!("https://localhost:{port}/hooks");
    let settings = [("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true")];

    let mut wary = RestartableServer::start(&settings).await;
    let _alice = wary.join("alice", &[]).await;
    let said = wary.process.log.next_line_with("webhook delivery failed").await;
    assert!(said.contains("no TLS") && said.contains(&format!("localhost:{port}")), "{said}");
    assert!(!said.contains("/hooks"), "{said}");
    assert_eq!(receiver.events(), [] as [Value; 0]);

    let trusts = [&settings[..], &[("SSL_CERT_FILE", authority.to_str().unwrap())]].concat();
    let trusting = RestartableServer::start(&trusts).await;
    let _alice = trusting.join("alice", &[]).await;
    receiver.wait_for_events("den", &["room.opened", "member.joined alice"]).await;
}

#[tokio::test]
async fn the_webhook_secret_is_printed_and_is_not_the_secret_key() {
    let own = SecretString::from("own-key-of-the-server-0123456789abcdef");
    let printed = printed_secret(&[("SECRET_KEY", own.expose_secret())]).await;

    let mac = ["dgst", "-sha256", "-hmac", own.expose_secret(), "-binary"];
    let made = piped("openssl", &mac, "webhooks").await;
    assert_eq!(printed, format!("whsec_{}", BASE64_STANDARD.encode(made)));
}
