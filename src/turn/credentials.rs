//! Credentials that a TURN server accepts until they expire.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// A username and a credential that coturn accepts until the time in the username has passed.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredentials {
    /// `<expiry>:<account>`; the expiry in whole seconds since the Unix epoch.
    pub username: String,
    /// base64 of the HMAC-SHA1 of `username`.
    pub credential: String,
}

/// Mints credentials for `account` that expire `ttl` after `now` (whole seconds since the Unix epoch).
///
/// `secret` is the TURN server's `static-auth-secret`. The same inputs always give the same output.
///
/// Source: the TURN REST API, draft-uberti-behave-turn-rest-00 section 2.2, as coturn's `use-auth-secret` reads it;
/// contract section 1.
pub fn mint(secret: &SecretString, account: &str, ttl: Duration, now: u64) -> TurnCredentials {
    let username = format!("{}:{account}", now.saturating_add(ttl.as_secs()));
    let credential = sign(secret.expose_secret(), &username);
    TurnCredentials { username, credential }
}

fn sign(secret: &str, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from `printf %s "$username" | openssl dgst -sha1 -hmac "$secret" -binary | base64`.
    #[test]
    fn credentials_are_what_openssl_computes() {
        let cases = [
            (
                "north",
                1_704_063_600,
                3600,
                "admin",
                "1704067200:admin",
                "X6+aF0IJ9iZYH4ti01dFfzD65lc=",
            ),
            (
                "ein Geheimnis mit Ümlaut",
                0,
                86_400,
                "zoë",
                "86400:zoë",
                "n6Mp8BriQWCYrv2KlnRfcNuTDx0=",
            ),
            (
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                1_000_000_000,
                1,
                "a.b",
                "1000000001:a.b",
                "ZAQMdAjQVX8FoUCetOLfXHiFi40=",
            ),
        ];

        for (secret, now, ttl, account, username, credential) in cases {
            let minted = mint(&secret.into(), account, Duration::from_secs(ttl), now);

            assert_eq!(
                (minted.username.as_str(), minted.credential.as_str()),
                (username, credential)
            );
        }
    }

    /// RFC 2202 section 3, test case 2.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        assert_eq!(sign("Jefe", "what do ya want for nothing?"), "7/zfauXrL6LSdBbV8YTfnCWafHk=");
    }
}
