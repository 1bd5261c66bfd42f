//! Tokens that should not be good, over REST and over WebSocket (group J of the catalogue; RFC 8725).

use std::net::SocketAddr;

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tokio::net::TcpListener;

use super::{
    attacked_server::{AttackedServer, JWT_SECRET_KEY, SECRET_KEY},
    jwt::{self, HS256},
};

/// As many bad tokens as a test likes to show.
const PATIENT: [(&str, &str); 1] = [("AUTH_MAX_FAILURES", "100000")];

/// What a good token says of carol, with these claims changed; `null` takes one away.
fn carol(changes: Value) -> Value {
    let mut claims = json!({"sub":"carol","exp":unix_now() + 600});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// Well signed, whatever it says.
fn signed(claims: &str) -> String {
    jwt::signed_with(HMAC_SHA256, HS256, claims, JWT_SECRET_KEY.as_bytes())
}

/// The status and the `detail` of an answer to this `Authorization`, and that it asks for another.
async fn authorized_by(
    server: &AttackedServer,
    authorization: &str,
    path: (Method, &str),
) -> (u16, String) {
    let request = server.request(path.0, path.1).header("authorization", authorization);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let asks = answer.headers().get("www-authenticate").map(HeaderValue::as_bytes);
    assert_eq!(asks, (status == 401).then_some(&b"Bearer"[..]), "{authorization:.60}");
    let body: Value = answer.json().await.unwrap();
    (status, body["detail"].as_str().unwrap_or_default().to_owned())
}

const ME: (Method, &str) = (Method::GET, "/auth/me");

/// REST refuses it with 401, wherever a token is asked for, and a socket with 1008 for this `reason`.
pub async fn is_refused(server: &AttackedServer, token: &str, reason: &str, case: &str) {
    if HeaderValue::from_str(token).is_ok() && !token.trim().is_empty() {
        let (status, detail) = authorized_by(server, &format!("Bearer {token}"), ME).await;
        assert_eq!((status, &*detail), (401, "Could not validate credentials"), "{case}");
    }
    let mut client = server.connect("den").await;
    client.receive().await;
    client.send(json!({"type":"auth_token","token":token})).await;
    assert_eq!(client.rejection().await, (1008, reason.to_owned()), "{case}");
}

pub async fn is_bad(server: &AttackedServer, token: &str, case: &str) {
    is_refused(server, token, "Invalid token", case).await;
}

/// REST and the den let it in as carol.
pub async fn is_good(server: &AttackedServer, token: &str, case: &str) {
    let (status, _) = authorized_by(server, &format!("Bearer {token}"), ME).await;
    assert_eq!(status, 200, "{case}");
    let mut client = server.connect("den").await;
    client.authenticate("carol", token, Value::Null).await;
    client.leave().await;
}

/// J01, J03: the algorithm is the server's to choose.
#[tokio::test]
async fn a_token_does_not_choose_its_algorithm() {
    let server = AttackedServer::start(&PATIENT).await;
    let claims = carol(json!({})).to_string();
    let key = JWT_SECRET_KEY.as_bytes();

    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", "ES256", "EdDSA"] {
        let header = json!({"alg":alg,"typ":"JWT"}).to_string();
        let unsigned = jwt::unsigned(&header, &claims);
        is_bad(&server, &format!("{unsigned}."), alg).await;
        is_bad(&server, &unsigned, alg).await;
        is_bad(&server, &jwt::signed_with(HMAC_SHA256, &header, &claims, key), alg).await;
        is_bad(&server, &jwt::signed_with(HMAC_SHA256, &header, &claims, b""), alg).await;
    }
    for (alg, algorithm) in [
        ("HS384", HMAC_SHA384),
        ("HS512", HMAC_SHA512),
        ("HS384", HMAC_SHA256),
        ("HS512", HMAC_SHA256),
        ("RS256", HMAC_SHA256),
        ("PS256", HMAC_SHA256),
        ("HS256", HMAC_SHA512),
    ] {
        let header = json!({"alg":alg,"typ":"JWT"}).to_string();
        is_bad(&server, &jwt::signed_with(algorithm, &header, &claims, key), alg).await;
    }
    for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":256}"#, "[]", "null"]
    {
        is_bad(&server, &jwt::signed_with(HMAC_SHA256, header, &claims, key), header).await;
    }
    is_good(&server, &signed(&claims), "as it should be").await;

    server.assert_unharmed().await;
}

