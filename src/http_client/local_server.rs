//! The server that listens on this machine, by its settings: over TCP or its Unix socket, past any proxy.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use axum::http::{self, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use reqwest::{Body, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Stands before the path of a Unix socket in `HOST`.
const UNIX_PREFIX: &str = "unix:";

/// A header of the PROXY protocol, version 2, of a program that speaks for itself (command LOCAL, section 2.2).
const LOCAL_PROXY_HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A server that listens on this machine, by the `HOST`, `PORT` and `PROXY_PROTOCOL` of its settings.
#[derive(Clone, Debug)]
pub struct LocalServer {
    host: String,
    port: u16,
    proxy_protocol: bool,
}

impl LocalServer {
    /// The server that listens on `host` and `port`. One that listens on all addresses is reached on loopback.
    pub fn new(host: &str, port: u16) -> Self {
        let host = match host.parse() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
            Ok(_) | Err(_) => host.to_owned(),
        };
        Self { host, port, proxy_protocol: false }
    }

    /// The same server, which wants a PROXY header before each connection.
    #[must_use]
    pub fn with_proxy_protocol(self, proxy_protocol: bool) -> Self {
        Self { proxy_protocol, ..self }
    }

    /// Its base URL, without TLS; none where no URL leads to it.
    pub fn url(&self) -> Option<String> {
        let Self { host, port, proxy_protocol } = self;
        if *proxy_protocol || self.socket_path().is_some() {
            None
        } else if host.contains(':') {
            Some(format!("http://[{host}]:{port}"))
        } else {
            Some(format!("http://{host}:{port}"))
        }
    }

    /// `HOST`; on loopback where the server listens on all addresses.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `PORT`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of its Unix socket, where it listens on one.
    pub fn socket_path(&self) -> Option<&str> {
        self.host.strip_prefix(UNIX_PREFIX)
    }

    /// Requests `path`, without TLS: a server with a certificate answers plain HTTP too, and no certificate is issued
    /// for loopback.
    ///
    /// # Errors
    ///
    /// The cause, in the text of the system or of the HTTP client.
    pub async fn get(&self, path: &str) -> Result<Response, String> {
        let request = http::Request::get(path).header(header::HOST, self.host_header());
        self.send(request.body(Body::from("")).map_err(|error| error.to_string())?).await
    }

    /// Sends a request, of whose URL only path and query count, and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn execute(&self, request: Request) -> Result<Response, String> {
        let url = request.url();
        let target = url
            .query()
            .map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut request: http::Request<Body> =
            request.try_into().map_err(|error: reqwest::Error| error.to_string())?;
        *request.uri_mut() = target.parse().map_err(|error| format!("{target}: {error}"))?;
        let host = self.host_header().parse();
        let host = host.map_err(|error: header::InvalidHeaderValue| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        self.send(request).await
    }

    fn host_header(&self) -> String {
        format!("localhost:{}", self.port)
    }

    async fn send(&self, request: http::Request<Body>) -> Result<Response, String> {
        let refused = |error: std::io::Error| error.to_string();
        if let Some(path) = self.socket_path() {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            return self.exchange(stream, request).await;
        }
        // Looked up here: HOST may be what no URL holds, such as an address with a zone.
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(refused)?;
        self.exchange(stream, request).await
    }

    async fn exchange(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: http::Request<Body>,
    ) -> Result<Response, String> {
        if self.proxy_protocol {
            let sent = stream.write_all(LOCAL_PROXY_HEADER).await;
            sent.map_err(|error| error.to_string())?;
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause(&error))?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| cause(&error))?;
        Ok(Response::from(answer.map(Body::wrap)))
    }
}

/// The innermost cause of an error.
fn cause(error: &hyper::Error) -> String {
    super::innermost(error).to_string()
}

/// How diagnostics name it.
impl fmt::Display for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket_path() {
            Some(_) => f.write_str(&self.host),
            None => write!(f, "{} port {}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_on_all_addresses_is_reached_on_loopback() {
        let urls = ["0.0.0.0", "::", "10.0.0.5", "localhost"]
            .map(|host| LocalServer::new(host, 1).url().unwrap());

        assert_eq!(
            urls,
            ["http://127.0.0.1:1", "http://[::1]:1", "http://10.0.0.5:1", "http://localhost:1"]
        );
        let socket = LocalServer::new("unix:/run/signaling/socket", 1);
        assert_eq!((socket.url(), socket.to_string()), (None, "unix:/run/signaling/socket".into()));
    }
}
