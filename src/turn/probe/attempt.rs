//! Tries one STUN or TURN server as a client would, and says what became of it.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use super::{
    connection::{Line, PATIENCE},
    messages::{self, Answer, Proof},
};
use crate::{
    clock::unix_now,
    turn::{
        self,
        url::{RelayUrl, Transport},
    },
};

/// For one address, whatever it does.
const WITHIN: Duration = Duration::from_secs(8);

/// As long as the first credentials last that are tried: a relay whose clock is further ahead takes them for expired.
const SHORT: Duration = Duration::from_secs(60);

/// No clock is that wrong: ten years.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Credentials as this server issues them.
#[derive(Clone, Copy)]
pub struct Issued<'a> {
    /// What the relay shares with us.
    pub secret: &'a SecretString,
    /// How long they last.
    pub ttl: Duration,
    /// Whose they are, in the log of the relay.
    pub account: &'a str,
}

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gave an address to relay at; or, for STUN, said who we are.
    Up,
    /// The same, but its clock is more than a minute ahead of ours, so that credentials end early.
    ClockAhead,
    /// It takes what we issue for expired, and the same secret with a later end for good.
    Expired,
    /// It refuses what we issue, whenever that ends.
    WrongSecret,
    /// It gives addresses to anybody.
    Open,
    /// It sends clients to another server (300), which was not tried.
    Redirects,
    /// It asks for a proof of another kind than we issue.
    NoLongTerm,
    /// It said no: code and reason.
    Refused(u16, String),
    /// The name of its host stands for no address; what the system says.
    UnknownHost(String),
    /// Nobody listens there.
    Closed,
    /// No way there; what the system says.
    Unreachable(String),
    /// Nothing was heard in time.
    Silent,
    /// What answers is no STUN.
    NoStun,
    /// It ended the connection without an answer.
    HungUp,
    /// Clients do not trust its certificate; what they say.
    BadCertificate(String),
    /// It does not speak TLS as we do; what was said.
    NoTls(String),
    /// TURN over DTLS is not tried.
    NotTried,
}

impl Verdict {
    /// Whether clients may hope for it.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Up | Self::ClockAhead | Self::Open | Self::Redirects | Self::NotTried => true,
            Self::Expired
            | Self::WrongSecret
            | Self::NoLongTerm
            | Self::Refused(..)
            | Self::UnknownHost(_)
            | Self::Closed
            | Self::Unreachable(_)
            | Self::Silent
            | Self::NoStun
            | Self::HungUp
            | Self::BadCertificate(_)
            | Self::NoTls(_) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("answers"),
            Self::ClockAhead => f.write_str("relays, but its clock is more than a minute ahead of ours: credentials end early"),
            Self::Expired => f.write_str("takes fresh credentials for expired (401): the secret is right, but its clock is ahead of ours by more than TURNSERVER_TTL"),
            Self::WrongSecret => f.write_str("refuses fresh credentials (401), also such as end in years: it has another secret"),
            Self::Open => f.write_str("relays for anybody, without credentials"),
            Self::Redirects => f.write_str("sends clients to another server (300), which was not tried"),
            Self::NoLongTerm => f.write_str("asks for no credentials of the kind that are issued: its refusal names no realm"),
            Self::Refused(code, reason) => write!(f, "says {code} {reason:?}{}", meaning(*code)),
            Self::UnknownHost(error) => write!(f, "its host is unknown: {error}"),
            Self::Closed => f.write_str("the port is closed: nobody listens"),
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Silent => write!(f, "nothing is heard for {} s", PATIENCE.as_secs()),
            Self::NoStun => f.write_str("what answers there does not speak STUN"),
            Self::HungUp => f.write_str("hangs up without an answer"),
            Self::BadCertificate(fault) => write!(f, "its certificate is not accepted: {fault}"),
            Self::NoTls(fault) => write!(f, "no TLS can be had: {fault}"),
            Self::NotTried => f.write_str("TURN over DTLS is not tried, and few clients speak it"),
        }
    }
}

/// RFC 8489 section 14.8 and RFC 8656 section 19, in an operator's words.
fn meaning(code: u16) -> &'static str {
    match code {
        403 => ": this client may not relay there",
        437 => ": it mistakes this client for another one",
        438 => ": it takes every nonce for an old one",
        442 => ": it relays no UDP",
        486 => ": this user has as many allocations as it allows",
        508 => ": it has no port or no bandwidth left",
        _ => "",
    }
}

/// What a trial has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of it.
    pub verdict: Verdict,
    /// How long the first question took to be answered, once there was a connection.
    pub latency: Option<Duration>,
    /// When its certificate ends, in whole seconds since the Unix epoch.
    pub certificate_ends: Option<u64>,
}

