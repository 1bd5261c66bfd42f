//! The token with which `signaling-server doctor --url` shows that it has the settings of the server that it asks.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

/// How far the time of a token may be from the server's, in seconds.
const MAX_AGE: u64 = 300;

/// Signs a token at `now` (whole seconds since the Unix epoch), with a key that is derived from `SECRET_KEY`. A client that
/// has it can learn with it, for five minutes, how the server sees a connection of its own, and nothing else.
pub fn sign(secret_key: &SecretString, now: u64) -> SecretString {
    let tag = hmac::sign(&key(secret_key), &now.to_be_bytes());
    format!("{now}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag)).into()
}

/// Whether `token` was signed with the same `SECRET_KEY` within five minutes of `now`.
pub fn is_valid(secret_key: &SecretString, token: &str, now: u64) -> bool {
    let parts = token.split_once('.').and_then(|(time, tag)| {
        Some((time.parse::<u64>().ok()?, BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?))
    });
    parts.is_some_and(|(time, tag)| {
        time.abs_diff(now) <= MAX_AGE
            && hmac::verify(&key(secret_key), &time.to_be_bytes(), &tag).is_ok()
    })
}

fn key(secret_key: &SecretString) -> hmac::Key {
    let own = hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose_secret().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&own, b"doctor").as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_for_five_minutes_on_servers_with_the_same_key() {
        let (own, other) = (SecretString::from("own"), SecretString::from("other"));
        let token = sign(&own, 1_000_000);
        let token = token.expose_secret();

        for now in [999_700, 1_000_000, 1_000_300] {
            assert!(is_valid(&own, token, now), "{now}");
        }
        for now in [0, 999_699, 1_000_301, u64::MAX] {
            assert!(!is_valid(&own, token, now), "{now}");
        }
        assert!(!is_valid(&other, token, 1_000_000));
        let (_, tag) = token.split_once('.').unwrap();
        for forged in
            ["", ".", "1000000", "1000000.", &format!("1000001.{tag}"), &format!("x.{tag}")]
        {
            assert!(!is_valid(&own, forged, 1_000_000), "{forged}");
        }
    }
}
