//! HTTP requests that the programs send themselves: to the server on this machine, and to one whose clock is compared.
//! `address` and `resolver` keep requests away from private networks.

pub mod address;
pub mod resolver;

use std::{
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use reqwest::{Client, ClientBuilder, Response, redirect::Policy};
use tokio::net::lookup_host;

/// A client that follows no redirect, and uses no proxy that the environment names.
pub fn direct() -> ClientBuilder {
    Client::builder().no_proxy().redirect(Policy::none())
}

/// The innermost cause of `error`, such as "Connection refused (os error 111)".
pub fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A server that listens on this machine, by the `HOST` and `PORT` of its settings.
#[derive(Clone, Debug)]
pub struct LocalServer {
    host: String,
    port: u16,
}

impl LocalServer {
    /// The server that listens on `host` and `port`. One that listens on all addresses is reached on loopback.
    pub fn new(host: &str, port: u16) -> Self {
        let host = match host.parse() {
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
            Ok(_) | Err(_) => host.to_owned(),
        };
        Self { host, port }
    }

    /// Its base URL, without TLS.
    pub fn url(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') {
            format!("http://[{host}]:{port}")
        } else {
            format!("http://{host}:{port}")
        }
    }

    /// Requests `path`, without TLS: a server with a certificate answers plain HTTP too, and no certificate is issued
    /// for loopback.
    ///
    /// # Errors
    ///
    /// The cause, in the text of the system or of the HTTP client.
    pub async fn get(&self, path: &str) -> Result<Response, String> {
        // Looked up here: HOST may be what no URL holds, such as an address with a zone.
        let addresses = lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> = addresses.map_err(|error| error.to_string())?.collect();
        let client = direct()
            .resolve_to_addrs("localhost", &addresses)
            .tls_certs_only([]) // loads none: a container may have no authorities
            .build();
        let url = format!("http://localhost:{}{path}", self.port);
        let answer = client.map_err(|error| root_cause(&error))?.get(url).send().await;
        answer.map_err(|error| root_cause(&error))
    }
}

/// Host and port, as diagnostics name them.
impl fmt::Display for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_on_all_addresses_is_reached_on_loopback() {
        let urls =
            ["0.0.0.0", "::", "10.0.0.5", "localhost"].map(|host| LocalServer::new(host, 1).url());

        assert_eq!(
            urls,
            ["http://127.0.0.1:1", "http://[::1]:1", "http://10.0.0.5:1", "http://localhost:1"]
        );
    }
}
