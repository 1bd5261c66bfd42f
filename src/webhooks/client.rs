//! Posts events to one receiver over a connection that is reused, and connects to no address that is not allowed.

use std::{error::Error, io, iter::successors, net::IpAddr, time::Duration};

use hyper::body::Bytes;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use uuid::Uuid;

use super::{signature::Signer, target::WebhookTarget};
use crate::{
    clock::unix_now,
    http_client::{
        direct,
        resolver::{CheckedResolver, ResolveError},
        root_cause,
    },
    tls::verify,
};

/// The most bytes of a response's body that are read, so that the connection can be reused.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest that a response's body is read.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an event was not delivered. The text never contains the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("its name is not known: {0}")]
    UnknownHost(String),
    #[error("{0} is no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it")]
    PrivateAddress(IpAddr),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("no HTTP: {0}")]
    Http(String),
    #[error("no answer in time")]
    Timeout,
    /// The status of the response, and its `Retry-After`.
    #[error("it answered {0}")]
    Status(StatusCode, Option<Duration>),
}

impl DeliveryError {
    /// Whether the receiver itself refuses the event, and not only at this time.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            // 408, 429, and what proxies answer for a receiver that is down.
            Self::Status(status, _) => !matches!(status.as_u16(), 408 | 429 | 502..=504),
            Self::UnknownHost(_) | Self::PrivateAddress(_) | Self::Connect(_) => false,
            Self::Tls(_) | Self::Http(_) | Self::Timeout => false,
        }
    }
}

impl From<reqwest::Error> for DeliveryError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() && error.is_timeout() {
            return Self::Connect("timed out".into());
        }
        let causes = || successors(error.source(), |&cause| cause.source());
        match causes().find_map(|cause| cause.downcast_ref()) {
            Some(ResolveError::Lookup(error)) => return Self::UnknownHost(error.to_string()),
            Some(ResolveError::Private(address)) => return Self::PrivateAddress(*address),
            None => {}
        }
        let root = root_cause(&error);
        // A connector returns an error of the TLS handshake as it is, and wraps one of TCP.
        let is_tls = causes().nth(1).is_some_and(<dyn Error>::is::<io::Error>);
        match (error.is_connect(), is_tls) {
            (true, true) => Self::Tls(root),
            (true, false) => Self::Connect(root),
            (false, _) => Self::Http(root),
        }
    }
}

/// Posts events to one receiver.
pub(super) struct WebhookClient {
    target: WebhookTarget,
    tls: ClientConfig,
    signer: Signer,
    connect_timeout: Duration,
    http: Client,
    /// The last response was read to its end, and so its connection may be reused.
    may_reuse: bool,
}

impl WebhookClient {
    /// A client for `target`. `attempt_timeout` is how long its user waits for [`post`](Self::post).
    pub(super) fn new(
        target: WebhookTarget,
        tls: ClientConfig,
        signer: Signer,
        attempt_timeout: Duration,
    ) -> Self {
        // It is divided among the addresses of a name, so that one which does not answer leaves time for the others.
        let connect_timeout = attempt_timeout * 2 / 3;
        let http = http_client(&target, &tls, connect_timeout);
        Self { target, tls, signer, connect_timeout, http, may_reuse: false }
    }

    /// Closes the connection: the next event is posted over a new one, for which the name is looked up again.
    pub(super) fn disconnect(&mut self) {
        self.http = http_client(&self.target, &self.tls, self.connect_timeout);
        self.may_reuse = false;
    }

    /// Posts an event once.
    pub(super) async fn post(&mut self, id: Uuid, body: &Bytes) -> Result<(), DeliveryError> {
        // The resolver below checks names; no resolver is asked about an address.
        if let Some(address) = self.target.address().filter(|it| !self.target.is_allowed(*it)) {
            return Err(DeliveryError::PrivateAddress(address));
        }
        let may_reuse = std::mem::take(&mut self.may_reuse);
        let response = match self.send(id, body).await {
            // A receiver may close an idle connection just when it is reused.
            Err(error) if may_reuse && !error.is_connect() => self.send(id, body).await,
            sent => sent,
        };
        let mut response = response?;
        let (status, retry_after) = (response.status(), retry_after_of(&response));
        self.may_reuse = matches!(timeout(BODY_TIMEOUT, drain_body(&mut response)).await, Ok(true));
        if status.is_success() { Ok(()) } else { Err(DeliveryError::Status(status, retry_after)) }
    }

