//! STUN and TURN URLs (RFC 7064, RFC 7065).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a STUN or TURN server listens, and over which transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServerUrl {
    /// Whether the scheme is `turn` or `turns`, not `stun` or `stuns`.
    pub is_turn: bool,
    /// What carries the messages.
    pub transport: StunTransport,
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// The port in the URL, or the scheme's default: 3478, with TLS 5349.
    pub port: u16,
}

/// What carries STUN messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunTransport {
    /// `turn:` and `stun:` without a `transport`.
    Udp,
    /// `turn:…?transport=tcp`.
    Tcp,
    /// `turns:` and `stuns:`.
    Tls,
    /// `turns:…?transport=udp`, which browsers send over TLS on TCP like [`Self::Tls`].
    Dtls,
}

impl IceServerUrl {
    /// Parses `scheme:host[:port][?transport=udp|tcp]`, the transport for TURN alone (RFC 7064 section 3.1, RFC 7065
    /// section 3.1). `None` if it is malformed: with one such URL `new RTCPeerConnection` throws in every browser. What a
    /// browser does not use is in [`Self::browser_limits`].
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (is_turn, is_secure) = match scheme {
            "stun" => (false, false),
            "stuns" => (false, true),
            "turn" => (true, false),
            "turns" => (true, true),
            _ => return None,
        };
        let (address, query) =
            rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
        let transport = match (query, is_secure) {
            (None, false) => StunTransport::Udp,
            (None, true) => StunTransport::Tls,
            (Some("transport=udp"), false) if is_turn => StunTransport::Udp,
            (Some("transport=udp"), true) if is_turn => StunTransport::Dtls,
            (Some("transport=tcp"), false) if is_turn => StunTransport::Tcp,
            (Some("transport=tcp"), true) if is_turn => StunTransport::Tls,
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
        // A host that ends in a number is an IPv4 address or nothing (URL standard, host parser).
        let ends_in_number =
            host.rsplit('.').find(|label| !label.is_empty()).is_some_and(|label| {
                label.bytes().all(|byte| byte.is_ascii_digit()) || label.starts_with("0x")
            });
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            && (!ends_in_number || host.parse::<Ipv4Addr>().is_ok());
        let ip_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match ip_v6 {
            Some(host) => host.parse::<Ipv6Addr>().is_ok().then_some(host)?,
            None => is_name.then_some(host)?,
        };
        Some(Self { is_turn, transport, host: host.to_owned(), port })
    }

    /// Whether the host is an IP address.
    pub fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_that_browsers_accept_are_accepted() {
        for good in [
            "turn:a",
            "turn:a.b-c:3478",
            "turns:192.0.2.1:5349?transport=tcp",
            "turn:[2001:db8::1]:3478?transport=udp",
            "turn:[2001:db8::1]",
            "stun:a:3478",
            "stuns:a",
        ] {
            assert!(IceServerUrl::parse(good).is_some(), "{good}");
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
            "turn:256.1.1.1",
            "turn:1.2.3",
            "turn:a.1:3478",
            "turn:a.0x7f",
            "stun:a?transport=udp",
            "http:a",
            "",
        ] {
            assert!(IceServerUrl::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn transport_and_port_default_as_in_the_standards() {
        use StunTransport::{Dtls, Tcp, Tls, Udp};
        for (url, is_turn, transport, host, port) in [
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
            let expected = IceServerUrl { is_turn, transport, host: host.to_owned(), port };

            assert_eq!(IceServerUrl::parse(url), Some(expected), "{url}");
        }
    }
}
