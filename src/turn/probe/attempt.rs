//! Probes one STUN or TURN server as a client would use it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use super::{
    connection::ProbeConnection,
    messages::{self, MessageAuth, StunResponse},
    outcome::{ProbeOutcome, ProbeReport, STEP_TIMEOUT},
};
use crate::{
    clock::unix_now,
    turn::{self, IceServerUrl, TurnCredentials},
};

/// The longest that one address is probed.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(8);

/// The lifetime of the first credentials of a probe: a server whose clock is further ahead takes them for expired.
const SHORT_LIFETIME: Duration = Duration::from_secs(60);

/// The lifetime of the last credentials, ten years but at most until [`turn::LAST_EXPIRY`]: no clock is that wrong.
const LONG_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What the credentials of a probe are minted from, as for clients.
#[derive(Clone, Copy)]
pub(super) struct CredentialSource<'a> {
    /// The secret that the TURN server shares with this one.
    pub secret: &'a SecretString,
    /// The lifetime of the credentials that clients get.
    pub ttl: Duration,
    /// The account in the credentials, by which the TURN server's log names the probe.
    pub account: &'a str,
    /// Whether to try expired credentials, too, which the TURN server's log shows as an attack.
    pub tries_expired: bool,
}

impl CredentialSource<'_> {
    /// Credentials that last `lifetime` from now on.
    fn mint(&self, lifetime: Duration) -> TurnCredentials {
        turn::mint(self.secret, self.account, lifetime, unix_now())
    }

    /// Credentials that expired a day ago.
    fn mint_expired(&self) -> TurnCredentials {
        let yesterday = unix_now().saturating_sub(24 * 60 * 60);
        turn::mint(self.secret, self.account, Duration::ZERO, yesterday)
    }
}

/// Probes `url`: a STUN server with a Binding request, a TURN server with an allocation, which is released at once. `tls`
/// is how clients verify the server's certificate.
pub(super) async fn probe(
    url: &IceServerUrl,
    credentials: CredentialSource<'_>,
    tls: &Arc<ClientConfig>,
) -> ProbeReport {
    let addresses = match resolve(url).await {
        Ok(addresses) => addresses,
        Err(error) => return ProbeReport::new(ProbeOutcome::UnknownHost(error)),
    };
    let mut report = ProbeReport::new(ProbeOutcome::Timeout);
    for address in addresses {
        report.latency = None;
        let mut attempt =
            Attempt { url, address, credentials, tls, report: &mut report, allocation: None };
        let tried = timeout(ADDRESS_TIMEOUT, attempt.run()).await;
        // Also after a timeout: an allocation that is not released stays for ten minutes.
        attempt.release().await;
        report.outcome = match tried {
            Ok(Ok(outcome) | Err(outcome)) => outcome,
            Err(_) => ProbeOutcome::Timeout,
        };
        if report.outcome.is_up() {
            break;
        }
    }
    report
}

