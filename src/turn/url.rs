//! STUN and TURN URLs (RFC 7064, RFC 7065).

use std::net::Ipv6Addr;

/// Where a STUN or TURN server listens, and what it speaks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayUrl {
    /// `turn` or `turns`: it relays. Else `stun` or `stuns`: it says who one is, seen from outside.
    pub relays: bool,
    /// How messages get there.
    pub transport: Transport,
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// As given, or the scheme's own: 3478, with TLS 5349.
    pub port: u16,
}

/// What carries STUN messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `turn:` and `stun:` where nothing else is said.
    Udp,
    /// `turn:…?transport=tcp`.
    Tcp,
    /// `turns:` and `stuns:`.
    Tls,
    /// `turns:…?transport=udp`.
    Dtls,
}

impl RelayUrl {
    /// Reads `scheme:host[:port][?transport=udp|tcp]`, the last for TURN alone (RFC 7064 section 3.1, RFC 7065
    /// section 3.1). `None` where a browser would not take it: one bad URL, and `new RTCPeerConnection` throws in
    /// every client.
    pub fn read(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (relays, is_secure) = match scheme {
            "stun" => (false, false),
            "stuns" => (false, true),
            "turn" => (true, false),
            "turns" => (true, true),
            _ => return None,
        };
        let (address, query) =
            rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
        let transport = match (query, is_secure) {
            (None, false) => Transport::Udp,
            (None, true) => Transport::Tls,
            (Some("transport=udp"), false) if relays => Transport::Udp,
            (Some("transport=udp"), true) if relays => Transport::Dtls,
            (Some("transport=tcp"), false) if relays => Transport::Tcp,
            (Some("transport=tcp"), true) if relays => Transport::Tls,
            (Some(_), _) => return None,
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None if is_secure => 5349,
            None => 3478,
        };
        let named = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let ip_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match ip_v6 {
            Some(host) => host.parse::<Ipv6Addr>().is_ok().then_some(host)?,
            None => named.then_some(host)?,
        };
        Some(Self { relays, transport, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_that_browsers_take() {
        for good in [
            "turn:a",
            "turn:a.b-c:3478",
            "turns:192.0.2.1:5349?transport=tcp",
            "turn:[2001:db8::1]:3478?transport=udp",
            "turn:[2001:db8::1]",
            "stun:a:3478",
            "stuns:a",
        ] {
            assert!(RelayUrl::read(good).is_some(), "{good}");
        }
        for bad in [
            "turn:",
            "turn:[bad",
            "turn:[::1",
            "turn:a:",
            "turn:a:0",
            "turn:a:99999",
            "turn:a?x",
            "turn://a",
            "turn:a b",
            "turn:u@a",
            "turn:a/b",
            "stun:a?transport=udp",
            "http:a",
            "",
        ] {
            assert!(RelayUrl::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_a_url_leaves_out_is_as_the_standards_have_it() {
        use Transport::{Dtls, Tcp, Tls, Udp};
        for (url, relays, transport, host, port) in [
            ("stun:a", false, Udp, "a", 3478),
            ("stuns:a", false, Tls, "a", 5349),
            ("turn:a", true, Udp, "a", 3478),
            ("turn:a:80?transport=tcp", true, Tcp, "a", 80),
            ("turns:a", true, Tls, "a", 5349),
            ("turns:a:443?transport=tcp", true, Tls, "a", 443),
            ("turns:a?transport=udp", true, Dtls, "a", 5349),
            ("turn:[::1]", true, Udp, "::1", 3478),
            ("turn:[::1]:5", true, Udp, "::1", 5),
        ] {
            let expected = RelayUrl { relays, transport, host: host.to_owned(), port };

            assert_eq!(RelayUrl::read(url), Some(expected), "{url}");
        }
    }
}
