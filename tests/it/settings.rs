//! Each setting, by what it changes (contract section 3). What stops the start is in `config`'s own
//! tests; HOST, PORT, LOG_LEVEL and LOG_FORMAT need a process and are in `process`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{Client, PASSWORD, TestServer};

async fn status_of(server: &TestServer, path: &str) -> u16 {
    server.get(path).await.status().as_u16()
}

#[tokio::test]
async fn debug_serves_api_docs_and_examples() {
    for (debug, docs, pages) in [
        ("true", "", (200, 200)),
        ("true", "false", (404, 200)),
        ("false", "", (404, 404)),
        ("false", "true", (200, 404)),
    ] {
        let keys = ["a", "b"].map(|key| key.repeat(32));
        let server = TestServer::start(&[
            ("DEBUG", debug),
            ("API_DOCS", docs),
            ("SECRET_KEY", &keys[0]),
            ("JWT_SECRET_KEY", &keys[1]),
        ])
        .await;

        for path in ["/docs", "/redoc", "/openapi.json", "/docs/swagger-ui-bundle.js"] {
            assert_eq!(status_of(&server, path).await, pages.0, "{path}");
        }
        for path in ["/examples/", "/examples/secure_client.html"] {
            assert_eq!(status_of(&server, path).await, pages.1, "{path}");
        }
    }
}

/// O11.
#[tokio::test]
async fn require_https_redirects_reads_and_rejects_other_requests() {
    let server = TestServer::start(&[("REQUIRE_HTTPS", "true")]).await;
    let by_proxy =
        |method, path: &str| server.request(method, path).header("x-forwarded-proto", "https");

    let in_the_clear =
        |method, path: &str| server.request(method, path).header("x-forwarded-proto", "http");

    let page = in_the_clear(Method::GET, "/api/rooms?a=1")
        .header("host", "signaling.example.com:8000")
        .send()
        .await
        .unwrap();
    let login = json!({"username":"alice","password":PASSWORD});
    let login = in_the_clear(Method::POST, "/auth/login").json(&login).send().await.unwrap();
    let secure = by_proxy(Method::GET, "/").send().await.unwrap();

    assert_eq!(
        (page.status().as_u16(), &page.headers()["location"]),
        (308, &"https://signaling.example.com/api/rooms?a=1".parse().unwrap())
    );
    assert_eq!(login.status(), 403);
    assert_eq!(login.json::<Value>().await.unwrap(), json!({"detail":"HTTPS required"}));
    assert_eq!(
        (status_of(&server, "/health").await, status_of(&server, "/metrics").await),
        (200, 404),
        "for monitors"
    );
    assert_eq!(secure.status(), 200);
    assert!(secure.headers().contains_key("strict-transport-security"));
    assert_eq!(server.upgrade_status("den", &[]).await, 403);
    server.connect_with("den", &[("x-forwarded-proto", "https")]).await.unwrap().receive().await;
}

#[tokio::test]
async fn forwarded_headers_of_an_untrusted_proxy_are_ignored() {
    let server =
        TestServer::start(&[("REQUIRE_HTTPS", "true"), ("TRUSTED_PROXIES", "10.0.0.0/8")]).await;
    let claims = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(server.upgrade_status("den", &claims).await, 403);
}

#[tokio::test]
async fn tokens_are_signed_with_the_jwt_key_of_the_settings() {
    let server = TestServer::start(&[("JWT_SECRET_KEY", "some key or other")]).await;
    let signed = [r#"{"alg":"HS256"}"#, r#"{"sub":"alice","exp":4102444800}"#]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
        .join(".");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"some key or other");
    let token = format!(
        "{signed}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()))
    );

    let me = server.request(Method::GET, "/auth/me").bearer_auth(&token).send().await.unwrap();

    assert_eq!(me.status(), 200);
}

#[tokio::test]
async fn tokens_expire_as_set() {
    let server = TestServer::start(&[("ACCESS_TOKEN_EXPIRE_MINUTES", "7")]).await;

    let body: Value = server.log_in("alice", PASSWORD).await.json().await.unwrap();

    assert_eq!(body["expires_in"], 420);
    let claims = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 420);
    assert!(claims["sub"] == "alice" && claims["jti"].is_string() && claims["iss"].is_string());
}

async fn with_origin(server: &TestServer, origin: &str) -> Response {
    server.request(Method::GET, "/health").header("origin", origin).send().await.unwrap()
}

async fn preflight(server: &TestServer, origin: &str) -> HeaderMap {
    let request = server.request(Method::OPTIONS, "/auth/login").header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    request.send().await.unwrap().headers().clone()
}