    /// Sends the request that the Standard Webhooks specification 1.0.0 defines.
    async fn send(&self, id: Uuid, body: &Bytes) -> Result<Response, reqwest::Error> {
        let now = unix_now();
        let request = self.http.post(self.target.url.clone());
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.signer.sign(id, now, body));
        request.body(body.clone()).send().await
    }
}

fn http_client(target: &WebhookTarget, tls: &ClientConfig, connect_timeout: Duration) -> Client {
    let client = direct()
        .user_agent(concat!("signaling-server/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(CheckedResolver { allows_private: target.allows_private })
        .connect_timeout(connect_timeout)
        .http1_only()
        .referer(false)
        // Deliveries are in order: there is never a second connection.
        .pool_max_idle_per_host(1);
    #[expect(clippy::expect_used, reason = "see the message")]
    client
        .build()
        .expect("the settings above are constants, and the TLS configuration is one of rustls")
}

/// Reads the body of a response, up to [`MAX_BODY_BYTES`]. Returns whether that was all of it.
async fn drain_body(response: &mut Response) -> bool {
    let mut read = 0;
    while read <= MAX_BODY_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    false
}

/// How long the receiver asks to wait: `Retry-After` in seconds (RFC 9110 section 10.2.3).
fn retry_after_of(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// TLS for receivers. The system's root certificates are read if one of the URLs is `https://`; `names_own_certificate` as
/// in [`verify::system_roots`].
pub(super) fn tls(targets: &[WebhookTarget], names_own_certificate: bool) -> ClientConfig {
    let roots = if targets.iter().any(WebhookTarget::is_https) {
        let roots = verify::system_roots(names_own_certificate);
        if roots.is_empty() {
            tracing::error!(
                "no root certificates found, so no https:// webhook can be delivered; install ca-certificates"
            );
        }
        roots
    } else {
        RootCertStore::empty()
    };
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;

    const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    /// Accepts as many connections as there are lists, one after the other, and gives the answers of its list on each.
    async fn receiver(answers: &'static [&'static [&'static str]]) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut open: Vec<TcpStream> = Vec::new();
            for answers in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in *answers {
                    let mut request = Vec::new();
                    while !request.ends_with(b"{}") {
                        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                open.push(stream);
            }
        });
        (address, serving)
    }

    fn client(url: &str, allows_private: bool) -> WebhookClient {
        let target = WebhookTarget::parse(url, true).unwrap();
        let target = WebhookTarget { allows_private, ..target };
        let tls = tls(&[], false);
        WebhookClient::new(target, tls, Signer::new(&"secret".into()), Duration::from_secs(60))
    }

    async fn post(client: &mut WebhookClient) -> Result<(), DeliveryError> {
        client.post(Uuid::nil(), &Bytes::from_static(b"{}")).await
    }

    #[tokio::test]
    async fn a_connection_is_reused_until_it_is_closed() {
        let (address, serving) = receiver(&[&[NO_CONTENT, NO_CONTENT], &[NO_CONTENT]]).await;
        let mut client = client(&format!("http://{address}/"), true);

        for _ in 0..2 {
            post(&mut client).await.unwrap();
        }
        client.disconnect();
        post(&mut client).await.unwrap();

        serving.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_not_public_is_not_connected_to_by_name_nor_by_number() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();

        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let posted = post(&mut client(&format!("http://{host}:{port}/"), false)).await;

            assert!(matches!(posted, Err(DeliveryError::PrivateAddress(_))), "{host}: {posted:?}");
        }
        let accepted = timeout(Duration::ZERO, listener.accept()).await;
        assert!(accepted.is_err(), "there was a connection");
    }

    #[tokio::test]
    async fn an_error_says_how_far_a_delivery_came_and_never_where_it_goes() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (no_tls, _serving) = receiver(&[&[]]).await;
        let (no_http, _serving_too) = receiver(&[&["SSH-2.0-OpenSSH\r\n\r\n"]]).await;

        for (url, stage) in [
            (format!("http://{closed}/hook?key=hunter2"), "no connection: "),
            (format!("https://{no_tls}/hook?key=hunter2"), "no TLS: "),
            (format!("http://{no_http}/hook?key=hunter2"), "no HTTP: "),
        ] {
            let error = post(&mut client(&url, true)).await.unwrap_err().to_string();

            assert!(error.starts_with(stage) && error.len() > stage.len(), "{url}: {error}");
            assert!(!error.contains("hook"), "{error}");
        }
    }
}
