//! Several servers that share rooms through Redis.

use std::fs;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::SecretString;

use super::{
    declare::{Section, Setting},
    parse::{Parsed, Reader, found, optional},
};
use crate::cluster;

/// How this server reaches the others.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// `REDIS_URL`: what the servers share; several share the rooms out. Empty = a single server.
    pub redis_urls: Vec<SecretString>,
    /// `REDIS_CA_FILE`, as PEM: the authority that signed the certificates of `rediss://`; none = those that the system trusts.
    pub redis_authority: Option<Vec<u8>>,
    /// `NODE_ID`: the name of this server among them; none = a new one at each start.
    pub node_id: Option<String>,
}

const REDIS_URL: Setting<Vec<SecretString>> = Setting::new("REDIS_URL", "", urls)
    .accepts(
        "redis://[user:password@]host:port[/number], redis+sentinel://[user:password@]host:port;host:port/service or \
         redis+cluster://[user:password@]host:port;host:port",
    )
    .holds_credentials()
    .help(
        "Redis that several servers share, such as `redis://:password@10.0.0.5:6379`, with TLS `rediss://`, or by \
         its sentinels `redis+sentinel://:password@10.0.0.6;10.0.0.7;10.0.0.8/signaling`, or a Redis Cluster by some \
         of its nodes `redis+cluster://:password@10.0.0.6;10.0.0.7`. Special characters of the password are \
         percent-encoded (`%40` for `@`). A list with commas shares the rooms out. Empty: a single server.",
    )
    .page("docs/run/scaling.md#several-servers");

const REDIS_CA_FILE: Setting<Option<Vec<u8>>> =
    Setting::new("REDIS_CA_FILE", "", |text| optional(text, authority))
        .accepts("a PEM file that can be read")
        .help(
            "Certificate authority that signed the certificates of `rediss://`, as PEM. Empty: the authorities that \
             the system trusts.",
        );

const NODE_ID: Setting<Option<String>> =
    Setting::new("NODE_ID", "", |text| optional(text, node_id))
        .accepts("1 to 64 characters of A-Z a-z 0-9 - _")
        .help("Name of this server among those that share Redis. Empty: a new one at each start.");

pub(super) const SECTION: Section = Section {
    title: "Several servers",
    settings: &[REDIS_URL.declaration, REDIS_CA_FILE.declaration, NODE_ID.declaration],
};

impl ClusterSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let redis_urls = reader.get(&REDIS_URL);
        if let Err(problem) = cluster::parse_endpoints(&redis_urls, None) {
            reader.reject(&REDIS_URL.declaration, problem.to_string());
        }
        Self {
            redis_urls,
            redis_authority: reader.get(&REDIS_CA_FILE),
            node_id: reader.get(&NODE_ID),
        }
    }
}

/// Not a [`list`](super::parse::list), for an URL may hold any sign.
fn urls(text: &str) -> Parsed<Vec<SecretString>> {
    let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
    Ok(urls.map(SecretString::from).collect())
}

fn authority(path: &str) -> Parsed<Vec<u8>> {
    // Tried as it will be used, because a PEM file may hold something other than a certificate.
    let trial = [SecretString::from("rediss://localhost")];
    let is_one = |pem: &Vec<u8>| {
        CertificateDer::from_pem_slice(pem).is_ok()
            && cluster::parse_endpoints(&trial, Some(pem)).is_ok()
    };
    found(fs::read(path).ok().filter(is_one))
}

fn node_id(text: &str) -> Parsed<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    found((text.len() <= 64 && text.bytes().all(fits)).then(|| text.to_owned()))
}
