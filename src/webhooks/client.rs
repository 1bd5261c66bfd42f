//! Posts events to one receiver over a connection that is reused, and connects to no address that is not allowed.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Host;
use uuid::Uuid;

use super::{signature::Signer, target::WebhookTarget};
use crate::{clock::unix_now, tls::verify};

/// The most bytes of a response's body that are read, so that the connection can be reused.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest that a response's body is read.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an event was not delivered. The text never contains the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("its name is not known: {0}")]
    UnknownHost(io::Error),
    #[error("{0} is no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it")]
    PrivateAddress(IpAddr),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
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

/// Posts events to one receiver.
pub(super) struct WebhookClient {
    target: WebhookTarget,
    tls: Option<TlsConnector>,
    signer: Signer,
    /// How long an attempt may take; a third of it for each address.
    attempt_timeout: Duration,
    connection: Option<Connection>,
}

impl WebhookClient {
    pub(super) fn new(
        target: WebhookTarget,
        tls: Option<TlsConnector>,
        signer: Signer,
        attempt_timeout: Duration,
    ) -> Self {
        Self { target, tls, signer, attempt_timeout, connection: None }
    }

    /// Closes the connection, so that the next event is posted over a new one.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Posts an event once.
    pub(super) async fn post(&mut self, id: Uuid, body: &Bytes) -> Result<(), DeliveryError> {
        let connection = self.connection.take().filter(|connection| !connection.sender.is_closed());
        let answer = match connection {
            // A receiver may close an idle connection just now.
            Some(mut connection) => match connection.send(self.request(id, body)).await {
                Ok(answer) => Some((connection, answer)),
                Err(_) => None,
            },
            None => None,
        };
        let (connection, answer) = match answer {
            Some(answered) => answered,
            None => {
                let mut connection = self.connect().await?;
                let answer = connection.send(self.request(id, body)).await?;
                (connection, answer)
            }
        };
        let (status, retry_after) = (answer.status(), retry_after_of(&answer));
        // Only to use the connection again.
        let rest = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect();
        if matches!(timeout(BODY_TIMEOUT, rest).await, Ok(Ok(_))) {
            self.connection = Some(connection);
        }
        if status.is_success() { Ok(()) } else { Err(DeliveryError::Status(status, retry_after)) }
    }

    /// As the Standard Webhooks specification 1.0.0 has it.
    fn request(&self, id: Uuid, body: &Bytes) -> Request<Full<Bytes>> {
        let now = unix_now();
        let request = Request::post(&self.target.path)
            .header(HOST, self.target.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("signaling-server/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.signer.sign(id, now, body))
            .body(Full::new(body.clone()));
        #[expect(clippy::expect_used, reason = "see the message")]
        request.expect("what a URL holds can be in a request, and the rest is ASCII")
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        let stream = self.reach().await?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Connection::over(TokioIo::new(stream)).await };
        let name = match &self.target.host {
            Host::Domain(name) => ServerName::try_from(name.clone()),
            Host::Ipv4(address) => Ok(IpAddr::from(*address).into()),
            Host::Ipv6(address) => Ok(IpAddr::from(*address).into()),
        };
        let name = name.map_err(|error| DeliveryError::Tls(io::Error::other(error)))?;
        let stream = tls.connect(name, stream).await.map_err(DeliveryError::Tls)?;
        Connection::over(TokioIo::new(stream)).await
    }

    /// Looks the name up anew for each connection, and connects to an address that was checked: the name may resolve to
    /// others the next time.
    async fn reach(&self) -> Result<TcpStream, DeliveryError> {
        let port = self.target.port;
        let addresses: Vec<_> = match &self.target.host {
            Host::Ipv4(address) => vec![(*address, port).into()],
            Host::Ipv6(address) => vec![(*address, port).into()],
            Host::Domain(name) => {
                let found = lookup_host((name.as_str(), port)).await;
                found.map_err(DeliveryError::UnknownHost)?.collect()
            }
        };
        let mut error = DeliveryError::UnknownHost(io::ErrorKind::NotFound.into());
        for address in addresses {
            if !self.target.allows(address.ip()) {
                error = DeliveryError::PrivateAddress(address.ip());
                continue;
            }
            // An address that does not answer leaves time for the others.
            match timeout(self.attempt_timeout / 3, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(refused)) => error = DeliveryError::Connect(refused),
                Err(_elapsed) => error = DeliveryError::Connect(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(error)
    }
}

/// A connection to a receiver. Dropping it closes it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn over<S>(stream: TokioIo<S>) -> Result<Self, DeliveryError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(stream).await?;
        // Its sender reports errors.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// How long the receiver asks to wait: `Retry-After` in seconds (RFC 9110 section 10.2.3).
fn retry_after_of<B>(answer: &hyper::Response<B>) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// TLS for receivers, if one of them has an `https://` URL. `names_own_certificate` as in [`verify::system_roots`].
pub(super) fn tls(targets: &[WebhookTarget], names_own_certificate: bool) -> Option<TlsConnector> {
    targets.iter().any(|target| target.is_tls).then(|| {
        let roots = verify::system_roots(names_own_certificate);
        if roots.is_empty() {
            tracing::error!("this system has no certificates of authorities, so that no https:// webhook is delivered; install ca-certificates");
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        TlsConnector::from(Arc::new(config.with_no_client_auth()))
    })
}