/// The first address of each family, in the order in which the system would try them.
async fn resolve(url: &IceServerUrl) -> Result<Vec<SocketAddr>, String> {
    let looked_up = timeout(STEP_TIMEOUT, lookup_host((url.host.as_str(), url.port))).await;
    let found = match looked_up {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => {
            return Err(format!("no name server answers within {} s", STEP_TIMEOUT.as_secs()));
        }
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.iter().all(|known| known.is_ipv4() != address.is_ipv4()) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The probe of one server at one address.
struct Attempt<'a> {
    url: &'a IceServerUrl,
    address: SocketAddr,
    credentials: CredentialSource<'a>,
    tls: &'a Arc<ClientConfig>,
    report: &'a mut ProbeReport,
    /// The connection that holds an allocation, and what authenticated it.
    allocation: Option<(ProbeConnection, Option<MessageAuth>)>,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<ProbeOutcome, ProbeOutcome> {
        if !self.url.is_turn {
            let mut connection = self.connect().await?;
            return Ok(match self.send_first(&mut connection, &messages::binding()).await? {
                StunResponse::Success => ProbeOutcome::Up,
                StunResponse::Error { code, reason, .. } => ProbeOutcome::Refused(code, reason),
            });
        }
        let ttl = self.credentials.ttl;
        for (lifetime, outcome) in [
            (SHORT_LIFETIME.min(ttl), ProbeOutcome::Up),
            (ttl, ProbeOutcome::ClockAhead),
            (LONG_LIFETIME.max(ttl), ProbeOutcome::Expired),
        ] {
            if lifetime == ttl && outcome == ProbeOutcome::ClockAhead && ttl <= SHORT_LIFETIME {
                continue;
            }
            match self.allocate(&self.credentials.mint(lifetime)).await? {
                Some(ProbeOutcome::Up) if self.credentials.tries_expired => {
                    self.release().await;
                    return Ok(match self.allocate(&self.credentials.mint_expired()).await {
                        Ok(Some(ProbeOutcome::Up)) => ProbeOutcome::IgnoresExpiry,
                        Ok(_) | Err(_) => outcome,
                    });
                }
                Some(ProbeOutcome::Up) => return Ok(outcome),
                Some(refused) => return Ok(refused),
                None => {}
            }
        }
        Ok(ProbeOutcome::WrongSecret)
    }

    async fn connect(&mut self) -> Result<ProbeConnection, ProbeOutcome> {
        let connection = ProbeConnection::open(self.url, self.address, self.tls).await?;
        self.report.certificate_expires_at = connection.certificate_expiry();
        Ok(connection)
    }

    /// Sends the first request on a connection, whose answer shows the latency.
    async fn send_first(
        &mut self,
        connection: &mut ProbeConnection,
        request: &[u8],
    ) -> Result<StunResponse, ProbeOutcome> {
        let sent_at = Instant::now();
        let response = connection.request(request, None).await?;
        self.report.latency.get_or_insert(sent_at.elapsed());
        Ok(response)
    }

    /// Allocates a relay address with these credentials; `None` if they are refused. On a connection of its own each
    /// time: coturn lets no client change its username on one.
    async fn allocate(
        &mut self,
        credentials: &TurnCredentials,
    ) -> Result<Option<ProbeOutcome>, ProbeOutcome> {
        let mut connection = self.connect().await?;
        let first = match self.send_first(&mut connection, &messages::allocate(None)).await {
            // A STUN server that does not relay may ignore the request.
            Err(ProbeOutcome::Timeout) => {
                let answers_stun = connection.request(&messages::binding(), None).await.is_ok();
                return Err(if answers_stun {
                    ProbeOutcome::StunOnly
                } else {
                    ProbeOutcome::Timeout
                });
            }
            first => first?,
        };
        let (code, reason, challenge) = match first {
            StunResponse::Success => {
                self.allocation = Some((connection, None));
                return Ok(Some(ProbeOutcome::OpenRelay));
            }
            StunResponse::Error { code, reason, challenge } => (code, reason, challenge),
        };
        if code != 401 {
            return Ok(Some(refused(code, reason)));
        }
        let mut challenge = challenge.ok_or(ProbeOutcome::NoLongTermCredentials)?;
        let mut nonce_was_stale = false;
        loop {
            let auth = challenge.answer(&credentials.username, &credentials.credential);
            let auth = auth.ok_or(ProbeOutcome::NoLongTermCredentials)?;
            let answer = connection.request(&messages::allocate(Some(&auth)), Some(&auth)).await;
            match answer.map_err(after_the_challenge)? {
                StunResponse::Success => {
                    self.allocation = Some((connection, Some(auth)));
                    return Ok(Some(ProbeOutcome::Up));
                }
                // Stale Nonce: to be sent again with the new one (RFC 8489 section 9.2.5).
                StunResponse::Error { code: 438, challenge: Some(newer), .. }
                    if !nonce_was_stale =>
                {
                    nonce_was_stale = true;
                    challenge = newer;
                }
                StunResponse::Error { code: 401, .. } => return Ok(None),
                StunResponse::Error { code, reason, .. } => return Ok(Some(refused(code, reason))),
            }
        }
    }

    /// Releases the allocation, if there is one.
    async fn release(&mut self) {
        if let Some((mut connection, auth)) = self.allocation.take() {
            let _ = connection.request(&messages::release(auth.as_ref()), auth.as_ref()).await;
        }
    }
}

/// What no answer to an authenticated request means: no firewall drops it, for the server answered the one before.
fn after_the_challenge(failure: ProbeOutcome) -> ProbeOutcome {
    if failure == ProbeOutcome::Timeout { ProbeOutcome::AllocationTimeout } else { failure }
}

fn refused(code: u16, reason: String) -> ProbeOutcome {
    if code == 300 { ProbeOutcome::Redirects } else { ProbeOutcome::Refused(code, reason) }
}
