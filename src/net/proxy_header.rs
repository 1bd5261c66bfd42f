//! The header of the PROXY protocol, which a TCP proxy sends before the bytes of its client (haproxy.org, proxy-protocol.txt).

use std::{io, net::SocketAddr};

use proxy_header::{ParseConfig, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, in bytes, with its line end (section 2.1).
const MAX_V1_BYTES: usize = 107;

/// The longest header of version 2 that is read, in bytes: addresses and TLS take some hundred, and a certificate's names
/// as many.
const MAX_V2_BYTES: usize = 4096;

/// How a header of version 2 begins (section 2.2), and the bytes before what its length counts.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// What a TCP proxy says of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address; none where the proxy speaks for itself, as in a health check.
    pub client: Option<SocketAddr>,
    /// Whether the proxy says that the client used TLS (`PP2_TYPE_SSL`).
    pub tls: bool,
}

/// Why the start of a connection is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyHeaderError {
    /// It is something else, such as an HTTP request.
    Missing,
    /// It is cut off, or not as the protocol wants it.
    Malformed,
    /// It is longer than the server reads.
    TooLong,
}

impl ProxyHeaderError {
    /// As the log shows it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "header_missing",
            Self::Malformed => "header_malformed",
            Self::TooLong => "header_too_long",
        }
    }
}

impl From<io::Error> for ProxyHeaderError {
    fn from(_: io::Error) -> Self {
        Self::Malformed
    }
}

/// Reads a header from the start of a connection, and no byte more.
///
/// # Errors
///
/// [`ProxyHeaderError`], also where the connection ends before its header does.
pub async fn read_proxy_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<ProxyHeader, ProxyHeaderError> {
    let first = stream.read_u8().await.map_err(|_| ProxyHeaderError::Missing)?;
    match first {
        b'P' => read_v1(stream).await,
        b'\r' => read_v2(stream).await,
        _ => Err(ProxyHeaderError::Missing),
    }
}

/// A line of text.
async fn read_v1(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut line = vec![b'P'];
    while !line.ends_with(b"\n") {
        if line.len() == MAX_V1_BYTES {
            return Err(ProxyHeaderError::TooLong);
        }
        line.push(stream.read_u8().await?);
        if !line.starts_with(b"PROXY ") && !b"PROXY ".starts_with(&line) {
            return Err(ProxyHeaderError::Missing);
        }
    }
    parse(&line)
}

/// A fixed part, and as many bytes as it says.
async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut header = vec![b'\r'; V2_FIXED_BYTES];
    stream.read_exact(header.get_mut(1..).unwrap_or_default()).await?;
    if !header.starts_with(V2_SIGNATURE) {
        return Err(ProxyHeaderError::Missing);
    }
    let length = header.last_chunk().map_or(0, |length| u16::from_be_bytes(*length));
    let length = V2_FIXED_BYTES + usize::from(length);
    if length > MAX_V2_BYTES {
        return Err(ProxyHeaderError::TooLong);
    }
    header.resize(length, 0);
    stream.read_exact(header.get_mut(V2_FIXED_BYTES..).unwrap_or_default()).await?;
    parse(&header)
}

