//! Credentials that a TURN server accepts until they expire.

use std::{borrow::Cow, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;

/// The last expiry that coturn accepts, 2038-01-19: it reads the time as a signed number of 32 bits.
pub const LAST_EXPIRY: u64 = i32::MAX as u64;

/// A username and a credential that coturn accepts until the time in the username has passed.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredentials {
    /// `<expiry>:<account>`; the expiry in whole seconds since the Unix epoch, the account as [`mint`] writes it.
    pub username: String,
    /// base64 of the HMAC-SHA1 of `username`.
    pub credential: String,
}

/// Mints credentials for `account` that expire `ttl` after `now` (whole seconds since the Unix epoch).
///
/// `secret` is the TURN server's `static-auth-secret`. The same inputs always give the same output. The expiry is at most
/// [`LAST_EXPIRY`] before that day. Characters that coturn refuses in a username are percent-encoded: it only signs the
/// name, and any other name works as well.
///
/// Source: the TURN REST API, draft-uberti-behave-turn-rest-00 section 2.2, as coturn's `use-auth-secret` reads it;
/// contract section 1.
pub fn mint(secret: &SecretString, account: &str, ttl: Duration, now: u64) -> TurnCredentials {
    let expiry = now.saturating_add(ttl.as_secs());
    let expiry = if now < LAST_EXPIRY { expiry.min(LAST_EXPIRY) } else { expiry };
    let username = format!("{expiry}:{}", encode_account(account));
    let credential = sign(secret.expose_secret(), &username);
    TurnCredentials { username, credential }
}

/// `account` in the alphabet that coturn accepts. It answers 400 to a name with a space, `'`, `"`, `\`, a tab or a line
/// break, or with both "union" and "select" in any case (`is_secure_string` in coturn 4.6).
fn encode_account(account: &str) -> Cow<'_, str> {
    let lower = account.to_ascii_lowercase();
    let looks_like_sql = lower.contains("union") && lower.contains("select");
    let is_refused = |char: char| {
        char.is_ascii_control()
            || matches!(char, ' ' | '\'' | '"' | '\\')
            || (looks_like_sql && matches!(char, 'u' | 'U'))
    };
    if !account.contains(is_refused) {
        return account.into();
    }
    let mut encoded = String::with_capacity(account.len() + 16);
    for char in account.chars() {
        if is_refused(char) {
            encoded += &format!("%{:02X}", u32::from(char));
        } else {
            encoded.push(char);
        }
    }
    encoded.into()
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

    #[test]
    fn what_coturn_refuses_in_a_name_is_encoded_and_nothing_else() {
        let user = |account: &str| {
            let minted = mint(&"north".into(), account, Duration::ZERO, 7);
            minted.username.strip_prefix("7:").unwrap().to_owned()
        };
        for plain in ["admin", "zoë", "a.b-c_d@e", "50%", "a;b", "union", "preselected", "日本"]
        {
            assert_eq!(user(plain), plain);
        }
        for (account, encoded) in [
            ("anna maria", "anna%20maria"),
            ("o'neil", "o%27neil"),
            ("a\"b\\c", "a%22b%5Cc"),
            ("tab\there\r\n", "tab%09here%0D%0A"),
            ("Union.Select", "%55nion.Select"),
            ("ö'", "ö%27"),
        ] {
            assert_eq!(user(account), encoded);
        }
    }

    #[test]
    fn no_credentials_expire_after_the_last_day_of_coturn() {
        let expiry = |now, ttl| {
            let minted = mint(&"north".into(), "a", Duration::from_secs(ttl), now);
            minted.username.split(':').next().unwrap().parse::<u64>().unwrap()
        };

        assert_eq!(expiry(1_833_000_000, 315_360_000), 2_147_483_647, "ten years from 2028");
        assert_eq!(expiry(LAST_EXPIRY - 10, 10), LAST_EXPIRY);
        assert_eq!(expiry(LAST_EXPIRY, 10), LAST_EXPIRY + 10, "then nothing is to be saved");
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