/// J02: other keys, and a signature that is not all there.
#[tokio::test]
async fn only_the_servers_key_signs_tokens() {
    let server = AttackedServer::start(&PATIENT).await;
    let claims = carol(json!({}));

    for key in [
        "",
        "secret",
        "your-secret-key",
        "your-secret-key-here",
        "your-jwt-secret-key-change-in-production",
        "your-super-secret-jwt-key-change-this-in-production",
        "change-me",
        SECRET_KEY,
        &JWT_SECRET_KEY[..JWT_SECRET_KEY.len() - 1],
        &format!("{JWT_SECRET_KEY}\n"),
        &BASE64_URL_SAFE_NO_PAD.encode(JWT_SECRET_KEY),
    ] {
        is_bad(&server, &jwt::signed(HS256, &claims, key.as_bytes()), key).await;
    }
    let good = signed(&claims.to_string());
    for length in [good.len() - 1, good.len() - 2, good.len() - 22, good.len() - 43] {
        is_bad(&server, &good[..length], &format!("cut to {length}")).await;
    }
    let other = signed(&carol(json!({"sub":"dave"})).to_string());
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let (_, foreign) = other.rsplit_once('.').unwrap();
    is_bad(&server, &format!("{signed_part}.{foreign}"), "another token's signature").await;
    is_bad(&server, &format!("{signed_part}.{signature}{signature}"), "twice").await;

    server.assert_unharmed().await;
}

