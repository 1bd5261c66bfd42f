//! Client addresses: only trusted proxies are believed, hop by hop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use signaling::client_ip::ClientEndpoint;

/// Line by line: `http` or `https` and the peer's address; the trusted networks, with commas; then
/// header lines, `f` for `X-Forwarded-For`, `p` for `X-Forwarded-Proto`, `o` for headers that the server ignores.
pub fn forwarded(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let text = |line: Option<&[u8]>| String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
    let first = text(lines.next());
    let (scheme, peer) = first.split_once(' ').unwrap_or_default();
    let (tls, peer) = (scheme == "https", peer.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let trusted: Vec<IpNet> =
        text(lines.next()).split(',').filter_map(|net| net.parse().ok()).collect();
    let (mut headers, mut hops, mut schemes) = (HeaderMap::new(), Vec::new(), Vec::new());
    for line in lines {
        let Some((kind, value)) = line.split_first() else { continue };
        let Ok(header) = HeaderValue::from_bytes(value) else { continue };
        let entries = value.split(|byte| *byte == b',').map(trimmed);
        match kind {
            b'f' => {
                hops.extend(entries);
                headers.append("x-forwarded-for", header);
            }
            b'p' => {
                schemes.extend(entries);
                headers.append("x-forwarded-proto", header);
            }
            _ => {
                for name in ["forwarded", "x-real-ip", "x-client-ip", "cf-connecting-ip"] {
                    headers.append(HeaderName::from_static(name), header.clone());
                }
            }
        }
    }

    let client = ClientEndpoint::from_headers(&headers, Some(peer), tls, &trusted);

    let trusts = |address: IpAddr| trusted.iter().any(|net| is_in(net, address));
    let peer = peer.to_canonical();
    let mut address = peer;
    while trusts(address)
        && let Some(hop) = hops.pop().and_then(read)
    {
        address = hop;
    }
    let says_https = schemes.last().is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss")
    });
    let is_silent = trusts(peer) && schemes.last().is_none_or(|scheme| scheme.is_empty());
    assert_eq!(client.silent_proxy, is_silent.then_some(peer));
    assert_eq!(client.address, address);
    assert_eq!(client.https, tls || (trusts(peer) && says_https));
    if !trusts(peer) {
        assert_eq!(
            (client.address, client.https),
            (peer, tls),
            "headers of an untrusted peer are ignored"
        );
    }
}

fn trimmed(entry: &[u8]) -> &[u8] {
    entry.trim_ascii()
}

/// RFC 4632: an address is in a network if it begins with the same bits.
fn is_in(net: &IpNet, address: IpAddr) -> bool {
    let length = u32::from(net.prefix_len());
    match (net.addr(), address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let differs = u32::from(net) ^ u32::from(address);
            differs.checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let differs = u128::from(net) ^ u128::from(address);
            differs.checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    let address = if entry.contains('%') {
        entry.parse::<SocketAddr>().ok()?.ip() // a zone id, which some proxies write
    } else if let Some(rest) = entry.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_v4 = !address.contains(':');
        if !port.is_empty() && (is_v4 || port.strip_prefix(':').and_then(as_port).is_none()) {
            return None;
        }
        address.parse().ok()?
    } else if let Some((address, port)) =
        entry.split_once(':').filter(|(_, port)| !port.contains(':'))
    {
        as_port(port)?;
        IpAddr::V4(address.parse().ok()?)
    } else {
        entry.parse().ok()?
    };
    Some(address.to_canonical())
}

fn as_port(port: &str) -> Option<u16> {
    port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
}