fn parse(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let parsed = proxy_header::ProxyHeader::parse(bytes, ParseConfig::default());
    let (header, length) = parsed.map_err(|_| ProxyHeaderError::Malformed)?;
    let address = header.proxied_address();
    if length != bytes.len() || address.is_some_and(|it| it.protocol != Protocol::Stream) {
        return Err(ProxyHeaderError::Malformed);
    }
    let tls = header.ssl().is_some_and(|ssl| ssl.client_ssl());
    Ok(ProxyHeader { client: address.map(|address| address.source), tls })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, SslInfo, Tlv};

    use super::*;

    type Outcome = Result<ProxyHeader, ProxyHeaderError>;

    /// The outcome, and what is left of `bytes` then.
    fn read(mut bytes: &[u8]) -> (Outcome, &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(read_proxy_header(&mut bytes));
        (outcome, bytes)
    }

    fn v2(header: &proxy_header::ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn addresses(client: &str) -> ProxiedAddress {
        let client: SocketAddr = client.parse().unwrap();
        let server = if client.is_ipv4() { "192.0.2.1:443" } else { "[2001:db8::1]:443" };
        ProxiedAddress::stream(client, server.parse().unwrap())
    }

    fn from(client: &str) -> Outcome {
        Ok(ProxyHeader { client: Some(client.parse().unwrap()), tls: false })
    }

    const SELF: Outcome = Ok(ProxyHeader { client: None, tls: false });

    #[test]
    fn headers_of_version_1_are_read_to_their_line_end() {
        for (header, expected) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", from("203.0.113.7:56324")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n", from("[2001:db8::7]:1")),
            ("PROXY UNKNOWN\r\n", SELF),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", SELF),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n", Err(ProxyHeaderError::Malformed)),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", Err(ProxyHeaderError::Malformed)),
            ("PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n", Err(ProxyHeaderError::Malformed)),
            ("PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n", Err(ProxyHeaderError::Malformed)),
            ("PROXY\r\n", Err(ProxyHeaderError::Missing)),
        ] {
            let (outcome, rest) = read(header.as_bytes());
            assert_eq!(outcome, expected, "{header}");
            if expected.is_ok() {
                assert_eq!(rest, b"", "{header}");
                let with_rest = format!("{header}GET / HTTP/1.1\r\n");
                assert_eq!(read(with_rest.as_bytes()), (expected, &b"GET / HTTP/1.1\r\n"[..]));
            }
        }
        let long = format!("PROXY UNKNOWN {}", "a".repeat(200));
        assert_eq!(read(long.as_bytes()).0, Err(ProxyHeaderError::TooLong));
    }

    #[test]
    fn headers_of_version_2_are_read_to_their_length() {
        let mut over_tls = proxy_header::ProxyHeader::with_address(addresses("203.0.113.7:56324"));
        over_tls.append_tlv(Tlv::Ssl(SslInfo::new(true, false, false, 0)));
        let mut padded = proxy_header::ProxyHeader::with_address(addresses("[2001:db8::7]:1"));
        padded.append_tlv(Tlv::Noop(1000));
        let mut huge = proxy_header::ProxyHeader::with_local();
        huge.append_tlv(Tlv::Noop(5000));
        let datagram =
            ProxiedAddress { protocol: Protocol::Datagram, ..addresses("203.0.113.7:1") };
        let unix = [V2_SIGNATURE, b"\x21\x31\0\xd8", &[0; 216]].concat();
        let tls = from("203.0.113.7:56324").map(|header| ProxyHeader { tls: true, ..header });

        for (header, expected) in [
            (
                v2(&proxy_header::ProxyHeader::with_address(addresses("203.0.113.7:5"))),
                from("203.0.113.7:5"),
            ),
            (v2(&over_tls), tls),
            (v2(&padded), from("[2001:db8::7]:1")),
            (v2(&proxy_header::ProxyHeader::with_local()), SELF),
            (unix, SELF),
            (v2(&huge), Err(ProxyHeaderError::TooLong)),
            (
                v2(&proxy_header::ProxyHeader::with_address(datagram)),
                Err(ProxyHeaderError::Malformed),
            ),
            ([V2_SIGNATURE, b"\x11\x11\0\0"].concat(), Err(ProxyHeaderError::Malformed)),
            ([V2_SIGNATURE, b"\x22\x11\0\0"].concat(), Err(ProxyHeaderError::Malformed)),
            ([V2_SIGNATURE, b"\x21\x11\0\x02ab"].concat(), Err(ProxyHeaderError::Malformed)),
        ] {
            let whole = [&header[..], b"\x16\x03\x01"].concat();
            let (outcome, rest) = read(&whole);
            assert_eq!(outcome, expected, "{header:x?}");
            if expected.is_ok() {
                assert_eq!(rest, b"\x16\x03\x01");
                for cut in 0..header.len() {
                    assert!(read(&header[..cut]).0.is_err(), "{cut} of {header:x?}");
                }
            }
        }
    }

    #[test]
    fn other_protocols_have_no_header() {
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST /auth/login HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
            b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(read(bytes).0, Err(ProxyHeaderError::Missing), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bound_and_a_header_that_is_accepted_is_one(
            version in 0..3,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            text in "[ 0-9a-fA-FPROXYTCUNKW:.46\r\n]{0,120}",
        ) {
            match version {
                0 => {}
                1 => bytes = format!("PROXY {text}").into_bytes(),
                _ => bytes.splice(0..0, V2_SIGNATURE.iter().copied()).for_each(drop),
            }
            let (outcome, rest) = read(&bytes);
            let used = bytes.len() - rest.len();
            prop_assert!(used <= MAX_V2_BYTES);
            if outcome.is_ok() {
                prop_assert!(bytes.starts_with(V2_SIGNATURE) || bytes[..used].ends_with(b"\r\n"));
                prop_assert_eq!(read(&bytes[..used]).0, outcome);
            }
        }
    }
}
