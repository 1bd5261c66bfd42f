//! Whose pages may use the API and open WebSockets (the Fetch standard's CORS protocol).

use super::{
    declare::{Section, Setting},
    parse::{Parsed, Reader, TRUE_OR_FALSE, flag, list, list_of},
};

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct CorsSettings {
    /// `CORS_ALLOW_CREDENTIALS`: whether browsers may send cookies and authorization along.
    pub allow_credentials: bool,
}

/// What SIGHUP may change.
#[derive(Clone, Debug)]
pub struct ReloadableCors {
    /// `CORS_ORIGINS`.
    pub origins: Origins,
}

/// Origins whose pages may use this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All of them.
    Any,
    /// These, as browsers spell them in `Origin`.
    These(Vec<String>),
}

impl Origins {
    /// Whether a page from `origin` may use this server.
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(origins) => origins.iter().any(|allowed| allowed == origin),
        }
    }
}

pub(super) const CORS_ORIGINS: Setting<Origins> = Setting::new("CORS_ORIGINS", "[\"*\"]", origins)
    .accepts("a list of origins without a path, such as [\"https://app.example.com\"], or [\"*\"] for all")
    .reloadable("every request and every new WebSocket; open ones stay")
    .help("Origins of the pages that may use the REST API and open WebSockets.");

const CORS_ALLOW_CREDENTIALS: Setting<bool> = Setting::new("CORS_ALLOW_CREDENTIALS", "true", flag)
    .accepts(TRUE_OR_FALSE)
    .help("Lets browsers send credentials, such as cookies, with requests to the API.");

pub(super) const SECTION: Section = Section {
    title: "Web pages that may use the server",
    settings: &[CORS_ORIGINS.declaration, CORS_ALLOW_CREDENTIALS.declaration],
};

impl CorsSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { allow_credentials: reader.get(&CORS_ALLOW_CREDENTIALS) }
    }
}

impl ReloadableCors {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { origins: reader.get(&CORS_ORIGINS) }
    }
}

fn origins(text: &str) -> Parsed<Origins> {
    if list(text)?.iter().any(|origin| origin == "*") {
        return Ok(Origins::Any);
    }
    list_of(text, origin).map(Origins::These)
}

/// An origin as browsers spell it (RFC 6454 section 6.2): in lower case, and without the port where it is the scheme's own.
fn origin(text: &str) -> Option<String> {
    let plain = text.trim_end_matches('/').to_ascii_lowercase();
    let usual_port = if plain.starts_with("https:") { ":443" } else { ":80" };
    let plain = plain.strip_suffix(usual_port).map_or(plain.clone(), str::to_owned);
    if plain == "null" {
        return Some(plain);
    }
    let (scheme, host) = plain.split_once("://")?;
    let is_well_formed =
        !host.is_empty() && !host.contains(['/', ' ', '*', '\'', '"', '`', '<', '>']);
    is_well_formed.then(|| in_ascii(host)).flatten().map(|host| format!("{scheme}://{host}"))
}

/// A host with or without port as browsers spell it: an international name in Punycode (RFC 5891).
fn in_ascii(host: &str) -> Option<String> {
    if host.is_ascii() {
        return Some(host.to_owned());
    }
    let (name, port) =
        host.split_once(':').map_or((host, ""), |(name, _)| host.split_at(name.len()));
    Some(url::Host::parse(name).ok()?.to_string() + port)
}
