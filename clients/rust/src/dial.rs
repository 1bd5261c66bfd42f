//! How a server is reached: its address, TCP, TLS, and the WebSocket or one request on top.

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

use crate::Error;

/// How long a whole request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Longer answers are none of our server.
const LONGEST_ANSWER: u64 = 64 * 1024;

pub(crate) type WebSocket = WebSocketStream<Box<dyn Stream>>;

/// TCP, or TLS on it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The address of a server, and the path where it is behind one.
#[derive(Clone)]
pub(crate) struct Server {
    is_secure: bool,
    /// As it stands in the URL, with the port where that says one.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Server {
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Url(format!("{url:?} {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let is_secure = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong("does not begin with https://")),
        };
        if is_secure && !cfg!(feature = "tls") {
            return Err(wrong("needs the feature tls"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(Error::Url("a URL with a password in it".to_owned()));
        }
        let usual = if is_secure { 443 } else { 80 };
        Ok(Self {
            is_secure,
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(usual),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    pub async fn open(&self, room: &str) -> Result<WebSocket, tungstenite::Error> {
        let url = self.room(room);
        let stream = self.connect().await?;
        // A client has few and small messages; the buffer is as large all the time.
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        Ok(client_async_with_config(url, stream, Some(config)).await?.0)
    }

    fn room(&self, room: &str) -> String {
        let Self { authority, path, .. } = self;
        let scheme = if self.is_secure { "wss" } else { "ws" };
        format!("{scheme}://{authority}{path}/ws/{}", percent_encoded(room))
    }

    /// `POST`, with JSON in both directions: the status and the answer's body.
    pub async fn post(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &str,
    ) -> io::Result<(u16, String)> {
        // Of HTTP/1.0, so that the answer ends with the connection and is in one piece.
        let (base, host, length) = (&self.path, &self.authority, body.len());
        let bearer = bearer.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "POST {base}{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{}\r\n{body}",
            bearer.unwrap_or_default()
        );
        let asked = async {
            let mut stream = self.connect().await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            // Not everybody says goodbye in TLS; what is short does not parse.
            let read = stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            read_answer(&answer).ok_or_else(|| match read {
                Ok(_) => io::Error::other("no HTTP"),
                Err(error) => error,
            })
        };
        timeout(ANSWER_WITHIN, asked).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        // Candidates are small and many, and each is waited for.
        stream.set_nodelay(true)?;
        if !self.is_secure {
            return Ok(Box::new(stream));
        }
        #[cfg(feature = "tls")]
        return tls::over(stream, &self.host).await;
        #[cfg(not(feature = "tls"))]
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn read_answer(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// As one segment of a path (RFC 3986, section 2.3).
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

    pub async fn over(stream: TcpStream, host: &str) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(config()?);
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Trusts whom the system trusts, or `SSL_CERT_FILE`. Looked up once: it is a few hundred files.
    fn config() -> io::Result<Arc<ClientConfig>> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = CONFIG.get() {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(io::Error::other("the system trusts no certificate"));
        }
        // Named, for a program may have another cryptography as its default, or two and none.
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
    fn a_room_is_found_below_the_path_of_its_server() {
        for (url, room, expected) in [
            (
                "https://example.com/calls/",
                "Zimmer 7/é",
                "wss://example.com/calls/ws/Zimmer%207%2F%C3%A9",
            ),
            ("http://127.0.0.1:8080", "den", "ws://127.0.0.1:8080/ws/den"),
            ("ws://[::1]:8080/", "..", "ws://[::1]:8080/ws/.."),
        ] {
            assert_eq!(Server::parse(url).unwrap().room(room), expected);
        }
    }

    #[test]
    fn a_url_says_where_to_connect_to() {
        for (url, host, port, is_secure) in [
            ("https://example.com", "example.com", 443, true),
            ("wss://example.com:8443/x", "example.com", 8443, true),
            ("http://[::1]", "::1", 80, false),
        ] {
            let server = Server::parse(url).unwrap();
            assert_eq!(
                (server.host.as_str(), server.port, server.is_secure),
                (host, port, is_secure)
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_password_in_it_is_not_repeated() {
        for url in ["", "example.com", "/ws", "ftp://example.com", "https://"] {
            assert!(matches!(Server::parse(url), Err(Error::Url(_))), "{url}");
        }
        let told = Server::parse("https://alice:secret@example.com").map(|_| ()).unwrap_err();
        assert!(!told.to_string().contains("secret"));
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        assert_eq!(read_answer("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some((200, "{}".to_owned())));
        for broken in ["", "HTTP/1.1 200 OK\r\nA: b", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(read_answer(broken), None);
        }
    }
}
