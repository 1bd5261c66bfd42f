//! First messages: who introduces himself how, and which tokens count.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use signaling::{
    auth::access_token::AccessTokens,
    protocol::{self, ClientMessage, TokenField},
};

use super::{frames::check_auth_token, json};

/// When all this happens, in seconds since the Unix epoch.
const NOW: u64 = 1_700_000_000;

const KEY: &str = "a key of more than thirty-two bytes";

/// The key before that one, which still verifies.
const KEY_BEFORE: &str = "another of more than thirty-two bytes";

/// Differs from the key in a few bits.
const WRONG_KEY: &str = "a key of more than thirty-two bytez";

/// Whether a token must count.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good {
        username: String,
        expires_at: u64,
        stamp: Option<String>,
    },
    Bad,
    /// The contract does not say: refusing is as right as taking it for what it says.
    Either,
}

/// Either a frame as it comes, which is also tried as a token; or `+`, `=` or `-`, a token's header,
/// a line end and its claims, which are signed here: with the key, the one before it, or a wrong one.
pub fn auth_message(data: &[u8]) {
    match data.split_first() {
        Some((b'+', parts)) => check_minted(parts, KEY),
        Some((b'=', parts)) => check_minted(parts, KEY_BEFORE),
        Some((b'-', parts)) => check_minted(parts, WRONG_KEY),
        _ => {
            let Ok(frame) = str::from_utf8(data) else { return };
            check_token(frame);
            if let Ok(ClientMessage::AuthToken(auth)) = protocol::parse(frame).message {
                let fields = json::read(frame).unwrap().expect("an auth_token is an object");
                let named: Vec<_> = fields
                    .into_iter()
                    .map(|(name, raw)| (json::string(name).unwrap(), raw))
                    .collect();
                check_auth_token(&named, &auth);
                if let TokenField::Text(token) = auth.token {
                    check_token(&token);
                }
            }
        }
    }
}

fn check_minted(parts: &[u8], key: &str) {
    let mut parts = parts.splitn(2, |byte| *byte == b'\n');
    let header = parts.next().unwrap_or_default();
    let claims = parts.next().unwrap_or_default();
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(key, &signed));
    let token = format!("{signed}.{signature}");

    check_token(&token);

    let frame = format!(r#"{{"type":"auth_token","token":"{token}"}}"#);
    let Ok(ClientMessage::AuthToken(auth)) = protocol::parse(&frame).message else {
        panic!("{frame}")
    };
    assert!(matches!(auth.token, TokenField::Text(text) if text == token));
}

fn check_token(token: &str) {
    let tokens =
        AccessTokens::new(&KEY.into(), Some(&KEY_BEFORE.into()), Duration::from_secs(1800));

    let verified = tokens.verify(token, NOW);

    match (verdict(token), verified) {
        (Verdict::Bad, verified) => assert!(verified.is_err(), "{token} counts"),
        (Verdict::Good { username, expires_at, stamp }, Ok(claims)) => {
            assert_eq!(*claims.username, *username);
            // Decimals are read to 53 bits or nearly so, which is exact in this era.
            assert!(claims.expires_at.abs_diff(expires_at) <= expires_at >> 50);
            assert_eq!(claims.stamp, stamp, "whose password it stands on");
        }
        (Verdict::Good { .. }, Err(_)) => panic!("{token} does not count"),
        (Verdict::Either, _) => {}
    }
}

fn sign(key: &str, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes())
}

/// Contract section 1, "Tokens", and RFC 7515, without the crate that the server uses.
fn verdict(token: &str) -> Verdict {
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let Some((signed, signature)) = token.rsplit_once('.') else { return Verdict::Bad };
    let Some((header, claims)) = signed.split_once('.') else { return Verdict::Bad };
    let signs = |key| decoded(signature).is_some_and(|found| found == sign(key, signed).as_ref());
    if !signs(KEY) && !signs(KEY_BEFORE) {
        return Verdict::Bad;
    }
    let (Some(header), Some(claims)) = (decoded(header), decoded(claims)) else {
        return Verdict::Bad;
    };
    // Only a holder of the key can sign bytes that are not UTF-8.
    let (Ok(header), Ok(claims)) = (String::from_utf8(header), String::from_utf8(claims)) else {
        return Verdict::Either;
    };
    let (header, claims) = match (read(&header), read(&claims)) {
        (Ok(Some(header)), Ok(Some(claims))) => (header, claims),
        (Err(json::Fault::TooDeep), _) | (_, Err(json::Fault::TooDeep)) => return Verdict::Either,
        _ => return Verdict::Bad,
    };

    let alg_fits = header.one("alg").and_then(json::string).is_some_and(|alg| alg == "HS256");
    let time = NOW as f64;
    let (exp, nbf) = (claims.one("exp").and_then(number), claims.one("nbf").map(number));
    let nbf_fits = match nbf {
        None => claims.count("nbf") == 0,
        Some(nbf) => nbf.is_some_and(|nbf| nbf <= time + 5.0),
    };
    let username = claims.one("sub").and_then(json::string);
    // From there on it is milliseconds.
    let fits = |exp: &f64| *exp > time && *exp < 1e11;
    let (Some(exp), Some(username)) = (exp.filter(fits), username) else {
        return Verdict::Bad;
    };
    if !alg_fits || !nbf_fits || header.one("crit").is_some_and(|crit| crit != "null") {
        return Verdict::Bad;
    }

    // Decimals next to a limit may be rounded to either side of it.
    let near = |seconds: f64, limit: f64| seconds != limit && (seconds - limit).abs() < 0.001;
    let plain_header = header.names().all(|name| ["alg", "typ", "kid"].contains(&name))
        && ["typ", "kid"]
            .iter()
            .all(|name| header.one(name).is_none_or(|raw| json::string(raw).is_some()));
    let stamp = claims.one("pwd_stamp").filter(|raw| *raw != "null");
    let plain = plain_header
        && stamp.is_none_or(|raw| json::string(raw).is_some())
        && header.count("crit") == 0
        && header.is_plain
        && claims.is_plain
        && token.len() <= 8 * 1024
        && !near(exp, time)
        && !near(exp, 1e11)
        && !nbf.flatten().is_some_and(|nbf| near(nbf, time + 5.0));
    let stamp = stamp.and_then(json::string);
    if plain { Verdict::Good { username, expires_at: exp as u64, stamp } } else { Verdict::Either }
}

struct Object<'a> {
    fields: Vec<(String, &'a str)>,
    /// No name twice, and nothing that readers of JSON disagree about.
    is_plain: bool,
}

fn read(text: &str) -> Result<Option<Object<'_>>, json::Fault> {
    let Some(fields) = json::read(text)? else { return Ok(None) };
    let fields = fields.into_iter().filter_map(|(name, raw)| Some((json::string(name)?, raw)));
    let is_plain =
        json::object(text).is_some() && serde_json::from_str::<serde_json::Value>(text).is_ok();
    Ok(Some(Object { fields: fields.collect(), is_plain }))
}

impl<'a> Object<'a> {
    /// The only value of that name.
    fn one(&self, name: &str) -> Option<&'a str> {
        let mut values = self.fields.iter().filter(|(known, _)| known == name);
        let first = values.next().map(|(_, raw)| *raw);
        first.filter(|_| values.next().is_none())
    }

    fn count(&self, name: &str) -> usize {
        self.names().filter(|known| *known == name).count()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }
}

/// A number that has a value: 1e400 has none.
fn number(raw: &str) -> Option<f64> {
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    raw.parse().ok().filter(|number: &f64| is_number && number.is_finite())
}
