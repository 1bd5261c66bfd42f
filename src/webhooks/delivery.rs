//! The way of events to one receiver: in order, again where it fails, and to no address that is not allowed.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use url::Host;

use super::{Queue, Target, Waiting};
use crate::clock::unix_now;

/// How long receivers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// From looking the name up to the answer's head.
    pub answer: Duration,
    /// After the first failure; twice as long after each further one.
    pub first_pause: Duration,
    /// But no longer than this.
    pub longest_pause: Duration,
    /// An event that is older is given up while its receiver fails.
    pub oldest: Duration,
    /// So often a receiver may refuse an event.
    pub refusals: u32,
    /// So many events wait; then the oldest goes.
    pub waiting: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            oldest: Duration::from_secs(3600),
            refusals: 8,
            // About three megabytes.
            waiting: 10_000,
        }
    }
}

/// The most of an answer's body that is read, so that the connection can be used again.
const MOST_READ: usize = 64 * 1024;
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Why an event has not been delivered. Never says the URL.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("its name is not known: {0}")]
    NoAddress(io::Error),
    #[error("{0} is no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it")]
    Private(IpAddr),
    #[error("no connection: {0}")]
    Unreached(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Late,
    #[error("it answered {0}")]
    Answered(StatusCode, Option<Duration>),
}

impl Fault {
    /// Whether the receiver itself does not want the event, and not only at this time.
    fn is_refusal(&self) -> bool {
        match self {
            // 408, 429, and what proxies say for a receiver that is not there.
            Self::Answered(status, _) => !matches!(status.as_u16(), 408 | 429 | 502..=504),
            Self::NoAddress(_) | Self::Private(_) | Self::Unreached(_) => false,
            Self::Tls(_) | Self::Http(_) | Self::Late => false,
        }
    }
}

/// What became of an event.
enum Fate {
    Delivered,
    GivenUp,
    /// The receiver wants no more, or the server stops.
    Over,
}

/// Posts events to one receiver.
pub struct Delivery {
    target: Target,
    queue: Arc<Queue>,
    tls: Option<TlsConnector>,
    key: hmac::Key,
    node: Option<String>,
    rules: Rules,
    closing: CancellationToken,
    line: Option<Line>,
    /// Since the last success.
    failures: u32,
    /// The receiver has said itself how long to wait.
    pause: Duration,
}

impl Delivery {
    pub fn new(
        target: Target,
        queue: Arc<Queue>,
        tls: Option<TlsConnector>,
        key: hmac::Key,
        node: Option<&str>,
        rules: Rules,
        closing: CancellationToken,
    ) -> Self {
        let node = node.map(str::to_owned);
        let (line, failures, pause) = (None, 0, Duration::ZERO);
        Self { target, queue, tls, key, node, rules, closing, line, failures, pause }
    }

    /// Until the server stops, or the receiver wants no more.
    pub async fn run(mut self) {
        while let Some(waiting) = self.queue.next(&self.closing).await {
            let counted = match self.deliver(&waiting).await {
                Fate::Delivered => &self.queue.figures.delivered,
                Fate::GivenUp => &self.queue.figures.failed,
                Fate::Over => return,
            };
            counted.inc();
            self.queue.is_done();
        }
    }

    async fn deliver(&mut self, waiting: &Waiting) -> Fate {
        let body = Bytes::from(waiting.event.json(self.node.as_deref()));
        let (mut refusals, mut tries) = (0, 0);
        loop {
            if self.failures > 0 {
                if waiting.since.elapsed() > self.rules.oldest {
                    return self.gives_up(waiting, "it is too old");
                }
                if tries > 0 && self.closing.is_cancelled() {
                    return Fate::Over;
                }
                let pause = self.backoff().max(self.pause);
                tokio::select! { () = sleep(pause) => {}, () = self.closing.cancelled() => {} }
            }
            if tries > 0 {
                self.queue.figures.retried.inc();
            }
            tries += 1;
            let posted = timeout(self.rules.answer, self.post(waiting, &body)).await;
            let fault = match posted.unwrap_or(Err(Fault::Late)) {
                Ok(()) => {
                    if std::mem::take(&mut self.failures) > 0 {
                        tracing::info!(receiver = %self.target, "webhooks are delivered again");
                    }
                    return Fate::Delivered;
                }
                Err(fault) => fault,
            };
            self.line = None;
            self.failures += 1;
            // Once until it is well again.
            if self.failures == 1 {
                tracing::warn!(receiver = %self.target, %fault, "webhooks are not delivered; they wait");
            }
            self.pause = Duration::ZERO;
            if let Fault::Answered(status, pause) = fault {
                if status == StatusCode::GONE {
                    let lost = self.queue.ends();
                    tracing::error!(receiver = %self.target, lost, "the receiver wants no more webhooks (410 Gone), and gets none until the next start");
                    return Fate::Over;
                }
                self.pause = pause.unwrap_or_default().min(self.rules.longest_pause);
            }
            refusals += u32::from(fault.is_refusal());
            if refusals >= self.rules.refusals {
                return self.gives_up(waiting, "it was refused too often");
            }
        }
    }

    fn gives_up(&self, waiting: &Waiting, why: &str) -> Fate {
        let (id, kind) = (waiting.event.id, waiting.event.what.kind());
        tracing::warn!(receiver = %self.target, %id, kind, why, "a webhook is given up");
        Fate::GivenUp
    }

