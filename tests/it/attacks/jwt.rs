//! Tokens signed by hand: those that other services mint, and those that nobody should.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signaling::clock::unix_now;

/// The header of our own tokens.
pub const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// What another service says of `username`: the name, half an hour, and something of its own.
pub fn good(username: &str, key: &str) -> String {
    let own = uuid::Uuid::new_v4().to_string();
    let claims = json!({"sub": username, "exp": unix_now() + 1800, "tenant": own});
    signed(HS256, &claims, key.as_bytes())
}

/// A token with these claims, well signed for its header or not.
pub fn signed(header: &str, claims: &Value, key: &[u8]) -> String {
    signed_with(hmac::HMAC_SHA256, header, &claims.to_string(), key)
}

pub fn signed_with(algorithm: hmac::Algorithm, header: &str, claims: &str, key: &[u8]) -> String {
    let text = unsigned(header, claims);
    let signature = hmac::sign(&hmac::Key::new(algorithm, key), text.as_bytes());
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// The two parts of a token that are signed.
pub fn unsigned(header: &str, claims: &str) -> String {
    [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}
