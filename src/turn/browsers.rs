//! STUN and TURN URLs that are correct, and that a browser refuses or does not use.

use std::fmt;

use super::{IceServerUrl, StunTransport};

/// The ports that Firefox refuses in a STUN or TURN URL: those that the Fetch standard blocks (section "Port blocking"),
/// except 53. Firefox 153 was asked about every port up to 11000. `examples/turn_credentials_example.html` has the same
/// list.
#[rustfmt::skip]
pub const BLOCKED_PORTS: [u16; 81] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540,
    548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000,
    6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];

/// What a browser does with a URL other than to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserLimit {
    /// `stuns:`.
    Stuns,
    /// A port of [`BLOCKED_PORTS`].
    BlockedPort(u16),
    /// A port at which Chromium uses no TURN server.
    ChromiumPort(u16),
    /// `turns:` with an IP address.
    TlsAddress,
    /// `turns:…?transport=udp`.
    Dtls,
}

impl BrowserLimit {
    /// What to do about it.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Stuns => "use stun:",
            Self::BlockedPort(_) | Self::ChromiumPort(_) => {
                "let the server listen on 443, 80, 3478 or 5349, too, and name that port"
            }
            Self::TlsAddress => "name the server, with a certificate for that name",
            Self::Dtls => "write ?transport=tcp",
        }
    }
}

impl fmt::Display for BrowserLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuns => f.write_str(
                "Firefox refuses stuns: and makes no connection at all where one is in the list; Chromium sends plain UDP",
            ),
            Self::BlockedPort(port) => write!(
                f,
                "Firefox refuses port {port} and makes no connection at all where it is in the list",
            ),
            Self::ChromiumPort(port) => write!(
                f,
                "Chromium uses no TURN server on port {port}: of those below 1024 only 80 and 443",
            ),
            Self::TlsAddress => f.write_str("Firefox uses no turns: server by its IP address"),
            Self::Dtls => f.write_str("no browser uses DTLS: this URL goes over TLS on TCP"),
        }
    }
}

impl IceServerUrl {
    /// Why browsers refuse this URL, or do not use it.
    pub fn browser_limits(&self) -> Vec<BrowserLimit> {
        let Self { is_turn, transport, port, .. } = *self;
        let is_tls = matches!(transport, StunTransport::Tls | StunTransport::Dtls);
        let is_blocked = BLOCKED_PORTS.contains(&port);
        // libwebrtc also accepts 53 (`TurnPort::AllowedTurnPort`); Chromium 156 gathered nothing there, nor on 5061.
        let is_unused = is_turn && (port < 1024 && ![80, 443].contains(&port) || port == 5061);
        let limits = [
            (is_tls && !is_turn, BrowserLimit::Stuns),
            (is_blocked, BrowserLimit::BlockedPort(port)),
            (is_unused && !is_blocked, BrowserLimit::ChromiumPort(port)),
            (is_tls && is_turn && self.is_address(), BrowserLimit::TlsAddress),
            (transport == StunTransport::Dtls, BrowserLimit::Dtls),
        ];
        limits.into_iter().filter(|(is_met, _)| *is_met).map(|(_, limit)| limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../examples/turn_credentials_example.html");

    fn limits(url: &str) -> Vec<BrowserLimit> {
        IceServerUrl::parse(url).unwrap().browser_limits()
    }

    #[test]
    fn the_urls_of_the_documents_work_in_every_browser() {
        for url in [
            "stun:stun.example.com:3478",
            "stun:a:53",
            "turn:turn.example.com:3478",
            "turn:turn.example.com:3478?transport=tcp",
            "turns:turn.example.com:5349?transport=tcp",
            "turns:turn.example.com:443",
            "turn:192.0.2.1:80",
            "turn:[2001:db8::1]:3478",
        ] {
            assert_eq!(limits(url), [], "{url}");
        }
    }

    #[test]
    fn what_a_browser_does_not_use_is_told() {
        use BrowserLimit::{BlockedPort, ChromiumPort, Dtls, Stuns, TlsAddress};
        for (url, expected) in [
            ("stuns:a", &[Stuns][..]),
            ("stun:a:5060", &[BlockedPort(5060)]),
            ("stun:a:444", &[]),
            ("turn:a:5061?transport=tcp", &[BlockedPort(5061)]),
            ("turn:a:993", &[BlockedPort(993)]),
            ("turn:a:53", &[ChromiumPort(53)]),
            ("turn:a:1023", &[ChromiumPort(1023)]),
            ("turn:a:1024", &[]),
            ("turns:192.0.2.1", &[TlsAddress]),
            ("turns:[2001:db8::1]:443", &[TlsAddress]),
            ("turns:a?transport=udp", &[Dtls]),
            ("stuns:a:993", &[Stuns, BlockedPort(993)]),
        ] {
            assert_eq!(limits(url), expected, "{url}");
        }
    }

    /// The page tests from a browser, without the server: it has the list and the sentences once more.
    #[test]
    fn the_page_says_the_same() {
        let ports: Vec<_> = BLOCKED_PORTS.iter().map(u16::to_string).collect();
        let (_, list) = PAGE.split_once("const BLOCKED_PORTS = new Set([").unwrap();
        let (list, _) = list.split_once("])").unwrap();
        let of_page: Vec<_> =
            list.split(',').map(str::trim).filter(|port| !port.is_empty()).collect();

        assert_eq!(of_page, ports);
        for limit in [
            BrowserLimit::Stuns,
            BrowserLimit::BlockedPort(1),
            BrowserLimit::ChromiumPort(1),
            BrowserLimit::TlsAddress,
            BrowserLimit::Dtls,
        ] {
            let sentence = limit.to_string().replace("port 1", "port ${port}");
            assert!(PAGE.contains(&sentence), "{sentence}");
            assert!(PAGE.contains(limit.fix()), "{}", limit.fix());
        }
    }
}
