//! Where events are posted, and where they may not be.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use hyper::http::uri::PathAndQuery;
use url::{Host, Url};

/// One of `WEBHOOK_URLS`. Path and query may hold a secret: they are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether by TLS.
    pub is_tls: bool,
    /// A name or an address.
    pub host: Host<String>,
    /// Where it listens.
    pub port: u16,
    /// Path and query, as a request names them.
    pub path: String,
    /// Whether it may be in a private network.
    pub may_be_private: bool,
}

/// Why events cannot be posted to a URL. Never says the URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// It has another scheme, no host, or is none at all.
    #[error("is no https:// URL")]
    NoUrl,
    /// Everybody on the way would read who meets whom.
    #[error("is not encrypted: http:// needs WEBHOOK_ALLOW_PRIVATE=true")]
    Plain,
    /// It names an address that only this network has.
    #[error("leads to {0}, which is no public address and needs WEBHOOK_ALLOW_PRIVATE=true")]
    Private(IpAddr),
    /// It has a user or a password.
    #[error("has a user name or a password: verify the signature instead")]
    Userinfo,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// [`BadTarget`].
    pub fn read(text: &str, may_be_private: bool) -> Result<Self, BadTarget> {
        let url = Url::parse(text).map_err(|_| BadTarget::NoUrl)?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" if may_be_private => false,
            "http" => return Err(BadTarget::Plain),
            _ => return Err(BadTarget::NoUrl),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadTarget::Userinfo);
        }
        let host = url.host().ok_or(BadTarget::NoUrl)?.to_owned();
        let port = url.port_or_known_default().ok_or(BadTarget::NoUrl)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        if path.parse::<PathAndQuery>().is_err() {
            return Err(BadTarget::NoUrl); // longer than a request may name
        }
        let target = Self { is_tls, host, port, path, may_be_private };
        match target.address() {
            Some(address) if !target.allows(address) => Err(BadTarget::Private(address)),
            Some(_) | None => Ok(target),
        }
    }

    /// The address that it names, if it names no name.
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// Host and port, as the `Host` of a request has them.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            _ => self.to_string(),
        }
    }

    /// Whether events may go to this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.may_be_private || is_public(address)
    }
}

/// Host and port.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Whether an address is somebody's on the Internet: what IANA's registries of special addresses hold is not
/// (RFC 6890), nor what leads to such an IPv4 address by another name.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.segments() {
            // NAT64 (RFC 6052): the last half is the IPv4 address.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_public_v4((u32::from(high) << 16 | u32::from(low)).into())
            }
            [0x2001, second, ..] if second < 0x200 => false, // for protocols, Teredo among them
            [0x2001, 0xdb8, ..] => false,                    // documentation
            [0x2002, ..] => false,                           // 6to4, which holds an IPv4 address
            [0x3fff, second, ..] if second < 0x1000 => false, // documentation
            [first, ..] => first & 0xe000 == 0x2000,         // all that is global unicast
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        [0 | 10 | 127 | 224..=255, ..] => true, // this network, private, loopback, multicast and reserved
        [100, second, ..] => (64..128).contains(&second), // carriers' NAT
        [169, 254, ..] => true,                 // link-local
        [172, second, ..] => (16..32).contains(&second), // private
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 168, ..] => true, // protocols, documentation, 6to4, private
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true, // benchmarks, documentation
        _ => false,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in [
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn an_address_is_seen_however_it_is_spelled() {
        for private in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://１２７.0.0.1/",
            "https://0/",
        ] {
            assert!(
                matches!(Target::read(private, false), Err(BadTarget::Private(_))),
                "{private}"
            );
            assert!(Target::read(private, true).is_ok(), "{private}");
        }
    }

    #[test]
    fn what_is_no_url_for_events_is_refused_without_being_repeated() {
        let long = format!("https://hooks.example.com/{}", "x".repeat(70_000));
        for (url, may_be_private, fault) in [
            (long.as_str(), false, BadTarget::NoUrl),
            ("", false, BadTarget::NoUrl),
            ("hooks.example.com/x", false, BadTarget::NoUrl),
            ("ftp://hooks.example.com/x", true, BadTarget::NoUrl),
            ("file:///etc/passwd", true, BadTarget::NoUrl),
            ("https://", false, BadTarget::NoUrl),
            ("http://hooks.example.com/x", false, BadTarget::Plain),
            ("https://user:hunter2@hooks.example.com/", false, BadTarget::Userinfo),
        ] {
            assert_eq!(Target::read(url, may_be_private), Err(fault), "{url}");
        }
        let strange = r"https://hooks.example.com/a b/é/{x}|^`[]?q={a}|^`'<é>\#part";
        assert!(Target::read(strange, false).is_ok());
        let target = Target::read("https://hooks.example.com/T0/hunter2?key=hunter2", false);
        let target = target.unwrap();
        assert_eq!(target.path, "/T0/hunter2?key=hunter2");
        assert_eq!(format!("{target} {target:?}").matches("hooks.example.com:443").count(), 2);
        assert!(!format!("{target} {target:?}").contains("hunter2"));
    }
}
