//! Finds the address and the scheme of a request's client behind any number of trusted proxies.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEndpoint {
    /// The client's own address, as far as trusted proxies report it.
    pub address: IpAddr,
    /// Whether the client used TLS, to this server or to a trusted proxy.
    pub https: bool,
    /// The trusted proxy that the request came from, where it did not say in `X-Forwarded-Proto` whether the client used
    /// TLS.
    pub silent_proxy: Option<IpAddr>,
}

impl ClientEndpoint {
    /// Finds the client of a request with `headers` that came from `peer`, which is none on a Unix socket: a trusted proxy
    /// of this machine. `tls` if over this server's own TLS.
    ///
    /// `X-Forwarded-For` and `X-Forwarded-Proto` count if `peer` is in `trusted`, else they are ignored. Other headers
    /// of proxies (`Forwarded`, RFC 7239) are never read: a header that the proxy in front does not write is the
    /// client's own (contract section 3, `TRUSTED_PROXIES`).
    pub fn from_headers(
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        tls: bool,
        trusted: &[IpNet],
    ) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
        let is_local = peer.is_none();
        let peer = peer.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_canonical();
        if !is_local && !is_trusted(peer) {
            return Self { address: peer, https: tls, silent_proxy: None };
        }
        // From the right: each proxy has appended the address of its own peer, and the client may have written
        // anything to the left of that.
        let mut address = peer;
        for entry in list_entries(headers, "x-forwarded-for").into_iter().rev() {
            let Some(hop) = parse_address(entry) else { break };
            address = hop;
            if !is_trusted(hop) {
                break;
            }
        }
        let schemes = list_entries(headers, "x-forwarded-proto");
        let scheme = schemes.last().filter(|scheme| !scheme.is_empty());
        let https = tls || scheme.is_some_and(|scheme| is_tls_scheme(scheme));
        Self { address, https, silent_proxy: scheme.is_none().then_some(peer) }
    }
}

/// Whether a URL scheme stands for TLS. Traefik writes `wss` for the handshake of a WebSocket.
fn is_tls_scheme(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss")
}

/// The entries of a list header, over all its lines, in order (RFC 9110 section 5.3).
///
/// As bytes: bytes of a client's part of a line that are no text must not hide the part that a proxy appended.
fn list_entries<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    let lines = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).collect()
}

/// Parses an address as proxies write it: bare, with a port, or IPv6 in brackets.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    let bare = || entry.parse().ok();
    let with_port = || entry.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(peer: &str, tls: bool, headers: &[(&'static str, &'static str)]) -> (String, bool) {
        let trusted = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let peer = peer.trim_matches(['[', ']']).parse().unwrap();
        let client = ClientEndpoint::from_headers(&map, Some(peer), tls, &trusted);
        (client.address.to_string(), client.https)
    }

    #[test]
    fn headers_of_an_untrusted_peer_are_ignored() {
        let claims = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];

        assert_eq!(endpoint("203.0.113.5", false, &claims), ("203.0.113.5".into(), false));
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_no_trusted_proxy_has() {
        for (forwarded, client) in [
            ("192.0.2.9", "192.0.2.9"),
            ("evil, 192.0.2.9", "192.0.2.9"),
            ("203.0.113.1, 192.0.2.9", "192.0.2.9"),
            ("203.0.113.1, 192.0.2.9, 10.1.2.3", "192.0.2.9"),
            ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
            ("192.0.2.9, nonsense, 10.1.2.3", "10.1.2.3"),
            ("192.0.2.9:1234", "192.0.2.9"),
            ("[2001:db8::1]:1234", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.9", "192.0.2.9"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(
                endpoint("127.0.0.1", false, &[("x-forwarded-for", forwarded)]).0,
                client,
                "{forwarded}"
            );
        }
    }

    #[test]
    fn several_lines_of_a_header_are_one_list() {
        let headers =
            [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "192.0.2.9, 10.0.0.1")];

        assert_eq!(endpoint("[::ffff:127.0.0.1]", false, &headers).0, "192.0.2.9");
    }

    /// nginx appends to the line that it received, whatever that contains.
    #[test]
    fn bytes_that_are_no_text_do_not_hide_what_a_proxy_appended() {
        let trusted = ["127.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", &b"\xc3\xa9, 192.0.2.9"[..]),
            ("x-forwarded-proto", b"\xff, https"),
        ] {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }

        let client =
            ClientEndpoint::from_headers(&headers, Some([127, 0, 0, 1].into()), false, &trusted);

        let address = [192, 0, 2, 9].into();
        assert_eq!(client, ClientEndpoint { address, https: true, silent_proxy: None });
    }

    #[test]
    fn the_nearest_proxy_says_whether_it_was_https() {
        for (scheme, https) in [
            ("https", true),
            ("HTTPS", true),
            ("wss", true),
            ("WSS", true),
            ("ws", false),
            ("wss, ws", false),
            ("ws, wss", true),
            ("wsss", false),
            ("", false),
            ("http", false),
            ("https, http", false),
            ("http, https", true),
        ] {
            assert_eq!(
                endpoint("127.0.0.1", false, &[("x-forwarded-proto", scheme)]).1,
                https,
                "{scheme}"
            );
        }
        assert!(endpoint("203.0.113.5", true, &[]).1, "the server's own TLS");
    }

    #[test]
    fn a_trusted_proxy_that_reports_no_scheme_is_named() {
        let trusted = ["127.0.0.0/8".parse().unwrap()];
        let silent = |peer: [u8; 4], scheme: Option<&'static str>| {
            let headers = scheme.map(|scheme| {
                (
                    axum::http::HeaderName::from_static("x-forwarded-proto"),
                    HeaderValue::from_static(scheme),
                )
            });
            let headers = headers.into_iter().collect();
            ClientEndpoint::from_headers(&headers, Some(peer.into()), false, &trusted).silent_proxy
        };

        assert_eq!(silent([127, 0, 0, 1], None), Some([127, 0, 0, 1].into()));
        assert_eq!(silent([127, 0, 0, 1], Some("")), Some([127, 0, 0, 1].into()));
        assert_eq!(silent([127, 0, 0, 1], Some("http")), None);
        assert_eq!(silent([203, 0, 113, 5], None), None, "not a trusted proxy");
    }

    #[test]
    fn a_peer_on_a_unix_socket_is_a_trusted_proxy_of_this_machine() {
        let mut headers = HeaderMap::new();
        let client = |headers: &HeaderMap| ClientEndpoint::from_headers(headers, None, false, &[]);
        let local = [127, 0, 0, 1].into();

        assert_eq!(
            client(&headers),
            ClientEndpoint { address: local, https: false, silent_proxy: Some(local) }
        );
        headers.insert("x-forwarded-for", HeaderValue::from_static("evil, 192.0.2.9"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        let address = [192, 0, 2, 9].into();
        assert_eq!(client(&headers), ClientEndpoint { address, https: true, silent_proxy: None });
    }
}
