//! Tokens that an identity provider signs with keys of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    doctor::{Findings, home},
    harness::{
        Client, eventually, http,
        process::{INTERVALS, RestartableServer, ServerProcess, start_err},
    },
    tokens::{about, diagnose},
};

/// An ES256 key, and its name.
struct SigningKey {
    id: &'static str,
    pair: KeyPair,
}

impl SigningKey {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate().unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        json!({"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":self.id,"x":x,"y":y})
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// Answers by path: a status with headers, and a body.
type Answers = Arc<Mutex<BTreeMap<String, (String, String)>>>;

/// An identity provider on loopback.
struct Issuer {
    url: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (answers, asked) = (Answers::default(), Arc::new(Mutex::new(Vec::new())));
        let issuer = Self {
            url: format!("http://{address}"),
            answers: answers.clone(),
            asked: asked.clone(),
        };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let missing = || ("404 Not Found".to_owned(), String::new());
                let answer = answers.lock().unwrap().get(&path).cloned();
                let (status, body) = answer.unwrap_or_else(missing);
                asked.lock().unwrap().push(path);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let document = json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url)});
        issuer.answer("/.well-known/openid-configuration", "200 OK", &document.to_string());
        issuer
    }

    fn answer(&self, path: &str, status: &str, body: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status.to_owned(), body.to_owned()));
    }

    fn serve_keys(&self, keys: &[&SigningKey]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        self.answer("/keys", "200 OK", &json!({ "keys": keys }).to_string());
    }

    fn times_asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }

    fn claims(&self, user: &str) -> Value {
        json!({"iss":self.url,"aud":"calls","sub":user,"exp":unix_now() + 300})
    }

    /// Settings of a server that takes its tokens.
    fn settings(&self) -> [(&str, &str); 5] {
        [
            ("JWT_ISSUER", &self.url),
            ("JWT_AUDIENCE", "calls"),
            ("JWT_ALGORITHMS", "HS256,ES256"),
            ("JWT_JWKS_ALLOW_PRIVATE", "true"),
            ("USERS_REQUIRED", "false"),
        ]
    }

    /// A server that finds the keys by discovery, whose users need no account.
    async fn server(&self, more: &[(&str, &str)]) -> ServerProcess {
        let settings = [&self.settings(), more].concat();
        RestartableServer::start(&settings).await.process
    }
}

async fn status_of(server: &ServerProcess, token: &str) -> StatusCode {
    ask(server, Method::GET, "/auth/me", token).await.0
}

