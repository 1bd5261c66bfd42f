//! Where the server listens, with or without TLS of its own, and which proxies it trusts.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::IpNet;

use crate::{net::UnixSocketFile, tls::TlsFiles};

use super::{
    declare::{Section, Setting},
    error::ConfigError,
    parse::{Parsed, Reader, TRUE_OR_FALSE, flag, found, list_of, number, optional, path},
};

/// How clients reach the server.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// `HOST`: an address or a host name, IPv6 without brackets; or `unix:` and a path.
    pub host: String,
    /// `PORT`; 0 lets the system choose.
    pub port: u16,
    /// `REQUIRE_HTTPS`: refuses requests that came neither by the server's own TLS nor by that of a trusted proxy.
    /// With TLS of its own the server always does.
    pub require_https: bool,
    /// `SSL_CERT_FILE`, `SSL_KEY_FILE`, `SSL_SELF_SIGNED`: TLS on the listening port.
    pub tls: Option<TlsFiles>,
    /// `TLS_SESSION_TICKETS`: whether clients that come back resume their TLS session.
    pub session_tickets: bool,
    /// `UNIX_SOCKET_MODE`: the permissions of a Unix socket.
    pub unix_socket_mode: u32,
    /// `UNIX_SOCKET_GROUP`: its group.
    pub unix_socket_group: Option<String>,
    /// `PROXY_PROTOCOL`: whether each connection begins with a PROXY header of a trusted proxy.
    pub proxy_protocol: bool,
    /// `TRUSTED_PROXIES`: whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Stands before the path of a Unix socket.
const UNIX_PREFIX: &str = "unix:";

/// The longest path of a Unix socket, in bytes (unix(7)), less what its unfinished file has in addition.
const MAX_SOCKET_PATH: usize = 90;

pub(super) const HOST: Setting<String> = Setting::new("HOST", "0.0.0.0", host)
    .accepts("an address such as 127.0.0.1 or ::, or a host name, without a port; or unix: and an absolute path")
    .help(
        "Address to listen on: an IP address, or a host name. `0.0.0.0` is every IPv4 address of the machine. \
         `unix:/run/signaling/socket` is a Unix socket for a proxy on this machine, which is always trusted.",
    );

const UNIX_SOCKET_MODE: Setting<u32> = Setting::new("UNIX_SOCKET_MODE", "660", mode)
    .accepts("an octal number from 600 to 777, such as 660")
    .help("Permissions of the Unix socket in `HOST`: who may write to it may connect.");

const UNIX_SOCKET_GROUP: Setting<Option<String>> =
    Setting::new("UNIX_SOCKET_GROUP", "", |text| optional(text, |text| Ok(text.to_owned())))
        .accepts("the name or the number of a group")
        .help("Group of the Unix socket in `HOST`, such as the group of the proxy. Empty: the group of the server.");

pub(super) const PROXY_PROTOCOL: Setting<bool> =
    Setting::new("PROXY_PROTOCOL", "false", flag).accepts(TRUE_OR_FALSE).help(
        "Reads the client's address from the header of the PROXY protocol (version 1 or 2), which each connection must \
         begin with. Only `TRUSTED_PROXIES` may send it; other connections are closed.",
    ).page("docs/run/proxies.md#tcp-proxies");

pub(super) const PORT: Setting<u16> = Setting::new("PORT", "8000", |text| number(text, 0..=65_535))
    .accepts("a port from 0 to 65535")
    .help("Port to listen on. `0` takes a free one, which the log shows.");

const REQUIRE_HTTPS: Setting<bool> =
    Setting::new("REQUIRE_HTTPS", "true", flag).accepts(TRUE_OR_FALSE).help(
        "Redirects `GET` requests that did not arrive over TLS, and refuses all others; `/health` stays open. TLS of \
         a trusted proxy counts if the proxy says so in `X-Forwarded-Proto`, as `deploy/nginx.conf` does. Always on \
         when the server itself serves TLS.",
    );

const SSL_CERT_FILE: Setting<Option<PathBuf>> = Setting::new("SSL_CERT_FILE", "", path)
    .accepts("the path of a PEM file")
    .help(
        "Certificate chain, the server's own certificate first. With `SSL_KEY_FILE`, too, the server serves TLS on \
         `PORT`, and reads both files again when they change. Alone it has no effect here: OpenSSL uses a variable \
         of the same name.",
    );

const SSL_KEY_FILE: Setting<Option<PathBuf>> = Setting::new("SSL_KEY_FILE", "", path)
    .accepts("the path of a PEM file")
    .help("Private key of the certificate in `SSL_CERT_FILE`.");

const SSL_SELF_SIGNED: Setting<bool> =
    Setting::new("SSL_SELF_SIGNED", "false", flag).accepts(TRUE_OR_FALSE).help(
        "Creates `ssl/server.crt` and `ssl/server.key` for localhost where they are missing, and uses them unless \
         `SSL_CERT_FILE` and `SSL_KEY_FILE` name other files.",
    );

