//! How a server is reached: its URL, TCP, TLS, and the WebSocket or one request over them.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, http::Uri, protocol::WebSocketConfig},
};

use crate::events::Error;

/// How long a whole request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// In bytes. The responses of the server are shorter.
const MAX_RESPONSE: u64 = 64 * 1024;

pub(crate) type WebSocket = WebSocketStream<Box<dyn Stream>>;

/// TCP, or TLS over TCP.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The parsed URL of a server, with the path prefix of a reverse proxy if there is one.
#[derive(Clone)]
pub(crate) struct Endpoint {
    is_secure: bool,
    /// Host and port as the URL states them.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    pub fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |problem: &str| Error::Url(format!("{url:?} {problem}"));
        let uri: Uri = url.parse().map_err(|_| invalid("is not a URL"))?;
        let is_secure = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(invalid("does not start with https:// or http://")),
        };
        if is_secure && !cfg!(feature = "tls") {
            return Err(invalid("requires the feature tls"));
        }
        let authority = uri.authority().ok_or_else(|| invalid("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(Error::Url("the URL contains a password; use Options::login".to_owned()));
        }
        let default_port = if is_secure { 443 } else { 80 };
        Ok(Self {
            is_secure,
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    pub async fn open(&self, room: &str) -> Result<WebSocket, tungstenite::Error> {
        let url = self.room_url(room);
        let stream = self.connect().await?;
        // The buffer is allocated for the whole life of the socket, and messages are few and small.
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        Ok(client_async_with_config(url, stream, Some(config)).await?.0)
    }

    fn room_url(&self, room: &str) -> String {
        let Self { authority, path, .. } = self;
        let scheme = if self.is_secure { "wss" } else { "ws" };
        format!("{scheme}://{authority}{path}/ws/{}", percent_encoded(room))
    }

    /// A `POST` with JSON in both directions; returns the status and the body of the response.
    ///
    /// Written by hand, because two requests do not justify an HTTP client as a dependency.
    pub async fn post(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &str,
    ) -> io::Result<(u16, String)> {
        // HTTP/1.0: the response is not chunked and ends with the connection.
        let (base, host, length) = (&self.path, &self.authority, body.len());
        let bearer = bearer.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "POST {base}{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{}\r\n{body}",
            bearer.unwrap_or_default()
        );
        let response = async {
            let mut stream = self.connect().await?;
            stream.write_all(request.as_bytes()).await?;
            let mut response = Vec::new();
            // Some servers close without a TLS close_notify. A truncated response does not parse.
            let read = stream.take(MAX_RESPONSE).read_to_end(&mut response).await;
            let response = String::from_utf8_lossy(&response).into_owned();
            parse_response(&response).ok_or_else(|| match read {
                Ok(_) => io::Error::other("not an HTTP response"),
                Err(error) => error,
            })
        };
        timeout(REQUEST_TIMEOUT, response).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // Candidates are many small frames, and each matters for the time to connect.
        stream.set_nodelay(true)?;
        if !self.is_secure {
            return Ok(Box::new(stream));
        }
        #[cfg(feature = "tls")]
        return tls::connect(stream, &self.host).await;
        #[cfg(not(feature = "tls"))]
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn parse_response(response: &str) -> Option<(u16, String)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Encodes one segment of a path (RFC 3986, section 2.3).
fn percent_encoded(segment: &str) -> String {
    let mut encoded = String::new();
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(feature = "tls")]
mod tls {
    use std::{
        io,
        sync::{Arc, OnceLock},
    };

    use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    use super::Stream;

    pub async fn connect(stream: TcpStream, host: &str) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(config()?);
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Trusts the certificates of the system, or those in `SSL_CERT_FILE`. Loaded once: they may be a few hundred files.
    fn config() -> io::Result<Arc<ClientConfig>> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = CONFIG.get() {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            return Err(io::Error::other("the system has no trusted root certificates"));
        }
        // Named, because the program may have another default provider, or two providers and no default.
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_url_is_below_the_path_of_the_server() {
        for (url, room, expected) in [
            (
                "https://example.com/calls/",
                "Zimmer 7/é",
                "wss://example.com/calls/ws/Zimmer%207%2F%C3%A9",
            ),
            ("http://127.0.0.1:8080", "den", "ws://127.0.0.1:8080/ws/den"),
            ("ws://[::1]:8080/", "..", "ws://[::1]:8080/ws/.."),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().room_url(room), expected);
        }
    }

    #[test]
    fn url_gives_host_port_and_scheme() {
        for (url, host, port, is_secure) in [
            ("https://example.com", "example.com", 443, true),
            ("wss://example.com:8443/x", "example.com", 8443, true),
            ("http://[::1]", "::1", 80, false),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(
                (endpoint.host.as_str(), endpoint.port, endpoint.is_secure),
                (host, port, is_secure)
            );
        }
    }

    #[test]
    fn invalid_url_is_refused_and_its_password_is_not_in_the_error() {
        for url in ["", "example.com", "/ws", "ftp://example.com", "https://"] {
            assert!(matches!(Endpoint::parse(url), Err(Error::Url(_))), "{url}");
        }
        let error = Endpoint::parse("https://alice:secret@example.com").map(|_| ()).unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn response_is_parsed_into_status_and_body() {
        assert_eq!(
            parse_response("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"),
            Some((200, "{}".to_owned()))
        );
        for malformed in ["", "HTTP/1.1 200 OK\r\nA: b", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(parse_response(malformed), None);
        }
    }
}