    /// Twice as long after each failure, and somewhere between half of it and all: whoever failed at once is not to
    /// come back at once.
    fn backoff(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let pause = self.rules.first_pause.saturating_mul(doubled).min(self.rules.longest_pause);
        let [chance, ..] = uuid::Uuid::new_v4().into_bytes();
        pause.mul_f64(0.5 + f64::from(chance) / 512.0)
    }

    /// Posts it once.
    async fn post(&mut self, waiting: &Waiting, body: &Bytes) -> Result<(), Fault> {
        let line = self.line.take().filter(|line| !line.sender.is_closed());
        let answer = match line {
            // A receiver may hang up on an idle connection just now.
            Some(mut line) => match line.ask(self.request(waiting, body)).await {
                Ok(answer) => Some((line, answer)),
                Err(_) => None,
            },
            None => None,
        };
        let (line, answer) = match answer {
            Some(answered) => answered,
            None => {
                let mut line = self.connect().await?;
                let answer = line.ask(self.request(waiting, body)).await?;
                (line, answer)
            }
        };
        let (status, pause) = (answer.status(), pause_of(&answer));
        // Only to use the connection again.
        let rest = Limited::new(answer.into_body(), MOST_READ).collect();
        if matches!(timeout(READ_WITHIN, rest).await, Ok(Ok(_))) {
            self.line = Some(line);
        }
        if status.is_success() { Ok(()) } else { Err(Fault::Answered(status, pause)) }
    }

    /// As the Standard Webhooks specification 1.0.0 has it.
    fn request(&self, waiting: &Waiting, body: &Bytes) -> Request<Full<Bytes>> {
        let (id, now) = (waiting.event.id, unix_now());
        let mut signing = hmac::Context::with_key(&self.key);
        signing.update(format!("{id}.{now}.").as_bytes());
        signing.update(body);
        let signature = BASE64_STANDARD.encode(signing.sign());
        let request = Request::post(&self.target.path)
            .header(HOST, self.target.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("signaling-server/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id.to_string())
            .header("webhook-timestamp", now)
            .header("webhook-signature", format!("v1,{signature}"))
            .body(Full::new(body.clone()));
        #[expect(clippy::expect_used, reason = "see the message")]
        request.expect("what a URL holds can be in a request, and the rest is ASCII")
    }

    async fn connect(&self) -> Result<Line, Fault> {
        let stream = self.reach().await?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Line::over(TokioIo::new(stream)).await };
        let name = match &self.target.host {
            Host::Domain(name) => ServerName::try_from(name.clone()),
            Host::Ipv4(address) => Ok(IpAddr::from(*address).into()),
            Host::Ipv6(address) => Ok(IpAddr::from(*address).into()),
        };
        let name = name.map_err(|error| Fault::Tls(io::Error::other(error)))?;
        let stream = tls.connect(name, stream).await.map_err(Fault::Tls)?;
        Line::over(TokioIo::new(stream)).await
    }

    /// Looks the name up anew for each connection, and connects to what was looked at: what a name leads to may change
    /// in between.
    async fn reach(&self) -> Result<TcpStream, Fault> {
        let port = self.target.port;
        let addresses: Vec<_> = match &self.target.host {
            Host::Ipv4(address) => vec![(*address, port).into()],
            Host::Ipv6(address) => vec![(*address, port).into()],
            Host::Domain(name) => {
                lookup_host((name.as_str(), port)).await.map_err(Fault::NoAddress)?.collect()
            }
        };
        let mut fault = Fault::NoAddress(io::ErrorKind::NotFound.into());
        for address in addresses {
            if !self.target.allows(address.ip()) {
                fault = Fault::Private(address.ip());
                continue;
            }
            // Another may be reached where one says nothing.
            match timeout(self.rules.answer / 3, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => fault = Fault::Unreached(error),
                Err(_elapsed) => fault = Fault::Unreached(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(fault)
    }
}

/// A connection to a receiver; dropping it ends it.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Line {
    async fn over<S>(stream: TokioIo<S>) -> Result<Self, Fault>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(stream).await?;
        // What becomes of it, its sender says.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// How long the receiver wants to be left alone: `Retry-After` in seconds (RFC 9110 section 10.2.3).
fn pause_of<B>(answer: &hyper::Response<B>) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What receivers are known by, if one of them has TLS: certificates of the authorities that this system trusts.
/// `SSL_CERT_FILE` names those, unless it `has_own_certificate` there, of this server itself.
pub fn tls(targets: &[Target], has_own_certificate: bool) -> Option<TlsConnector> {
    targets.iter().any(|target| target.is_tls).then(|| {
        let mut authorities = RootCertStore::empty();
        let found = if has_own_certificate {
            let usual = openssl_probe::candidate_cert_dirs().next();
            rustls_native_certs::load_certs_from_paths(None, usual)
        } else {
            rustls_native_certs::load_native_certs()
        };
        authorities.add_parsable_certificates(found.certs);
        if authorities.is_empty() {
            tracing::error!("this system has no certificates of authorities, so that no https:// webhook is delivered; install ca-certificates");
        }
        let config = ClientConfig::builder().with_root_certificates(authorities);
        TlsConnector::from(Arc::new(config.with_no_client_auth()))
    })
}
