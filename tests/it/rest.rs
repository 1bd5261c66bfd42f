//! REST, as curl sees it (contract section 1).

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};

use crate::harness::{PASSWORD, TEST_TIMEOUT, TestServer};

pub async fn parts(response: Response) -> (u16, HeaderMap, Value) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn the_root_page_reports_that_the_server_runs() {
    let server = TestServer::start(&[]).await;

    let (status, _, body) = parts(server.get("/").await).await;

    assert_eq!((status, body), (200, json!({"message":"WebRTC Signaling Server is running"})));
}

#[tokio::test]
async fn metrics_count_messages_and_name_no_user() {
    let server = TestServer::start(&[("METRICS_TOKEN", "a-token-for-figures")]).await;
    let figures = async || {
        let request = server.request(Method::GET, "/metrics").bearer_auth("a-token-for-figures");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };
    let (mut alice, mut bob) = super::harness::join_pair(&server, "secret-room").await;

    alice.send(json!({"type":"offer","offer":{"sdp":"v=0"}})).await;
    assert_eq!(bob.receive().await["type"], "offer");
    bob.send(json!({"type":"answer","answer":{},"to":"nobody-here"})).await;
    assert_eq!(bob.receive().await["code"], "target_not_found");
    bob.leave().await;
    assert_eq!(alice.receive().await["type"], "user_left");

    let text = figures().await;
    for line in [
        "signaling_messages_total{type=\"offer\",outcome=\"done\"} 1",
        "signaling_messages_total{type=\"answer\",outcome=\"refused\"} 1",
        "signaling_joins_total 2",
        "signaling_session_ends_total{reason=\"left\",was_member=\"true\"} 1",
        "signaling_members 1",
        "signaling_rooms 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    assert!(!["alice", "bob", "secret-room"].iter().any(|name| text.contains(name)), "{text}");
    // The frame is counted once it is written, which its reader may see before.
    let counted =
        async { while !figures().await.contains("signaling_routing_seconds_count 1\n") {} };
    tokio::time::timeout(TEST_TIMEOUT, counted).await.expect("never counted");

    assert_eq!(server.get("/metrics").await.status(), 401);
    assert_eq!(TestServer::start(&[]).await.get("/metrics").await.status(), 404);
}

#[tokio::test]
async fn call_reports_and_resumes_are_counted() {
    let server = TestServer::start(&[("METRICS_TOKEN", "a-token-for-figures")]).await;
    let mut alice = server.join("den", "alice").await;
    for report in [
        json!({"type":"call_report","peer":"b","outcome":"connected","ms":750,"path":"relay"}),
        json!({"type":"call_report","peer":"b","outcome":"connected","ms":250}),
        // More than an hour is taken for an hour: a client cannot make the sum useless.
        json!({"type":"call_report","peer":"b","outcome":"connected","ms":u64::MAX}),
        json!({"type":"call_report","peer":"b","outcome":"failed","ms":30_000,"path":null}),
    ] {
        alice.send(report).await;
    }
    for wrong in [
        json!({"type":"call_report","outcome":"lovely","ms":1}),
        json!({"type":"call_report","outcome":"failed","ms":-1}),
        json!({"type":"call_report","outcome":"failed","ms":1,"path":"carrier pigeon"}),
    ] {
        assert_eq!(alice.error_after(&wrong.to_string()).await["code"], "invalid_message");
    }
    let mut unauthenticated = server.connect("den").await;
    unauthenticated.receive().await;
    unauthenticated.send(json!({"type":"resume","resume_token":"nonsense","last_seq":0})).await;
    assert_eq!(unauthenticated.receive().await["code"], "resume_failed");

    let request = server.request(Method::GET, "/metrics").bearer_auth("a-token-for-figures");
    let text = request.send().await.unwrap().text().await.unwrap();

    for line in [
        "signaling_calls_total{outcome=\"connected\",path=\"relay\"} 1",
        "signaling_calls_total{outcome=\"connected\",path=\"unknown\"} 2",
        "signaling_calls_total{outcome=\"failed\",path=\"unknown\"} 1",
        "signaling_call_setup_seconds_sum 3601.0",
        "signaling_call_setup_seconds_count 3",
        "signaling_resumes_total{result=\"refused\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn health_counts_members_and_rooms() {
    let server = TestServer::start(&[]).await;
    let (_alice, _bob, _carol) = (
        server.join("den", "alice").await,
        server.join("den", "bob").await,
        server.join("attic", "carol").await,
    );

    let (status, _, body) = parts(server.get("/health").await).await;

    assert_eq!(
        (status, &body["status"], &body["active_connections"], &body["rooms"]),
        (200, &json!("healthy"), &json!(3), &json!(2))
    );
    assert!(body["version"].is_string() && body["uptime_seconds"].is_u64());
}

#[tokio::test]
async fn rooms_are_listed_and_described() {
    let server = TestServer::start(&[]).await;
    let _members = (
        server.join("b%20b", "alice").await,
        server.join("a", "bob").await,
        server.join("a", "carol").await,
    );

    let (_, _, list) = parts(server.get("/api/rooms").await).await;
    let (_, _, by_post) =
        parts(server.request(Method::POST, "/api/rooms/b%20b/info").send().await.unwrap()).await;
    let (_, _, by_get) = parts(server.get("/api/rooms/b%20b/info/").await).await;
    let (status, _, missing) =
        parts(server.request(Method::POST, "/api/rooms/c/info").send().await.unwrap()).await;

    let (a, b) = (
        json!({"room_id":"a","connected_users":2,"is_active":true}),
        json!({"room_id":"b b","connected_users":1,"is_active":true}),
    );
    assert_eq!(list, json!([a, b]));
    assert_eq!((by_post, by_get), (b.clone(), b));
    assert_eq!((status, missing), (404, json!({"detail":"Room not found"})));
}

/// E15.
#[tokio::test]
async fn a_login_returns_a_token_that_every_route_accepts() {
    let server = TestServer::start(&[]).await;

    let (status, headers, body) = parts(server.log_in("alice", PASSWORD).await).await;
    let token = body["access_token"].as_str().unwrap();
    let me = server.request(Method::GET, "/auth/me").bearer_auth(token).send().await.unwrap();

    assert_eq!(
        (status, &body["token_type"], &body["expires_in"]),
        (200, &json!("bearer"), &json!(1800))
    );
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(
        parts(me).await.2,
        json!({"username":"alice","email":"alice@example.com","is_active":true})
    );
}

/// E15, E16.
#[tokio::test]
async fn oauth2_clients_log_in_with_either_kind_of_form() {
    let server = TestServer::start(&[]).await;
    let urlencoded = [("grant_type", "password"), ("username", "alice"), ("password", PASSWORD)];
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nalice\r\n--b\r\n\
        Content-Disposition: form-data; name=\"password\"\r\n\r\ncorrect horse\r\n--b--\r\n";

    let one = server.request(Method::POST, "/auth/token").form(&urlencoded).send().await.unwrap();
    let two =
        server.request(Method::POST, "/auth/token").form(&urlencoded[1..]).send().await.unwrap();
    let three = server
        .request(Method::POST, "/auth/token")
        .header("content-type", "multipart/form-data; boundary=b");
    let three = three.body(multipart).send().await.unwrap();

    for response in [one, two, three] {
        let (status, headers, body) = parts(response).await;
        assert_eq!(
            (status, &body["token_type"], &headers["cache-control"]),
            (200, &json!("bearer"), &"no-store".parse().unwrap()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn all_failed_logins_get_the_same_response() {
    let server = TestServer::start(&[]).await;
    let detail = json!({"detail":"Incorrect username or password"});

    for (username, password) in [
        ("alice", "wrong"),
        ("nobody", PASSWORD),
        ("ALICE", PASSWORD),
        ("alice", ""),
        ("alice", "correct horse\0"),
        ("alice\0", PASSWORD),
    ] {
        let (status, headers, body) = parts(server.log_in(username, password).await).await;

        assert_eq!(
            (status, body, &headers["www-authenticate"]),
            (401, detail.clone(), &"Bearer".parse().unwrap()),
            "{username}"
        );
    }
    let form = server
        .request(Method::POST, "/auth/token")
        .form(&[("username", "alice"), ("password", "wrong")]);
    let (status, headers, body) = parts(form.send().await.unwrap()).await;
    assert_eq!(
        (status, body),
        (401, json!({"detail":"Incorrect username or password","error":"invalid_grant"}))
    );
    assert_eq!(headers["www-authenticate"], "Bearer");
}

/// E01, E05.
#[tokio::test]
async fn a_body_with_missing_fields_is_rejected_in_fastapis_format() {
    let server = TestServer::start(&[]).await;
    let missing =
        |field: &str| json!({"type":"missing","loc":["body",field],"msg":"Field required"});
    let no_string = |field: &str| json!({"type":"string_type","loc":["body",field],"msg":"Input should be a valid string"});

    for (body, faults) in [
        (r#"{"username":"alice"}"#, json!([missing("password")])),
        ("{}", json!([missing("username"), missing("password")])),
        (
            r#"{"username":1,"password":{"a":"hunter2"}}"#,
            json!([no_string("username"), no_string("password")]),
        ),
        ("", json!([{"type":"missing","loc":["body"],"msg":"Field required"}])),
        (
            "[]",
            json!([{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from"}]),
        ),
        (
            r#"{"username": hunter2}"#,
            json!([{"type":"json_invalid","loc":["body",13],"msg":"JSON decode error"}]),
        ),
    ] {
        let request = server
            .request(Method::POST, "/auth/login")
            .header("content-type", "application/json")
            .body(body);

        let (status, _, answer) = parts(request.send().await.unwrap()).await;

        assert_eq!((status, &answer["detail"]), (422, &faults), "{body}");
        assert!(!answer.to_string().contains("hunter2"));
    }
    let form = server.request(Method::POST, "/auth/token").form(&[
        ("grant_type", "code"),
        ("username", "alice"),
        ("password", ""),
    ]);
    let (status, _, answer) = parts(form.send().await.unwrap()).await;
    let pattern = json!({"type":"string_pattern_mismatch","loc":["body","grant_type"],"msg":"String should match pattern 'password'"});
    assert_eq!((status, &answer["detail"]), (422, &json!([pattern, missing("password")])));
}

/// E02, E03.
#[tokio::test]
async fn bodies_of_the_wrong_size_or_type_are_rejected() {
    let server = TestServer::start(&[]).await;
    let large = "x".repeat(65_537);

    let declared = server
        .request(Method::POST, "/auth/login")
        .header("content-type", "application/json")
        .body(large.clone());
    let chunks = futures_util::stream::iter(
        large
            .as_bytes()
            .chunks(1000)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let chunked = server
        .request(Method::POST, "/auth/login")
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(chunks));
    let elsewhere = server.request(Method::POST, "/auth/logout").body(large);
    let as_text =
        server.request(Method::POST, "/auth/login").header("content-type", "text/plain").body("{}");
    let as_json = server
        .request(Method::POST, "/auth/token")
        .json(&json!({"username":"alice","password":PASSWORD}));
    let unnamed = server
        .request(Method::POST, "/auth/login")
        .body(json!({"username":"alice","password":PASSWORD}).to_string());

    for (request, status) in [
        (declared, 413),
        (chunked, 413),
        (elsewhere, 413),
        (as_text, 415),
        (as_json, 415),
        (unnamed, 200),
    ] {
        let (answered, _, body) = parts(request.send().await.unwrap()).await;

        assert_eq!(answered, status);
        assert!(body["detail"].is_string() || status == 200, "{body}");
    }
}

/// E18, J13, T02.
#[tokio::test]
async fn a_bearer_token_is_required_and_verified() {
    let server = TestServer::start(&[]).await;
    let token = server.token("alice");
    let unknown = server.token("nobody");
    for (path, method) in [
        ("/auth/me", Method::GET),
        ("/auth/refresh", Method::POST),
        ("/auth/turn-credentials", Method::GET),
        ("/auth/ice-servers", Method::GET),
    ] {
        for (header, detail) in [
            ("", "Not authenticated"),
            ("Basic YWxpY2U6eA==", "Not authenticated"),
            ("Bearer", "Not authenticated"),
            ("Bearer x.y.z", "Could not validate credentials"),
            (&format!("Bearer {unknown}"), "Could not validate credentials"),
            (&format!("Bearer {token} {token}"), "Could not validate credentials"),
        ] {
            let mut request = server.request(method.clone(), path);
            if !header.is_empty() {
                request = request.header("authorization", header);
            }
            let (status, headers, body) = parts(request.send().await.unwrap()).await;

            assert_eq!(
                (status, body, &headers["www-authenticate"]),
                (401, json!({"detail":detail}), &"Bearer".parse().unwrap()),
                "{path}"
            );
        }
    }
    let spelled =
        server.request(Method::GET, "/auth/me").header("authorization", format!("bEaReR {token}"));
    assert_eq!(spelled.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_refresh_returns_another_token_and_the_old_one_stays_valid() {
    let server = TestServer::start(&[]).await;
    let old = server.token("alice");

    let (status, headers, body) = parts(
        server.request(Method::POST, "/auth/refresh").bearer_auth(&old).send().await.unwrap(),
    )
    .await;

    assert_eq!((status, &headers["cache-control"]), (200, &"no-store".parse().unwrap()));
    let new = body["access_token"].as_str().unwrap();
    assert_ne!(new, old);
    for token in [&old, new] {
        assert_eq!(
            server
                .request(Method::GET, "/auth/me")
                .bearer_auth(token)
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
}

#[tokio::test]
async fn a_logout_revokes_the_token_and_closes_its_sockets() {
    let server = TestServer::start(&[]).await;
    let mut bob = server.join("den", "bob").await;
    let (gone, stays) = (server.token("alice"), server.token("alice"));
    let mut sockets = Vec::new();
    for token in [&gone, &stays] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token})).await;
        assert_eq!(client.receive().await["type"], "auth_success");
        client.receive().await;
        bob.receive().await;
        sockets.push(client);
    }

    let (status, _, body) = parts(
        server.request(Method::POST, "/auth/logout").bearer_auth(&gone).send().await.unwrap(),
    )
    .await;

    assert_eq!((status, body), (200, json!({"message":"Successfully logged out"})));
    let me = |token: &str| server.request(Method::GET, "/auth/me").bearer_auth(token).send();
    assert_eq!(
        (me(&gone).await.unwrap().status().as_u16(), me(&stays).await.unwrap().status().as_u16()),
        (401, 200)
    );
    let (before, close) = sockets.remove(0).read_to_close().await;
    assert_eq!(close, (1008, "Invalid token".into()));
    assert_eq!(before.last().unwrap()["retry"], false);
    assert_eq!(bob.receive().await["type"], "user_left");
    sockets.remove(0).hears_nothing_else_but("user_left").await;
    let mut again = server.connect("den").await;
    again.receive().await;
    again.send(json!({"type":"auth_token","token":gone})).await;
    assert_eq!(again.rejection().await, (1008, "Invalid token".into()));
}

impl super::harness::Client {
    async fn hears_nothing_else_but(&mut self, kind: &str) {
        while self.receive().await["type"] != kind {}
        self.assert_no_more_messages().await;
    }
}

/// E20.
#[tokio::test]
async fn a_logout_without_a_valid_token_succeeds() {
    let server = TestServer::start(&[]).await;

    for header in [None, Some("Bearer nonsense"), Some("Basic x")] {
        let mut request = server.request(Method::POST, "/auth/logout");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

/// T01.
#[tokio::test]
async fn turn_credentials_are_the_hmac_of_an_expiry_and_a_name() {
    let server = TestServer::start(&[
        ("TURNSERVER_SECRET", "north"),
        ("TURNSERVER_URLS", r#"["turn:turn.example.com:3478","turns:turn.example.com:5349"]"#),
        ("TURNSERVER_TTL", "600"),
        ("STUNSERVER_URLS", "stun:stun.example.com"),
    ])
    .await;

    let (status, headers, body) =
        parts(server.get_as("alice", "/auth/turn-credentials").await).await;
    let (_, ice_headers, ice) = parts(server.get_as("alice", "/auth/ice-servers").await).await;

    assert_eq!(
        (status, &headers["cache-control"], &ice_headers["cache-control"]),
        (200, &"no-store".parse().unwrap(), &"no-store".parse().unwrap())
    );
    let username = body["username"].as_str().unwrap();
    let (expiry, name) = username.split_once(':').unwrap();
    let left = expiry.parse::<u64>().unwrap() - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(name == "alice" && (590..=600).contains(&left), "{username}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"north");
    assert_eq!(body["credential"], BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes())));
    assert_eq!(
        (&body["urls"], &body["ttl"]),
        (&json!(["turn:turn.example.com:3478", "turns:turn.example.com:5349"]), &json!(600))
    );
    assert_eq!(
        (&ice["iceServers"][0], &ice["ttl"]),
        (&json!({"urls":["stun:stun.example.com"]}), &json!(600))
    );
    assert_eq!(ice["iceServers"][1]["urls"], body["urls"]);
    assert!(
        ice["iceServers"][1]["username"].is_string()
            && ice["iceServers"][1]["credential"].is_string()
    );
}

/// O12.
#[tokio::test]
async fn without_turn_settings_the_turn_routes_say_so() {
    for (settings, detail) in [
        (&[][..], "TURN server not configured"),
        (&[("TURNSERVER_URLS", "turn:a")], "TURN server not configured"),
        (&[("TURNSERVER_SECRET", "s")], "TURN server URLs not configured"),
    ] {
        let server = TestServer::start(settings).await;

        let (status, headers, body) =
            parts(server.get_as("alice", "/auth/turn-credentials").await).await;
        let (_, _, ice) = parts(server.get_as("alice", "/auth/ice-servers").await).await;

        assert_eq!((status, body), (503, json!({"detail":detail})));
        assert!(headers.contains_key("retry-after"));
        assert_eq!(ice["iceServers"], json!([]));
    }
}

/// E13, E14.
#[tokio::test]
async fn every_response_has_a_request_id_and_every_error_is_json() {
    let server = TestServer::start(&[]).await;
    let mut ids = std::collections::HashSet::new();

    for (method, path, status) in [
        (Method::GET, "/", 200),
        (Method::HEAD, "/health", 200),
        (Method::GET, "/nope", 404),
        (Method::GET, "/metrics", 404),
        (Method::DELETE, "/auth/login", 405),
        (Method::TRACE, "/", 405),
        (Method::GET, "/api/rooms/%FF/info", 404),
        (Method::POST, "/auth/login", 422),
    ] {
        let (answered, headers, body) =
            parts(server.request(method.clone(), path).send().await.unwrap()).await;

        assert_eq!(answered, status, "{method} {path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "strict-origin-when-cross-origin");
        assert!(
            headers.contains_key("content-security-policy")
                && !headers.contains_key("strict-transport-security")
        );
        assert!(ids.insert(headers["x-request-id"].clone()), "the same id twice");
        assert!(body.is_object() || method == Method::HEAD, "{method} {path}: {body}");
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
}

/// E17.
#[tokio::test]
async fn a_trailing_slash_makes_no_difference_and_causes_no_redirect() {
    let server = TestServer::start(&[]).await;

    let health = server
        .request(Method::GET, "/health/")
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();

    assert_eq!(health.status(), 200);
}

/// A page takes the client from the server that it talks to, and asks only whether it is still the same.
#[tokio::test]
async fn the_javascript_client_is_served_and_cached() {
    let server = TestServer::start(&[]).await;
    for (path, media_type) in [
        ("/client/signaling.js", "text/javascript; charset=utf-8"),
        ("/client/signaling.js.map", "application/json"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], media_type);
        assert_eq!(answer.headers()["cache-control"], "public, max-age=3600");
        let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
        assert!(answer.text().await.unwrap().len() > 1_000);

        for (known, status) in
            [(etag.clone(), 304), (format!("\"x\", W/{etag}"), 304), ("\"x\"".into(), 200)]
        {
            let request = server.request(Method::GET, path).header("if-none-match", known);
            assert_eq!(request.send().await.unwrap().status(), status);
        }
    }
    assert_eq!(server.get("/client/other.js").await.status(), 404);
}
