//! The start of a connection with `PROXY_PROTOCOL=true`: a header of the PROXY protocol, or not.

use std::net::{IpAddr, SocketAddr};

use signaling::net::{ProxyHeader, ProxyHeaderError, read_proxy_header};

const MAX_V1_BYTES: usize = 107;
const MAX_V2_BYTES: usize = 4096;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// `PP2_TYPE_SSL` and its `PP2_CLIENT_SSL`.
const TLV_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 1;

/// What the header says, and its length.
type Reading = Result<(ProxyHeader, usize), ProxyHeaderError>;

/// The bytes of a connection from its start. The reading is that of proxy-protocol.txt, and what follows the header is left.
pub fn proxy_header(data: &[u8]) {
    let expected = read_by_specification(data);

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut unread = data;
    let header = runtime.block_on(read_proxy_header(&mut unread));

    assert_eq!(header, expected.map(|(header, _)| header));
    let used = data.len() - unread.len();
    assert!(used <= MAX_V2_BYTES, "{used} bytes are read");
    if let Ok((_, length)) = expected {
        assert_eq!(used, length, "what follows the header is not read");
    }
}

/// The same by the specification, from bytes that are all there.
fn read_by_specification(bytes: &[u8]) -> Reading {
    match bytes.first() {
        Some(b'P') => read_line(bytes),
        Some(b'\r') => read_binary(bytes),
        _ => Err(ProxyHeaderError::Missing),
    }
}

/// Section 2.1: one line of ASCII.
fn read_line(bytes: &[u8]) -> Reading {
    let start = b"PROXY ";
    if bytes.iter().zip(start).any(|(byte, expected)| byte != expected) {
        return Err(ProxyHeaderError::Missing);
    }
    let longest = bytes.get(..MAX_V1_BYTES).unwrap_or(bytes);
    let Some(end) = longest.iter().position(|byte| *byte == b'\n') else {
        let is_cut = bytes.len() < MAX_V1_BYTES;
        return Err(if is_cut { ProxyHeaderError::Malformed } else { ProxyHeaderError::TooLong });
    };
    let client = client_of_line(&bytes[start.len()..end]).ok_or(ProxyHeaderError::Malformed)?;
    Ok((ProxyHeader { client, tls: false }, end + 1))
}

/// The client in what stands between `PROXY ` and the line feed.
fn client_of_line(rest: &[u8]) -> Option<Option<SocketAddr>> {
    let (end, rest) = rest.split_last()?;
    if *end != b'\r' || rest.contains(&b'\r') {
        return None;
    }
    if rest.starts_with(b"UNKNOWN") {
        return Some(None); // whatever else is in the line
    }
    let fields: Vec<&str> = str::from_utf8(rest).ok()?.split(' ').collect();
    let [family, client, server, client_port, server_port] = fields[..] else { return None };
    let (client, server): (IpAddr, IpAddr) = (client.parse().ok()?, server.parse().ok()?);
    let (client_port, _): (u16, u16) = (client_port.parse().ok()?, server_port.parse().ok()?);
    let is_of = |address: IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    (is_of(client) && is_of(server)).then(|| Some(SocketAddr::new(client, client_port)))
}

/// Section 2.2: a fixed part, addresses, and further values.
fn read_binary(bytes: &[u8]) -> Reading {
    let fixed = bytes.get(..16).ok_or(ProxyHeaderError::Malformed)?;
    if !fixed.starts_with(V2_SIGNATURE) {
        return Err(ProxyHeaderError::Missing);
    }
    let length = 16 + usize::from(fixed[14]) * 256 + usize::from(fixed[15]);
    if length > MAX_V2_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    let rest = bytes.get(16..length).ok_or(ProxyHeaderError::Malformed)?;
    let address_length = match fixed[13] {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    let (addresses, values) =
        rest.split_at_checked(address_length).ok_or(ProxyHeaderError::Malformed)?;
    let client = match (fixed[12], fixed[13]) {
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => None,
        (0x21, 0x11) => Some(client_of::<4>(addresses)),
        (0x21, 0x21) => Some(client_of::<16>(addresses)),
        _ => return Err(ProxyHeaderError::Malformed), // datagrams, other versions and commands
    };
    Ok((ProxyHeader { client, tls: says_tls(values) }, length))
}

/// The client in two addresses of `N` bytes and two ports.
fn client_of<const N: usize>(addresses: &[u8]) -> SocketAddr
where
    IpAddr: From<[u8; N]>,
{
    let address: [u8; N] = addresses[..N].try_into().expect("as many bytes");
    let port = u16::from_be_bytes([addresses[2 * N], addresses[2 * N + 1]]);
    SocketAddr::new(IpAddr::from(address), port)
}

/// What the first whole value about TLS says; values that are cut off are none.
fn says_tls(mut values: &[u8]) -> bool {
    while let [kind, high, low, rest @ ..] = values {
        let length = usize::from(*high) * 256 + usize::from(*low);
        let Some((value, others)) = rest.split_at_checked(length) else { break };
        if *kind == TLV_SSL && value.len() >= 5 {
            return value[0] & CLIENT_SSL != 0;
        }
        values = others;
    }
    false
}