async fn ask(
    server: &ServerProcess,
    method: Method,
    path: &str,
    token: &str,
) -> (StatusCode, Value) {
    let url = format!("http://{}{path}", server.address);
    let answer = http().build().unwrap().request(method, url).bearer_auth(token).send().await;
    let answer = answer.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The reason of the next line about a refused token.
async fn reason(server: &mut ServerProcess) -> String {
    let line = server.log.next_line_with("\"token refused\"").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    line["fields"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn users_of_an_issuer_join_without_an_account() {
    let (issuer, key) = (Issuer::start().await, SigningKey::new("one"));
    issuer.serve_keys(&[&key]);
    let mut server = issuer.server(&[]).await;
    server.log.next_line_with("issuer keys fetched").await;

    let token = key.sign(&issuer.claims("auth0|5f7c:8"));
    let (status, me) = ask(&server, Method::GET, "/auth/me", &token).await;
    assert_eq!((status, &me["username"]), (StatusCode::OK, &json!("auth0|5f7c:8")), "{me}");
    let mut client = Client::connect(server.address, "den", &[]).await.unwrap();
    client.authenticate("auth0|5f7c:8", &token, Value::Null).await;

    let (status, refusal) = ask(&server, Method::POST, "/auth/refresh", &token).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(refusal["detail"].as_str().unwrap().contains("no login"), "{refusal}");

    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims("u1");
        claims[name] = value;
        claims
    };
    for (claims, expected) in [
        (with("aud", json!(["other", "service"])), "`aud` is \"other, service\""),
        (with("iss", json!("https://id.example.com")), "`iss` is \"https://id.example.com\""),
        (with("exp", json!(unix_now() - 60)), "it expired 1 min"),
        (with("sub", json!(17)), "`sub` is a number; it must be a text"),
        (with("sub", json!("x".repeat(129))), "1 to 128 characters"),
        (with("sub", json!("alice")), "\"alice\" is an account of the users file"),
    ] {
        assert_eq!(status_of(&server, &key.sign(&claims)).await, 401, "{claims}");
        let reason = reason(&mut server).await;
        assert!(reason.contains(expected), "{claims}: {reason}");
    }
    let other = SigningKey::new("one");
    assert_eq!(status_of(&server, &other.sign(&issuer.claims("u1"))).await, 401);
    assert_eq!(reason(&mut server).await, "it is signed with another key");
    let metrics =
        server.log.lines().iter().filter(|line| line.contains("issuer keys fetched")).count();
    assert_eq!(metrics, 1);
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_a_user_can_be_mapped_to_an_account() {
    let (issuer, key) = (Issuer::start().await, SigningKey::new("one"));
    issuer.serve_keys(&[&key]);
    let more = [("USERS_REQUIRED", "true"), ("JWT_USER_CLAIM", "email")];
    let mut server = issuer.server(&more).await;
    let claims = |email: &str, verified: Value| {
        let mut claims = issuer.claims("17");
        (claims["email"], claims["email_verified"]) = (json!(email), verified);
        claims
    };

    assert_eq!(status_of(&server, &key.sign(&claims("alice", json!(true)))).await, 200);
    assert_eq!(status_of(&server, &key.sign(&claims("alice", json!(false)))).await, 401);
    assert_eq!(reason(&mut server).await, "`email_verified` is not true");
    assert_eq!(status_of(&server, &key.sign(&claims("nobody", json!(true)))).await, 401);
    assert_eq!(reason(&mut server).await, "the users file has no account \"nobody\"");

    // RFC 8725 section 2.1: the public key as the secret of an HMAC.
    let header = Header::new(Algorithm::HS256);
    for secret in [key.pair.public_key_pem(), key.jwk().to_string()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims("alice", json!(true)), &key).unwrap();
        assert_eq!(status_of(&server, &token).await, 401);
    }
    assert_eq!(reason(&mut server).await, "it is signed with another key");
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_the_last_keys_outlive_an_outage() {
    let (issuer, old, new) =
        (Issuer::start().await, SigningKey::new("old"), SigningKey::new("new"));
    issuer.serve_keys(&[&old]);
    let mut server = issuer.server(&[(INTERVALS, "issuer_unknown_key=0")]).await;
    assert_eq!(status_of(&server, &old.sign(&issuer.claims("u1"))).await, 200);
    let mut client = Client::connect(server.address, "den", &[]).await.unwrap();
    client.authenticate("u1", &old.sign(&issuer.claims("u1")), Value::Null).await;

    issuer.serve_keys(&[&old, &new]);
    client.send(json!({"type":"auth_token","token":new.sign(&issuer.claims("u1"))})).await;
    assert_eq!(client.receive().await["type"], "token_refreshed");
    assert_eq!(issuer.times_asked("/keys"), 2);

    issuer.answer("/keys", "503 Service Unavailable", "");
    let unknown = SigningKey::new("unknown");
    assert_eq!(status_of(&server, &unknown.sign(&issuer.claims("u1"))).await, 401);
    let line = server.log.next_line_with("issuer keys not fetched").await;
    assert!(line.contains("it answered 503"), "{line}");
    assert_eq!(reason(&mut server).await, "the issuer has no key of its `kid` and `alg`");
    for key in [&old, &new] {
        assert_eq!(status_of(&server, &key.sign(&issuer.claims("u2"))).await, 200);
    }
}

#[tokio::test]
async fn each_fault_of_an_issuer_has_its_log_line_and_costs_no_user_with_a_known_key() {
    let (issuer, known, unknown) =
        (Issuer::start().await, SigningKey::new("known"), SigningKey::new("unknown"));
    issuer.serve_keys(&[&known]);
    let mut server = issuer.server(&[(INTERVALS, "issuer_unknown_key=0")]).await;
    server.log.next_line_with("issuer keys fetched").await;
    let (good, bad) = (known.sign(&issuer.claims("u1")), unknown.sign(&issuer.claims("u1")));
    let with_space =
        json!({"keys":[known.jwk(), unknown.jwk()]}).to_string() + &" ".repeat(600_000);
    let document = "/.well-known/openid-configuration";
    let other = json!({"issuer":"https://other.example.com","jwks_uri":issuer.url}).to_string();
    let elsewhere = json!({"issuer":issuer.url,"jwks_uri":"ftp://id.example.com/keys"}).to_string();

    for (path, status, body, logged) in [
        ("/keys", "200 OK", with_space.as_str(), "its answer has more than 512 KiB"),
        ("/keys", "302 Found\r\nLocation: /elsewhere", "", "/keys: it answered 302 Found"),
        ("/keys", "503 Service Unavailable", "", "/keys: it answered 503"),
        ("/keys", "200 OK", "<html>", "the JWK set of the issuer: it is neither PEM nor a JWK set"),
        ("/keys", "200 OK", "{\"keys\":[]}", "no public key"),
        (document, "200 OK", &other, "its `issuer` is \\\"https://other.example.com\\\""),
        (document, "200 OK", &elsewhere, "is no https:// URL"),
        (document, "200 OK", "{}", "no discovery document"),
    ] {
        issuer.answer(path, status, body);
        assert_eq!(status_of(&server, &bad).await, 401, "{logged}");
        let line = server.log.next_line_with(logged).await;
        assert!(line.contains("issuer keys not fetched"), "{line}");
        assert_eq!(status_of(&server, &good).await, 200, "{logged}");
    }
    assert_eq!(issuer.times_asked("/elsewhere"), 0, "no redirect is followed");
}

#[tokio::test]
async fn keys_change_under_traffic_and_no_valid_token_is_refused() {
    let keys = ["1", "2", "3", "4"].map(SigningKey::new);
    let issuer = Issuer::start().await;
    issuer.serve_keys(&[&keys[0]]);
    let mut server = issuer.server(&[(INTERVALS, "issuer_unknown_key=0")]).await;
    server.log.next_line_with("issuer keys fetched").await;
    let token = |number: usize| keys[number].sign(&issuer.claims("u1"));

    for (number, pair) in keys.windows(2).enumerate() {
        issuer.serve_keys(&[&pair[0], &pair[1]]);
        let (old, new) = (token(number), token(number + 1));
        // All at once: those with the new key wait for one fetch, those with the old one do not.
        let requests = (0..20).map(|at| status_of(&server, if at % 2 == 0 { &old } else { &new }));
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
        assert_eq!(issuer.times_asked("/keys"), number + 2, "one more for all of them");
    }

    issuer.serve_keys(&[&keys[3]]);
    assert_eq!(status_of(&server, &SigningKey::new("5").sign(&issuer.claims("u1"))).await, 401);
    assert_eq!(status_of(&server, &token(3)).await, 200);
    assert_eq!(status_of(&server, &token(0)).await, 401, "a key that the issuer took back");
}

#[tokio::test]
async fn unknown_keys_cause_no_flood_of_requests() {
    let (issuer, key) = (Issuer::start().await, SigningKey::new("one"));
    issuer.serve_keys(&[&key]);
    let server = issuer.server(&[]).await;
    let fetched = async || server.log.lines().iter().any(|line| line.contains("keys fetched"));
    eventually("the keys are fetched", fetched).await;

    for _ in 0..10 {
        let unknown = SigningKey::new("unknown");
        assert_eq!(status_of(&server, &unknown.sign(&issuer.claims("u1"))).await, 401);
    }

    assert_eq!(issuer.times_asked("/keys"), 3, "one when the server started, two for the address");
}

#[tokio::test]
async fn doctor_says_why_the_keys_of_an_issuer_are_not_there() {
    let (issuer, key, folder) = (Issuer::start().await, SigningKey::new("one"), home());
    issuer.serve_keys(&[&key]);
    let settings = [
        ("JWT_ISSUER", issuer.url.as_str()),
        ("JWT_ALGORITHMS", "HS256,ES256"),
        ("JWT_JWKS_ALLOW_PRIVATE", "true"),
    ];
    let found = Findings::of(&folder, &settings).await;
    found.assert_finding("issuer", "ok", "1 keys that can sign", "");
    found.assert_finding("JWT_AUDIENCE", "warning", "is empty", "`aud`");

    let other = json!({"issuer":"https://other.example.com","jwks_uri":issuer.url});
    for (path, status, body, message) in [
        ("/keys", "200 OK", "{\"keys\":[]}".to_owned(), "no public key"),
        ("/keys", "200 OK", "<html>".to_owned(), "neither PEM nor a JWK set"),
        ("/keys", "302 Found\r\nLocation: /elsewhere", String::new(), "it answered 302"),
        ("/keys", "200 OK", " ".repeat(600 * 1024), "more than 512 KiB"),
        ("/.well-known/openid-configuration", "200 OK", other.to_string(), "JWT_ISSUER is another"),
        ("/.well-known/openid-configuration", "200 OK", "{}".to_owned(), "no discovery document"),
    ] {
        issuer.answer(path, status, &body);
        let found = Findings::of(&folder, &settings).await;
        found.assert_finding("issuer", "fault", message, "check JWT_ISSUER");
    }

    let said = start_err(
        &folder,
        &[("JWT_ISSUER", "http://id.example.com"), ("JWT_ALGORITHMS", "HS256,RS256")],
        &["--check-config"],
    )
    .await;
    assert!(said.contains("JWT_ISSUER: is not encrypted"), "{said}");
    let said = start_err(&folder, &[("JWT_ISSUER", "https://id.example.com")], &["--check-config"]);
    assert!(said.await.contains("JWT_ALGORITHMS: has no algorithm of the issuer's keys"));
}

#[tokio::test]
async fn doctor_and_the_log_say_that_an_issuer_has_more_keys_than_a_token_without_kid_is_tried_with()
 {
    let keys = ["1", "2", "3", "4", "5"].map(SigningKey::new);
    let (issuer, folder) = (Issuer::start().await, home());
    issuer.serve_keys(&keys.each_ref());
    let mut server = issuer.server(&[]).await;
    server.log.next_line_with("issuer keys fetched").await;
    let without_kid = |key: &SigningKey| {
        let signing = EncodingKey::from_ec_der(&key.pair.serialize_der());
        let header = Header::new(Algorithm::ES256);
        jsonwebtoken::encode(&header, &issuer.claims("u1"), &signing).unwrap()
    };

    assert_eq!(status_of(&server, &without_kid(&keys[3])).await, 200);
    assert_eq!(status_of(&server, &keys[4].sign(&issuer.claims("u1"))).await, 200);
    assert_eq!(status_of(&server, &without_kid(&keys[4])).await, 401);
    let reason = reason(&mut server).await;
    assert!(reason.contains("the issuer has 5 for its `alg`"), "{reason}");

    let settings = issuer.settings();
    let (_, found) = diagnose(&folder, &without_kid(&keys[4]), &settings).await;
    let line = about(&found, "key");
    assert!(line["fix"].as_str().unwrap().contains("`kid`"), "{line}");
    let found = Findings::of(&folder, &settings).await;
    found.assert_finding("issuer", "ok", "without `kid` is tried with the first 4", "");
    let pem: String = keys.iter().map(|key| key.pair.public_key_pem()).collect();
    std::fs::write(folder.path().join("keys.pem"), pem).unwrap();
    let file = folder.path().join("keys.pem");
    let settings =
        [("JWT_PUBLIC_KEY_FILE", file.to_str().unwrap()), ("JWT_ALGORITHMS", "HS256,ES256")];
    let found = Findings::of(&folder, &settings).await;
    found.assert_finding("issuer", "warning", "5 keys without `kid`", "`kid`");
}

#[tokio::test]
async fn doctor_says_line_by_line_what_is_right_and_wrong_with_a_token_of_an_issuer() {
    let (issuer, key, folder) = (Issuer::start().await, SigningKey::new("one"), home());
    issuer.serve_keys(&[&key]);
    let settings = issuer.settings();

    let (is_well, found) = diagnose(&folder, &key.sign(&issuer.claims("u1")), &settings).await;
    assert!(is_well, "{found:#?}");
    for subject in ["issuer", "token", "alg", "key", "exp", "iss", "aud", "account", "ended"] {
        assert_eq!(about(&found, subject)["verdict"], "ok", "{found:#?}");
    }

    let claims = json!({"iss":"https://other.example.com","aud":["x","y"],"sub":"alice","exp":1});
    let (_, found) = diagnose(&folder, &SigningKey::new("one").sign(&claims), &settings).await;
    for (subject, message) in [
        ("key", "another key"),
        ("exp", "it expired"),
        ("iss", "`iss` is \"https://other.example.com\""),
        ("aud", "`aud` is \"x, y\""),
        ("account", "\"alice\" is an account of the users file"),
    ] {
        let line = about(&found, subject);
        assert_eq!(line["verdict"], "fault", "{line}");
        assert!(line["message"].as_str().unwrap().contains(message), "{line}");
    }
    let (_, found) = diagnose(&folder, &SigningKey::new("two").sign(&claims), &settings).await;
    assert!(about(&found, "key")["fix"].as_str().unwrap().contains("`kid`"), "{found:#?}");
}

#[tokio::test]
async fn keys_come_from_a_file_and_passwords_can_be_switched_off() {
    let key = SigningKey::new("one");
    let folder = home();
    let certificate = rcgen::CertificateParams::new(vec!["id.example.com".into()]).unwrap();
    let certificate = certificate.self_signed(&key.pair).unwrap();
    let set = json!({"keys":[key.jwk()]}).to_string();
    std::fs::remove_file(folder.path().join("users.csv")).unwrap();
    let settings = [
        ("DEBUG", "false"),
        ("SECRET_KEY", "2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4"),
        ("JWT_SECRET_KEY", "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4"),
        ("JWT_PUBLIC_KEY_FILE", "{folder}/keys"),
        ("JWT_ALGORITHMS", "ES256"),
        ("USERS_REQUIRED", "false"),
        ("PASSWORD_LOGIN", "false"),
    ];
    let mut folder = Some(folder);
    for text in [key.pair.public_key_pem(), certificate.pem(), set] {
        let home = folder.take().unwrap();
        std::fs::write(home.path().join("keys"), text).unwrap();
        let mut server = RestartableServer::start_in(home, &settings).await;
        let token = key.sign(&json!({"sub":"u1","exp":unix_now() + 60}));
        assert_eq!(status_of(&server.process, &token).await, 200);
        let url = format!("http://{}/auth/login", server.process.address);
        let login = json!({"username":"u1","password":"secret"});
        let answer = http().build().unwrap().post(url).json(&login).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        server.process.kill().await;
        folder = Some(server.folder);
    }
}

const PAGE: &str = include_str!("../../docs/build/your-own-users.md");

/// The settings that the page names for a provider, but the audience, which is a sentence for some.
fn settings_of(provider: &str) -> [(&'static str, &'static str); 3] {
    let row = PAGE.lines().find(|line| line.starts_with(&format!("| {provider} "))).unwrap();
    let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    [("JWT_ISSUER", cells[2]), ("JWT_ALGORITHMS", cells[4]), ("JWT_USER_CLAIM", cells[5])]
}

fn rs256(pair: &KeyPair, claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let signed =
        format!("{}.{}", part(&json!({"alg":"RS256","typ":"JWT","kid":"1"})), part(claims));
    let signature = rcgen::SigningKey::sign(pair, signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// The claims as the documents of the providers show them, in November 2026.
#[tokio::test]
async fn tokens_shaped_like_those_of_known_providers_fit_the_settings_of_the_page() {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ec = SigningKey::new("1");
    let (now, id) = (unix_now(), "4f1b2c3d-0a1b-4c2d-8e3f-5a6b7c8d9e0f");
    let with = |claims: Value, name: &str, value: Value| {
        let mut claims = claims;
        claims[name] = value;
        claims
    };
    let auth0 = json!({
        "iss":"https://TENANT.auth0.com/","sub":"auth0|5f7c8ec7c33c6c004bbafe82",
        "aud":["https://api.example.com","https://TENANT.auth0.com/userinfo"],"azp":"Kx2mPq","scope":"openid profile",
        "iat":now,"exp":now + 86_400,"permissions":[],
    });
    let keycloak = json!({
        "iss":"https://HOST/realms/REALM","sub":id,"aud":["calls","account"],"typ":"Bearer","azp":"app","sid":id,
        "jti":"onrtac:8d2a9f","acr":"1","allowed-origins":["https://app.example.com"],"exp":now + 300,"iat":now,
        "auth_time":now - 5,"realm_access":{"roles":["offline_access"]},"resource_access":{"account":{"roles":["view-profile"]}},
        "scope":"openid profile email","email_verified":false,"preferred_username":"anna","email":"anna@example.com",
    });
    let firebase = json!({
        "iss":"https://securetoken.google.com/PROJECT","aud":"PROJECT","auth_time":now - 5,"user_id":"bXq0Rt7wZ1hK",
        "sub":"bXq0Rt7wZ1hK","iat":now,"exp":now + 3600,"email":"anna@example.com","email_verified":true,
        "firebase":{"identities":{"email":["anna@example.com"]},"sign_in_provider":"password"},
    });
    let supabase = json!({
        "iss":"https://PROJECT.supabase.co/auth/v1","sub":id,"aud":"authenticated","exp":now + 3600,"iat":now,
        "email":"anna@example.com","phone":"","app_metadata":{"provider":"email","providers":["email"]},"user_metadata":{},
        "role":"authenticated","aal":"aal1","amr":[{"method":"password","timestamp":now}],"session_id":id,"is_anonymous":false,
    });
    let cognito = json!({
        "iss":"https://cognito-idp.REGION.amazonaws.com/POOL","sub":id,"aud":"client0123","cognito:username":"anna",
        "cognito:groups":["callers"],"email_verified":true,"event_id":id,"token_use":"id","auth_time":now,"exp":now + 3600,
        "iat":now,"jti":id,"origin_jti":id,"email":"anna@example.com",
    });
    let no_mapper = with(keycloak.clone(), "aud", json!("account"));
    let mut access =
        with(with(cognito.clone(), "token_use", json!("access")), "client_id", json!("client0123"));
    access.as_object_mut().unwrap().remove("aud");

    for (provider, audience, claims, user, refused) in [
        ("Auth0", "https://api.example.com", auth0, "auth0|5f7c8ec7c33c6c004bbafe82", None),
        ("Keycloak", "calls", keycloak, "anna", Some((no_mapper, "`aud` is \"account\""))),
        ("Firebase", "PROJECT", firebase, "bXq0Rt7wZ1hK", None),
        ("Supabase", "authenticated", supabase, id, None),
        ("Cognito", "client0123", cognito, id, Some((access, "`aud` is missing"))),
    ] {
        let folder = home();
        std::fs::write(
            folder.path().join("keys"),
            rsa.public_key_pem() + &ec.pair.public_key_pem(),
        )
        .unwrap();
        let mut settings = settings_of(provider).to_vec();
        settings.extend([
            ("JWT_PUBLIC_KEY_FILE", "{folder}/keys"),
            ("JWT_AUDIENCE", audience),
            ("USERS_REQUIRED", "false"),
        ]);
        let mut server = RestartableServer::start_in(folder, &settings).await;
        let server = &mut server.process;
        let sign = |claims: &Value| {
            if provider == "Supabase" { ec.sign(claims) } else { rs256(&rsa, claims) }
        };

        let (status, me) = ask(server, Method::GET, "/auth/me", &sign(&claims)).await;
        assert_eq!((status, &me["username"]), (StatusCode::OK, &json!(user)), "{provider}: {me}");
        if let Some((claims, expected)) = refused {
            assert_eq!(status_of(server, &sign(&claims)).await, 401, "{provider}");
            let reason = reason(server).await;
            assert!(reason.contains(expected), "{provider}: {reason}");
        }
    }
}