const TLS_SESSION_TICKETS: Setting<bool> =
    Setting::new("TLS_SESSION_TICKETS", "true", flag).accepts(TRUE_OR_FALSE).help(
        "With TLS of its own: clients that come back within a day resume their TLS session, also after a restart \
         or on another server of `REDIS_URL`, without the certificate and its signature. The keys for it are random, \
         new every hour, and in a file beside that of `STATE_FILE` (`.tickets`), readable by its owner only; servers \
         share them through Redis, encrypted under `SECRET_KEY`.",
    );

const TRUSTED_PROXIES: Setting<Vec<IpNet>> =
    Setting::new("TRUSTED_PROXIES", "[\"127.0.0.0/8\",\"::1\"]", |text| list_of(text, network))
        .accepts("a list of addresses or networks such as 10.0.0.0/8")
        .help(
            "Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` the server believes. The address of a client is \
             the rightmost one that no trusted proxy has.",
        );

pub(super) const SECTION: Section = Section {
    title: "Listening and HTTPS",
    settings: &[
        HOST.declaration,
        PORT.declaration,
        UNIX_SOCKET_MODE.declaration,
        UNIX_SOCKET_GROUP.declaration,
        REQUIRE_HTTPS.declaration,
        SSL_CERT_FILE.declaration,
        SSL_KEY_FILE.declaration,
        SSL_SELF_SIGNED.declaration,
        TLS_SESSION_TICKETS.declaration,
        TRUSTED_PROXIES.declaration,
        PROXY_PROTOCOL.declaration,
    ],
};

impl ListenSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let listen = Self {
            host: reader.get(&HOST),
            port: reader.get(&PORT),
            unix_socket_mode: reader.get(&UNIX_SOCKET_MODE),
            unix_socket_group: reader.get(&UNIX_SOCKET_GROUP),
            require_https: reader.get(&REQUIRE_HTTPS),
            tls: tls(reader),
            session_tickets: reader.get(&TLS_SESSION_TICKETS),
            trusted_proxies: reader.get(&TRUSTED_PROXIES),
            proxy_protocol: reader.get(&PROXY_PROTOCOL),
        };
        let is_unix = listen.unix_socket().is_some();
        if is_unix && listen.tls.is_some() {
            reader.errors.push(ConfigError::new(
                HOST.name(),
                "is a Unix socket, and the server has TLS of its own on TCP only",
                "leave SSL_CERT_FILE, SSL_KEY_FILE and SSL_SELF_SIGNED empty: the proxy terminates TLS",
            ));
        }
        if listen.proxy_protocol && !is_unix && listen.trusted_proxies.is_empty() {
            reader.errors.push(ConfigError::new(
                PROXY_PROTOCOL.name(),
                "closes every connection while TRUSTED_PROXIES is empty",
                "name the address of the proxy in TRUSTED_PROXIES",
            ));
        }
        listen
    }

    /// The file of the Unix socket to listen on, if `HOST` names one.
    pub fn unix_socket(&self) -> Option<UnixSocketFile> {
        let path = self.host.strip_prefix(UNIX_PREFIX)?.into();
        Some(UnixSocketFile {
            path,
            mode: self.unix_socket_mode,
            group: self.unix_socket_group.clone(),
        })
    }
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let (certificate, key) = (reader.get(&SSL_CERT_FILE), reader.get(&SSL_KEY_FILE));
    let self_signed = reader.get(&SSL_SELF_SIGNED);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, self_signed }),
        (None, Some(_)) => {
            reader.errors.push(ConfigError::new(
                SSL_KEY_FILE.name(),
                "is set but SSL_CERT_FILE is not",
                "set SSL_CERT_FILE, too, or leave both empty",
            ));
            None
        }
        // Many systems tell OpenSSL in SSL_CERT_FILE alone where the certificate authorities are.
        (Some(_) | None, None) => self_signed.then(|| TlsFiles {
            certificate: "ssl/server.crt".into(),
            key: "ssl/server.key".into(),
            self_signed,
        }),
    }
}

fn host(text: &str) -> Parsed<String> {
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        let fits = path.starts_with('/')
            && !path.ends_with('/')
            && path.len() <= MAX_SOCKET_PATH
            && !path.contains(char::is_control);
        return found(fits.then(|| text.to_owned()));
    }
    let host = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    // An IPv6 address may have a zone. A port belongs into PORT.
    let is_ipv6 =
        |text: &str| text.split('%').next().is_some_and(|it| it.parse::<Ipv6Addr>().is_ok());
    let fits = !host.is_empty()
        && (!host.contains(':') || is_ipv6(host))
        && !host.contains(['/', ' ', '[', ']'])
        && !host.contains(char::is_control);
    found(fits.then(|| host.to_owned()))
}

/// File permissions. Without the owner's own right to write the server could not connect to itself.
fn mode(text: &str) -> Parsed<u32> {
    let mode = u32::from_str_radix(text, 8).ok();
    found(mode.filter(|mode| (0o600..=0o777).contains(mode) && mode & 0o600 == 0o600))
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
}
