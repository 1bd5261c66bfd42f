//! The STUN and TURN servers that clients are given (RFC 8489, RFC 8656).

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{
    declare::{Section, Setting},
    parse::{FROM_ONE, Reader, UP_TO_A_MILLION, list_of, seconds, secret},
};
use crate::turn::IceServerUrl;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct IceSettings {
    /// `TURN_PROBE_SECONDS`: how often the TURN servers are probed; 0 = never.
    pub probe_interval: Duration,
}

/// What SIGHUP may change: the servers by whose help clients connect to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadableIce {
    /// The TURN servers.
    pub turn: TurnSettings,
    /// `STUNSERVER_URLS`.
    pub stun_urls: Vec<String>,
}

/// TURN servers, and the credentials that the server issues for them.
#[derive(Clone, Debug)]
pub struct TurnSettings {
    /// `TURNSERVER_SECRET`: coturn's `static-auth-secret`; empty = no TURN.
    pub secret: SecretString,
    /// `TURNSERVER_URLS`, or `TURNSERVER_URL` where that is empty: `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// `TURNSERVER_TTL`: how long credentials are valid.
    pub ttl: Duration,
}

impl PartialEq for TurnSettings {
    fn eq(&self, other: &Self) -> bool {
        self.secret.expose_secret() == other.secret.expose_secret()
            && self.urls == other.urls
            && self.ttl == other.ttl
    }
}

impl Eq for TurnSettings {}

/// What a new server applies to.
const NEW_ANSWERS: &str = "every answer; members that sent `\"features\":[\"ice\"]` get the new servers within a third of \
                           `WEBSOCKET_TIMEOUT`";

/// What a TURN URL is.
const TURN_URLS: &str = "a list of URLs such as turn:turn.example.com:3478 (RFC 7065)";

pub(super) const TURNSERVER_SECRET: Setting<Option<SecretString>> =
    Setting::new("TURNSERVER_SECRET", "", secret)
        .accepts("the same secret as the TURN server has, best of at least 32 bytes")
        .secret()
        .reloadable(NEW_ANSWERS)
        .help(
            "Secret shared with the TURN server, coturn's `static-auth-secret`. Empty: no TURN credentials.",
        );

const TURNSERVER_URL: Setting<Vec<String>> =
    Setting::new("TURNSERVER_URL", "", |text| list_of(text, |url| url_of(url, true)))
        .accepts(TURN_URLS)
        .reloadable(NEW_ANSWERS)
        .help("URL of a single TURN server. It counts only while `TURNSERVER_URLS` is empty.");

pub(super) const TURNSERVER_URLS: Setting<Vec<String>> =
    Setting::new("TURNSERVER_URLS", "[]", |text| list_of(text, |url| url_of(url, true)))
        .accepts(TURN_URLS)
        .reloadable(NEW_ANSWERS)
        .help("URLs of the TURN servers.")
        .page("docs/run/deployment.md#a-turn-relay");

const TURNSERVER_TTL: Setting<Duration> =
    Setting::new("TURNSERVER_TTL", "86400", |text| seconds(text, UP_TO_A_MILLION))
        .accepts(FROM_ONE)
        .reloadable(NEW_ANSWERS)
        .help("Seconds that TURN credentials are valid.");

pub(super) const STUNSERVER_URLS: Setting<Vec<String>> =
    Setting::new("STUNSERVER_URLS", "[]", |text| list_of(text, |url| url_of(url, false)))
        .accepts("a list of URLs such as stun:stun.example.com:3478 (RFC 7064)")
        .reloadable(NEW_ANSWERS)
        .help("URLs of STUN servers, offered in addition to TURN; guests get these alone.");

const TURN_PROBE_SECONDS: Setting<Duration> =
    Setting::new("TURN_PROBE_SECONDS", "60", |text| seconds(text, 0..=86_400))
        .accepts("a whole number from 0 to 86400; 0 = never")
        .help(
            "Interval in seconds at which the server tests each TURN URL with fresh credentials. URLs that do not \
             relay are handed out last.",
        ).page("docs/run/operations.md#how-turn-is-tried");

pub(super) const SECTION: Section = Section {
    title: "STUN and TURN servers",
    settings: &[
        TURNSERVER_SECRET.declaration,
        TURNSERVER_URL.declaration,
        TURNSERVER_URLS.declaration,
        TURNSERVER_TTL.declaration,
        STUNSERVER_URLS.declaration,
        TURN_PROBE_SECONDS.declaration,
    ],
};

impl IceSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { probe_interval: reader.get(&TURN_PROBE_SECONDS) }
    }
}

impl ReloadableIce {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let secret = reader.get(&TURNSERVER_SECRET).unwrap_or_default();
        let (url, urls) = (reader.get(&TURNSERVER_URL), reader.get(&TURNSERVER_URLS));
        let urls = if urls.is_empty() { url } else { urls };
        let turn = TurnSettings { secret, urls, ttl: reader.get(&TURNSERVER_TTL) };
        Self { turn, stun_urls: reader.get(&STUNSERVER_URLS) }
    }
}

/// A well-formed URL, of a server that relays or of one that does not.
fn url_of(text: &str, relays: bool) -> Option<String> {
    let url = IceServerUrl::parse(text)?;
    (url.is_turn == relays).then(|| text.to_owned())
}
