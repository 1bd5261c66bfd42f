//! A connection to Redis. It is lost when nothing comes for too long while an answer is due, and not because an answer takes
//! long as a whole: a large one may, on a slow network.

use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::select_ok;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisError,
    RedisFuture, RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// How long connecting may take, with a TLS handshake where there is one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection whose clones share it.
#[derive(Clone)]
pub(super) struct RedisConnection {
    commands: MultiplexedConnection,
    last_read: LastRead,
    /// How long nothing may come while an answer is due.
    patience: Duration,
    _driver: Arc<AbortOnDropHandle<()>>,
}

impl RedisConnection {
    /// Connects, and logs in, to the Redis of `client`; over TLS with these certificates, or those that the system trusts.
    pub(super) async fn open(
        client: &Client,
        certificates: Option<&TlsCertificates>,
        patience: Duration,
    ) -> RedisResult<Self> {
        let last_read = LastRead(Arc::new(Mutex::new(Instant::now())));
        let connecting = async {
            match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) => {
                    let stream = connect((host, *port), &last_read).await?;
                    log_in(client, stream).await
                }
                ConnectionAddr::TcpTls { host, port, .. } => {
                    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                    let tls = TlsConnector::from(Arc::new(tls_config(certificates)?));
                    let stream = connect((host, *port), &last_read).await?;
                    log_in(client, tls.connect(name, stream).await?).await
                }
                ConnectionAddr::Unix(_) | _ => {
                    Err((ErrorKind::InvalidClientConfig, "no address of a network").into())
                }
            }
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        let (commands, driver) = connected.unwrap_or_else(|_| Err(timeout_error()))?;
        Ok(Self { commands, last_read, patience, _driver: Arc::new(driver) })
    }

    /// The answer to a request, unless nothing comes for too long.
    async fn await_answer<T>(
        last_read: LastRead,
        patience: Duration,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let (asked, mut answer) = (Instant::now(), pin!(answer));
        let mut deadline = asked + patience;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = sleep_until(deadline) => {}
            }
            // What has come while this process did not run is read first.
            yield_now().await;
            let later = last_read.time().max(asked) + patience;
            if later <= deadline {
                return Err(timeout_error());
            }
            deadline = later;
        }
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let answer = self.commands.req_packed_command(command);
        Box::pin(Self::await_answer(self.last_read.clone(), self.patience, answer))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let answers = self.commands.req_packed_commands(pipeline, offset, count);
        Box::pin(Self::await_answer(self.last_read.clone(), self.patience, answers))
    }

    fn get_db(&self) -> i64 {
        self.commands.get_db()
    }
}

/// Connects to the address of a host that accepts first, without delay of small packets, for a person waits for each message.
async fn connect(address: (&str, u16), last_read: &LastRead) -> RedisResult<ObservedStream> {
    let attempts: Vec<_> =
        lookup_host(address).await?.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err((ErrorKind::InvalidClientConfig, "the host has no address").into());
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(ObservedStream { stream, last_read: last_read.clone() })
}

/// Logs in, and starts to send and to read.
async fn log_in(
    client: &Client,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> RedisResult<(MultiplexedConnection, AbortOnDropHandle<()>)> {
    let login = client.get_connection_info().redis_settings();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let (commands, driver) = MultiplexedConnection::new_with_config(login, stream, config).await?;
    Ok((commands, AbortOnDropHandle::new(tokio::spawn(driver))))
}

fn tls_config(certificates: Option<&TlsCertificates>) -> RedisResult<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = certificates.and_then(|certificates| certificates.root_cert.as_ref()) {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
    } else {
        // As many as can be used: a system may have old ones that cannot.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn timeout_error() -> RedisError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// When something has come through a connection last.
#[derive(Clone)]
struct LastRead(Arc<Mutex<Instant>>);

impl LastRead {
    fn time(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Notes when something comes.
struct ObservedStream {
    stream: TcpStream,
    last_read: LastRead,
}

impl AsyncRead for ObservedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, bytes));
        if bytes.filled().len() > before {
            self.last_read.note(Instant::now());
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for ObservedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(1_500);

    /// Waits for an answer that takes ten seconds, while something comes at these times; how long it waited.
    async fn wait_for_answer(comes_at: &[u64]) -> (RedisResult<u8>, Duration) {
        let began = Instant::now();
        let last_read = LastRead(Arc::new(Mutex::new(began)));
        let answer = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Ok(1)
        };
        let read = async {
            for millis in comes_at {
                sleep_until(began + Duration::from_millis(*millis)).await;
                last_read.note(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        let waiting = RedisConnection::await_answer(last_read.clone(), PATIENCE, answer);
        tokio::select! {
            biased;
            () = read => unreachable!(),
            answer = waiting => (answer, began.elapsed()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_take_long_as_long_as_something_comes() {
        let (answer, _) = wait_for_answer(&[1_000, 2_400, 3_800, 5_200, 6_600, 8_000, 9_400]).await;

        assert_eq!(answer.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_through_which_nothing_comes_is_lost() {
        for (comes_at, lost_after) in
            [(&[][..], 1_500), (&[1_000], 2_500), (&[1_000, 1_400], 2_900)]
        {
            let (answer, waited) = wait_for_answer(comes_at).await;

            assert!(answer.unwrap_err().is_timeout());
            assert_eq!(waited.as_millis(), lost_after);
        }
    }
}
