//! Credentials that a TURN server accepts until they expire.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;

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
    BASE64_STANDARD.encode(hmac_sha1(secret.as_bytes(), username.as_bytes()))
}

fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    #[expect(clippy::expect_used, reason = "see the message")]
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
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

    /// RFC 2202 section 3, all seven test cases.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let counted: Vec<u8> = (1..=25).collect();
        let long_key = [0xaa; 80];
        let larger = b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data";
        let cases: [(&[u8], &[u8], &str); 7] = [
            (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            (&counted, &[0xcd; 50], "4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
            (&[0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
            (
                &long_key,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "aa4ae5e15272d00e95705637ce8a3b55ed402112",
            ),
            (&long_key, larger, "e8e99d0f45237d786d6bbaa7965c7808bbff1a91"),
        ];

        for (key, message, digest) in cases {
            let signed: String =
                hmac_sha1(key, message).iter().map(|byte| format!("{byte:02x}")).collect();

            assert_eq!(signed, digest);
        }
    }
}