/// P01.
#[tokio::test]
async fn any_origin_is_mirrored_where_credentials_are_allowed() {
    let server = TestServer::start(&[]).await;

    for origin in ["https://app.example.com", "null"] {
        for headers in
            [with_origin(&server, origin).await.headers().clone(), preflight(&server, origin).await]
        {
            assert_eq!(
                (
                    &headers["access-control-allow-origin"],
                    &headers["access-control-allow-credentials"]
                ),
                (&origin.parse().unwrap(), &"true".parse().unwrap())
            );
            assert!(
                headers
                    .get_all("vary")
                    .iter()
                    .any(|vary| vary.to_str().unwrap().contains("origin"))
            );
        }
        let asked = preflight(&server, origin).await;
        assert_eq!(asked["access-control-allow-headers"], "authorization,content-type");
        assert!(asked["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        server.connect_with("den", &[("origin", origin)]).await.unwrap().receive().await;
    }
}

#[tokio::test]
async fn any_origin_is_a_wildcard_where_credentials_are_not_allowed() {
    let server = TestServer::start(&[("CORS_ALLOW_CREDENTIALS", "false")]).await;

    let headers = with_origin(&server, "https://app.example.com").await.headers().clone();

    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

/// P02, P03.
#[tokio::test]
async fn only_listed_origins_may_read_responses_and_connect() {
    let server = TestServer::start(&[("CORS_ORIGINS", r#"["https://app.example.com"]"#)]).await;

    assert_eq!(
        with_origin(&server, "https://app.example.com").await.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
    server
        .connect_with("den", &[("origin", "https://app.example.com")])
        .await
        .unwrap()
        .receive()
        .await;
    server.connect("den").await.receive().await; // a native client says no origin
    for foreign in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "null",
        "é",
    ] {
        assert!(
            !with_origin(&server, foreign)
                .await
                .headers()
                .contains_key("access-control-allow-origin"),
            "{foreign}"
        );
        assert!(
            !preflight(&server, foreign).await.contains_key("access-control-allow-origin"),
            "{foreign}"
        );
        assert_eq!(server.upgrade_status("den", &[("origin", foreign)]).await, 403, "{foreign}");
    }
    let error = server
        .request(Method::GET, "/auth/me")
        .header("origin", "https://app.example.com")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (error.status().as_u16(), &error.headers()["access-control-allow-origin"]),
        (401, &"https://app.example.com".parse().unwrap())
    );
}

async fn from(server: &TestServer, address: &str, path: &str) -> Response {
    server.request(Method::GET, path).header("x-forwarded-for", address).send().await.unwrap()
}

#[tokio::test]
async fn requests_are_limited_per_address_and_minute() {
    let server = TestServer::start(&[("RATE_LIMIT_PER_MINUTE", "3")]).await;

    let mut answers = Vec::new();
    for number in 0..4 {
        // Whatever the client writes to the left of its own address changes nothing.
        answers.push(from(&server, &format!("203.0.113.{number}, 192.0.2.1"), "/").await);
    }

    assert_eq!(
        answers.iter().map(|answer| answer.status().as_u16()).collect::<Vec<_>>(),
        [200, 200, 200, 429]
    );
    assert_eq!(answers[0].headers()["ratelimit-policy"], "\"default\";q=3;w=60");
    assert_eq!(answers[0].headers()["ratelimit"], "\"default\";r=2;t=20");
    let refused = answers.pop().unwrap();
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(
        refused.json::<Value>().await.unwrap(),
        json!({"detail":"Rate limit exceeded. Please try again later."})
    );
    assert_eq!(from(&server, "192.0.2.2", "/").await.status(), 200, "a neighbour");
    assert_eq!(from(&server, "192.0.2.1", "/health").await.status(), 200, "a monitor");
    server.connect_with("den", &[("x-forwarded-for", "192.0.2.1")]).await.unwrap().receive().await;
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_share_their_requests() {
    let server = TestServer::start(&[("RATE_LIMIT_PER_MINUTE", "1")]).await;

    let statuses = [
        from(&server, "2001:db8::1", "/").await.status().as_u16(),
        from(&server, "2001:db8::2:3", "/").await.status().as_u16(),
        from(&server, "2001:db8:0:1::1", "/").await.status().as_u16(),
    ];

    assert_eq!(statuses, [200, 429, 200]);
}

#[tokio::test]
async fn a_client_that_does_not_authenticate_in_time_is_closed() {
    let server = TestServer::start(&[("WEBSOCKET_TIMEOUT", "1")]).await;
    let began = Instant::now();
    let mut client = server.connect("den").await;
    client.receive().await;

    assert_eq!(client.rejection().await, (1008, "Authentication required".into()));
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
}

#[tokio::test]
async fn a_room_admits_as_many_members_as_set() {
    let server = TestServer::start(&[("MAX_CONNECTIONS_PER_ROOM", "2")]).await;
    let (mut alice, _bob) = super::harness::join_pair(&server, "den").await;

    let mut carol = server.connect("den").await;
    carol.receive().await;
    carol.send(json!({"type":"auth_token","token":server.token("carol")})).await;
    let (before, close) = carol.read_to_close().await;

    assert_eq!(close, (1008, "Room is full".into()));
    assert_eq!(
        (before.len(), &before[0]["type"], &before[0]["code"]),
        (1, &json!("error"), &json!("room_full"))
    );
    alice.assert_no_more_messages().await;
    server.join("attic", "carol").await;
}

#[tokio::test]
async fn connections_are_limited_per_address() {
    let server = TestServer::start(&[("MAX_CONNECTIONS_PER_IP", "2")]).await;
    let home = [("x-forwarded-for", "192.0.2.1")];
    let mut first = server.connect_with("den", &home).await.unwrap();
    let mut second = server.connect_with("den", &home).await.unwrap();
    first.receive().await;
    second.receive().await;

    let third = server.connect_with("den", &home).await.unwrap();
    let (before, close) = third.read_to_close().await;
    server.connect_with("den", &[("x-forwarded-for", "192.0.2.2")]).await.unwrap().receive().await;
    first.leave().await;

    assert_eq!(
        (before.len(), &before[0]["code"], close.0),
        (1, &json!("too_many_connections"), 1008)
    );
    server.connect_with("den", &home).await.unwrap().receive().await;
}

#[tokio::test]
async fn failed_logins_lock_a_name_for_an_address_before_any_hashing() {
    let server =
        TestServer::start(&[("AUTH_MAX_FAILURES", "2"), ("AUTH_LOCKOUT_SECONDS", "1000")]).await;
    let try_from = async |address: &str, username: &str, password: &str| {
        let request =
            server.request(Method::POST, "/auth/login").header("x-forwarded-for", address);
        request.json(&json!({"username":username,"password":password})).send().await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(try_from("192.0.2.1", "alice", "wrong").await.status(), 401);
    }

    let locked = try_from("192.0.2.1", "alice", PASSWORD).await;

    assert_eq!(locked.status(), 429);
    let wait: u64 = locked.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((990..=1000).contains(&wait));
    assert!(locked.json::<Value>().await.unwrap()["detail"].is_string());
    assert_eq!(try_from("192.0.2.1", "bob", PASSWORD).await.status(), 200, "a neighbour");
    assert_eq!(
        try_from("192.0.2.2", "alice", PASSWORD).await.status(),
        200,
        "the owner, elsewhere"
    );
    let form = server.request(Method::POST, "/auth/token").header("x-forwarded-for", "192.0.2.1");
    let form = form.form(&[("username", "alice"), ("password", PASSWORD)]).send().await.unwrap();
    assert_eq!(form.status(), 429);
    assert_eq!(form.json::<Value>().await.unwrap()["error"], "invalid_grant");
}

#[tokio::test]
async fn guesses_from_many_addresses_lock_the_name_for_all_addresses() {
    let server = TestServer::start(&[("AUTH_MAX_FAILURES", "1")]).await;
    let guess = async |number: u32, username: &str| {
        let request = server
            .request(Method::POST, "/auth/login")
            .header("x-forwarded-for", format!("198.51.100.{number}"));
        request
            .json(&json!({"username":username,"password":"guess"}))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };

    for number in 0..10 {
        assert_eq!(guess(number, "alice").await, 401);
    }

    assert_eq!((guess(200, "alice").await, guess(201, "bob").await), (429, 401));
}

#[tokio::test]
async fn only_allowed_rooms_can_be_joined() {
    let server = TestServer::start(&[("ALLOWED_ROOMS", r#"["den","the attic"]"#)]).await;

    server.join("den", "alice").await;
    server.join("the%20attic", "alice").await;
    let (before, close) = server.connect("cellar").await.read_to_close().await;

    assert_eq!(
        (before.len(), &before[0]["type"], &before[0]["code"], close.0),
        (1, &json!("error"), &json!("room_not_allowed"), 1008)
    );
}

async fn enter_as_guest(server: &TestServer, first: Value) -> (Client, Value) {
    let mut guest = server.connect("den").await;
    assert_eq!(
        guest.receive().await,
        json!({"type":"auth_required","message":"Authentication required","guests":true})
    );
    guest.send(first).await;
    let success = guest.receive().await;
    assert_eq!(success["type"], "auth_success", "{success}");
    assert_eq!(guest.receive().await["type"], "users_in_room");
    (guest, success)
}

#[tokio::test]
async fn guests_join_without_a_token_where_anonymous_access_is_allowed() {
    let turn = [
        ("ALLOW_ANONYMOUS", "true"),
        ("TURNSERVER_SECRET", "s"),
        ("TURNSERVER_URLS", "turn:a"),
        ("STUNSERVER_URLS", "stun:b"),
    ];
    let server = TestServer::start(&turn).await;
    let mut alice = server.join("den", "alice").await;

    let (mut polite, success) =
        enter_as_guest(&server, json!({"type":"auth_token","clientId":"g1"})).await;
    let (_null, _) = enter_as_guest(&server, json!({"type":"auth_token","token":null})).await;
    let (mut pinging, _) = enter_as_guest(&server, json!({"type":"ping"})).await;
    let (_offering, offerer) =
        enter_as_guest(&server, json!({"type":"offer","offer":{"sdp":"x"}})).await;

    let name = success["user"].as_str().unwrap();
    let suffix = name.strip_prefix("guest-").unwrap();
    assert!(suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}");
    assert_eq!(
        (&success["client_id"], &success["iceServers"]),
        (&json!("g1"), &json!([{"urls":["stun:b"]}])),
        "STUN but no TURN"
    );
    assert_eq!(pinging.receive().await, json!({"type":"pong"}));
    for joined in 0..4 {
        assert_eq!(alice.receive().await["type"], "user_joined", "{joined}");
    }
    let offer = alice.receive().await;
    assert_eq!(
        (&offer["type"], &offer["from"], &offer["username"]),
        (&json!("offer"), &offerer["client_id"], &offerer["user"])
    );
    while polite.receive().await["type"] != "offer" {}
    let refresh = polite
        .error_after(&json!({"type":"auth_token","token":server.token("alice")}).to_string())
        .await;
    assert_eq!(refresh["code"], "invalid_message");
}

#[tokio::test]
async fn an_invalid_token_is_rejected_also_where_guests_may_join() {
    let server = TestServer::start(&[("ALLOW_ANONYMOUS", "true")]).await;

    for token in [json!("wrong"), json!(""), json!(1), json!({})] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token})).await;

        assert_eq!(client.rejection().await, (1008, "Invalid token".into()));
    }
    for nonsense in ["{", "[]", r#"{"type":"dance"}"#] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send_text(nonsense).await;

        assert_eq!(client.rejection().await, (1008, "Authentication required".into()));
    }
}

#[tokio::test]
async fn the_list_of_rooms_needs_a_token_where_that_is_set() {
    let server = TestServer::start(&[("ROOMS_API_REQUIRE_AUTH", "true")]).await;
    let _alice = server.join("den", "alice").await;

    for path in ["/api/rooms", "/api/rooms/den/info"] {
        assert_eq!(
            (status_of(&server, path).await, server.get_as("alice", path).await.status().as_u16()),
            (401, 200)
        );
    }
    assert_eq!(
        server.request(Method::POST, "/api/rooms/den/info").send().await.unwrap().status(),
        401
    );
}

#[tokio::test]
async fn members_receive_ice_servers_where_turn_is_configured() {
    let server = TestServer::start(&[
        ("TURNSERVER_SECRET", "s"),
        ("TURNSERVER_URL", "turn:a:3478"),
        ("STUNSERVER_URLS", "stun:b"),
    ])
    .await;
    let mut alice = server.connect("den").await;
    alice.receive().await;
    alice.send(json!({"type":"auth_token","token":server.token("alice")})).await;

    let servers = alice.receive().await["iceServers"].clone();

    assert_eq!(
        (&servers[0], &servers[1]["urls"]),
        (&json!({"urls":["stun:b"]}), &json!(["turn:a:3478"]))
    );
    assert!(
        servers[1]["username"].as_str().unwrap().ends_with(":alice")
            && servers[1]["credential"].is_string()
    );
}

#[tokio::test]
async fn sessions_end_with_their_token_where_that_is_set() {
    // That it ends after the grace of a minute is shown on a paused clock, in `session`.
    for (enforce, rule) in [("true", true), ("false", false)] {
        let server = TestServer::start(&[("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", enforce)]).await;

        assert_eq!(server.app.session_limits().enforce_token_expiry, rule);
    }
}