/// J04, J05, J06, J07, J08: what the claims must say, and of which type.
#[tokio::test]
async fn claims_are_checked_for_type_and_time() {
    let mut settings = PATIENT.to_vec();
    settings.push(("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "true"));
    let server = AttackedServer::start(&settings).await;
    let now = unix_now();

    for changes in [
        json!({"exp":now - 90}),
        json!({"exp":now - 6}),
        json!({"exp":now}),
        json!({"exp":0}),
        json!({"exp":-1}),
        json!({"exp":null}),
        json!({"exp":"9999999999"}),
        json!({"exp":""}),
        json!({"exp":true}),
        json!({"exp":[now + 600]}),
        json!({"exp":{"$gt":0}}),
        json!({"exp":(now + 600) * 1000}),
        json!({"exp":u64::MAX}),
        json!({"exp":1e300}),
        json!({"nbf":now + 3600}),
        json!({"nbf":now + 30}),
        json!({"nbf":(now - 60).to_string()}),
        json!({"nbf":false}),
        json!({"nbf":[now - 60]}),
        json!({"sub":null}),
        json!({"sub":1}),
        json!({"sub":["carol"]}),
        json!({"sub":{"name":"carol"}}),
        json!({"sub":true}),
    ] {
        is_bad(&server, &signed(&carol(changes.clone()).to_string()), &changes.to_string()).await;
    }
    for claims in [
        format!(r#"{{"sub":"carol","exp":{}}}"#, "1e400"),
        format!(r#"{{"sub":"carol","exp":{}}}"#, "NaN"),
        format!(r#"{{"sub":"carol","exp":{}}}"#, "Infinity"),
        format!(r#"{{"sub":"carol","exp":{}}}"#, "null"),
        format!(r#"{{"sub":"carol","exp":{},"nbf":null}}"#, now + 600),
        format!(r#"{{"sub":null,"exp":{}}}"#, now + 600),
        format!(r#"{{"sub":"dave","sub":"carol","exp":{}}}"#, now + 600),
        format!(r#"{{"sub":"carol","exp":{},"exp":{}}}"#, now - 90, now + 600),
        format!(r#"["carol",{}]"#, now + 600),
        "{}".to_owned(),
        "null".to_owned(),
        "\"carol\"".to_owned(),
    ] {
        is_bad(&server, &signed(&claims), &claims).await;
    }
    // Far away is no fault, also where sessions end with their token.
    for changes in [
        json!({"exp":99_999_999_999_u64}),
        json!({"exp":(now as f64) + 600.5}),
        json!({"nbf":now - 60,"iat":"yesterday","iss":7,"aud":["somebody else"],"jti":{}}),
    ] {
        is_good(&server, &signed(&carol(changes.clone()).to_string()), &changes.to_string()).await;
    }

    server.assert_unharmed().await;
}

/// J09: a name is one user's or nobody's, to the byte.
#[tokio::test]
async fn a_username_that_looks_like_another_has_no_account() {
    let server = AttackedServer::start(&PATIENT).await;

    for name in [
        "CAROL",
        "Carol",
        "\u{ff43}\u{ff41}\u{ff52}\u{ff4f}\u{ff4c}", // fullwidth
        "с\u{430}rol",                              // Cyrillic
        "carol\0",
        "carol\0dave",
        " carol",
        "carol ",
        "carol\n",
        "ca\u{200b}rol",
        "carol,carol@example.com",
        "",
        "*",
        "root",
    ] {
        let token = signed(&carol(json!({"sub":name})).to_string());
        is_refused(&server, &token, "User not found or inactive", &format!("{name:?}")).await;
    }

    server.assert_unharmed().await;
}

/// J11: whatever a header says about keys is not read, and nothing is fetched.
#[tokio::test]
async fn a_token_header_cannot_name_the_key() {
    let server = AttackedServer::start(&PATIENT).await;
    let claims = carol(json!({}));
    let bait = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = bait.local_addr().unwrap();
    let (url, own) =
        (format!("http://{address}/keys.json"), "the attacker's own key, 32 bytes or so");
    let jwk = json!({"kty":"oct","alg":"HS256","k":BASE64_URL_SAFE_NO_PAD.encode(own)});

    for (more, key) in [
        (json!({"kid":"../../../../../../dev/null"}), ""),
        (json!({"kid":"/proc/self/environ"}), ""),
        (json!({"kid":"x' UNION SELECT 'key' -- "}), "key"),
        (json!({"kid":"$(touch owned)|touch owned"}), own),
        (json!({"kid":7}), own),
        (json!({"jku":url}), own),
        (json!({"x5u":url}), own),
        (json!({"x5c":[BASE64_URL_SAFE_NO_PAD.encode(own)]}), own),
        (json!({"jwk":jwk}), own),
        (json!({"iss":url,"keys":[jwk]}), own),
    ] {
        let mut header = json!({"alg":"HS256","typ":"JWT"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        is_bad(
            &server,
            &jwt::signed(&header.to_string(), &claims, key.as_bytes()),
            &more.to_string(),
        )
        .await;
    }
    // Well signed, such a header is as good as any; but what must be understood is not.
    let header = |more: Value| json!({"alg":"HS256","kid":"1","jku":url,"x5u":url,"crit":more});
    let ignored = header(Value::Null).to_string().replace(r#""crit":null,"#, "");
    is_good(&server, &jwt::signed(&ignored, &claims, JWT_SECRET_KEY.as_bytes()), "ignored").await;
    let critical = header(json!(["exp"])).to_string();
    is_bad(&server, &jwt::signed(&critical, &claims, JWT_SECRET_KEY.as_bytes()), "crit").await;

    let ours = tokio::net::TcpStream::connect(address).await.unwrap();
    let (_, first) = bait.accept().await.unwrap();
    assert_eq!(first, ours.local_addr().unwrap(), "the server has fetched a key before");
    assert!(!server.folder.path().join("owned").exists());
    server.assert_unharmed().await;
}

/// J10, J12: too long, and misshapen.
#[tokio::test]
async fn malformed_tokens_are_rejected() {
    let server = AttackedServer::start(&PATIENT).await;
    let good = server.token("carol");
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let long = signed(&carol(json!({"more":"x".repeat(9 << 10)})).to_string());

    for token in [
        "".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        head.to_owned(),
        format!("{head}.{body}"),
        format!("{head}..{signature}"),
        format!(".{body}.{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{head}.{body}.{signature}.{body}.{signature}"), // five parts, as of an encrypted one
        format!("{good}="),
        format!("{head}=.{body}.{signature}"),
        format!("{head}.{body}\n.{signature}"),
        format!("{head}.{body}. {signature}"),
        format!("{head},{body},{signature}"),
        format!("{body}.{head}.{signature}"),
        format!("Bearer {good}"),
        format!("\"{good}\""),
        format!("{good}\0"),
        format!("\u{feff}{good}"),
        good.to_uppercase(),
        good.replace('.', "\u{2e}\u{200b}"),
        format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode("{")),
        format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(b"\xff\xfe")),
        r#"{"sub":"carol"}"#.to_owned(),
        "x".repeat(15_000),
        long,
    ] {
        is_bad(&server, &token, &format!("{token:.60}")).await;
    }
    for size in [64 << 10, 1 << 20] {
        let request = format!(
            "GET /auth/me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            "x".repeat(size)
        );
        let answer = super::raw::ask(server.address, request).await.unwrap();
        assert_eq!(answer.status, 431, "{size} bytes");
    }

    server.assert_unharmed().await;
}

/// J13, J15: where a token is looked for, and where it is not.
#[tokio::test]
async fn a_token_is_accepted_only_in_its_place() {
    let server = AttackedServer::start(&[("ROOMS_API_REQUIRE_AUTH", "true")]).await;
    let good = server.token("carol");

    for (method, path) in [
        (Method::GET, "/auth/me"),
        (Method::POST, "/auth/refresh"),
        (Method::GET, "/auth/turn-credentials"),
        (Method::GET, "/auth/ice-servers"),
        (Method::GET, "/api/rooms"),
        (Method::POST, "/api/rooms/den/info"),
        (Method::GET, "/api/rooms/den/info"),
    ] {
        let ask = async |authorization: &str| {
            authorized_by(&server, authorization, (method.clone(), path)).await
        };
        let basic = format!("Basic {}", BASE64_URL_SAFE_NO_PAD.encode(format!("carol:{good}")));
        for none in ["", "Bearer", "Bearer ", &basic, &format!("Token {good}"), &good] {
            assert_eq!(ask(none).await, (401, "Not authenticated".into()), "{path}: {none:.20}");
        }
        for bad in
            ["Bearer null", "Bearer undefined", "Bearer a.b.c", &format!("Bearer {good} {good}")]
        {
            let refused = (401, "Could not validate credentials".into());
            assert_eq!(ask(bad).await, refused, "{path}: {bad:.20}");
        }
        for place in ["cookie", "x-access-token", "proxy-authorization", "sec-websocket-protocol"] {
            let request = server.request(method.clone(), path).header(place, &good);
            let request = request.header("cookie", format!("access_token={good}; token={good}"));
            assert_eq!(request.send().await.unwrap().status(), 401, "{path}: {place}");
        }
        let in_query = format!("{path}?token={good}&access_token={good}");
        assert_eq!(server.request(method.clone(), &in_query).send().await.unwrap().status(), 401);
    }
    // Nor does a socket look for it in its address or among its headers: it still has to be said.
    let bearer = format!("Bearer {good}");
    let headers = [("authorization", &*bearer), ("cookie", &*bearer)];
    let mut client = server.connect_with(&format!("den?token={good}"), &headers).await.unwrap();
    client.receive().await;
    client.send(json!({"type":"offer","offer":{}})).await;
    assert_eq!(client.rejection().await, (1008, "Authentication required".into()));

    server.assert_unharmed().await;
}