/// Tries `url`: a STUN server with a Binding, a relay with an allocation, which is given back at once. `tls` is how
/// clients look at its certificate.
pub async fn probe(url: &RelayUrl, issued: Issued<'_>, tls: &Arc<ClientConfig>) -> Report {
    let mut report = Report { verdict: Verdict::Silent, latency: None, certificate_ends: None };
    if url.transport == Transport::Dtls {
        report.verdict = Verdict::NotTried;
        return report;
    }
    let addresses = match addresses(url).await {
        Ok(addresses) => addresses,
        Err(error) => {
            report.verdict = Verdict::UnknownHost(error);
            return report;
        }
    };
    for address in addresses {
        report.latency = None;
        let mut trial = Trial { url, address, issued, tls, report: &mut report, given: None };
        let tried = timeout(WITHIN, trial.run()).await;
        // Also where that took too long: an address that is not given back stays taken for ten minutes.
        trial.give_back().await;
        report.verdict = match tried {
            Ok(Ok(verdict) | Err(verdict)) => verdict,
            Err(_) => Verdict::Silent,
        };
        if report.verdict.is_up() {
            break;
        }
    }
    report
}

/// The first address of each family, in the order in which the system would try them.
async fn addresses(url: &RelayUrl) -> Result<Vec<SocketAddr>, String> {
    let looked_up = timeout(PATIENCE, lookup_host((url.host.as_str(), url.port))).await;
    let found = match looked_up {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no name server answers within {} s", PATIENCE.as_secs())),
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if addresses.iter().all(|known| known.is_ipv4() != address.is_ipv4()) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// One server at one address.
struct Trial<'a> {
    url: &'a RelayUrl,
    address: SocketAddr,
    issued: Issued<'a>,
    tls: &'a Arc<ClientConfig>,
    report: &'a mut Report,
    /// An address that is taken, and what it was given for.
    given: Option<(Line, Option<Proof>)>,
}

impl Trial<'_> {
    async fn run(&mut self) -> Result<Verdict, Verdict> {
        if !self.url.relays {
            let mut line = self.open().await?;
            return Ok(match self.first(&mut line, &messages::binding()).await? {
                Answer::Done => Verdict::Up,
                Answer::Refused { code, reason, .. } => Verdict::Refused(code, reason),
            });
        }
        let ttl = self.issued.ttl;
        for (lifetime, verdict) in [
            (SHORT.min(ttl), Verdict::Up),
            (ttl, Verdict::ClockAhead),
            (FAR.max(ttl), Verdict::Expired),
        ] {
            if lifetime == ttl && verdict == Verdict::ClockAhead && ttl <= SHORT {
                continue;
            }
            if let Some(other) = self.allocates(lifetime).await? {
                return Ok(if other == Verdict::Up { verdict } else { other });
            }
        }
        Ok(Verdict::WrongSecret)
    }

    async fn open(&mut self) -> Result<Line, Verdict> {
        let line = Line::open(self.url, self.address, self.tls).await?;
        self.report.certificate_ends = line.certificate_ends();
        Ok(line)
    }

    /// The first question on a line, which shows how far away it is.
    async fn first(&mut self, line: &mut Line, request: &[u8]) -> Result<Answer, Verdict> {
        let asked = Instant::now();
        let answer = line.ask(request, None).await?;
        self.report.latency.get_or_insert(asked.elapsed());
        Ok(answer)
    }

    /// Asks for an address with credentials that last so long; `None` where they are refused. On a line of its own
    /// each time: coturn lets nobody change his name on one.
    async fn allocates(&mut self, lifetime: Duration) -> Result<Option<Verdict>, Verdict> {
        let mut line = self.open().await?;
        let (code, reason, challenge) =
            match self.first(&mut line, &messages::allocate(None)).await? {
                Answer::Done => {
                    self.given = Some((line, None));
                    return Ok(Some(Verdict::Open));
                }
                Answer::Refused { code, reason, challenge } => (code, reason, challenge),
            };
        if code != 401 {
            return Ok(Some(refused(code, reason)));
        }
        let mut challenge = challenge.ok_or(Verdict::NoLongTerm)?;
        let Issued { secret, account, .. } = self.issued;
        let minted = turn::mint(secret.expose_secret(), account, lifetime, unix_now());
        let mut nonce_was_old = false;
        loop {
            let proof = challenge.answered(&minted.username, &minted.credential);
            let proof = proof.ok_or(Verdict::NoLongTerm)?;
            match line.ask(&messages::allocate(Some(&proof)), Some(&proof)).await? {
                Answer::Done => {
                    self.given = Some((line, Some(proof)));
                    return Ok(Some(Verdict::Up));
                }
                // Stale Nonce: to be asked again with the new one (RFC 8489 section 9.2.5).
                Answer::Refused { code: 438, challenge: Some(newer), .. } if !nonce_was_old => {
                    nonce_was_old = true;
                    challenge = newer;
                }
                Answer::Refused { code: 401, .. } => return Ok(None),
                Answer::Refused { code, reason, .. } => return Ok(Some(refused(code, reason))),
            }
        }
    }

    /// Gives back the address that was given, if any.
    async fn give_back(&mut self) {
        if let Some((mut line, proof)) = self.given.take() {
            let _ = line.ask(&messages::release(proof.as_ref()), proof.as_ref()).await;
        }
    }
}

fn refused(code: u16, reason: String) -> Verdict {
    if code == 300 { Verdict::Redirects } else { Verdict::Refused(code, reason) }
}
