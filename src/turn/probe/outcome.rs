//! How a probe of a STUN or TURN server ended.

use std::{fmt, time::Duration};

/// How long each step of a probe may take: a name lookup, a connection, a handshake, an answer.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The TURN server allocated a relay address, or the STUN server returned the client's address.
    Up,
    /// The same, but the server's clock is more than a minute ahead, so that credentials end early.
    ClockAhead,
    /// The server takes issued credentials for expired, and accepts the same secret with a later expiry.
    Expired,
    /// The server refuses issued credentials, whatever their expiry.
    WrongSecret,
    /// The server allocates relay addresses without credentials, which no browser accepts.
    OpenRelay,
    /// The server relays, also with credentials that have expired.
    IgnoresExpiry,
    /// The server answers STUN, and no request to relay.
    StunOnly,
    /// The server redirects clients to another server (300), which was not probed.
    Redirects,
    /// The server does not ask for long-term credentials: its challenge names no realm.
    NoLongTermCredentials,
    /// The server refused: error code and reason.
    Refused(u16, String),
    /// The host name has no address; what the system returns.
    UnknownHost(String),
    /// Nothing listens on the port.
    PortClosed,
    /// The host cannot be reached; what the system returns.
    Unreachable(String),
    /// No answer came within [`STEP_TIMEOUT`].
    Timeout,
    /// The server asked for credentials, and answered the request that carries them not within [`STEP_TIMEOUT`]: coturn tries
    /// every port of its range before it says that it has none.
    AllocationTimeout,
    /// The answer is no STUN message.
    NotStun,
    /// The server closed the connection without an answer.
    ConnectionClosed,
    /// Clients do not accept the server's certificate; what they report.
    BadCertificate(String),
    /// The TLS handshake failed; what was reported.
    TlsFailed(String),
}

impl ProbeOutcome {
    /// Whether the server can be expected to work for clients.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Up | Self::ClockAhead | Self::IgnoresExpiry | Self::Redirects => true,
            Self::OpenRelay
            | Self::StunOnly
            | Self::Expired
            | Self::WrongSecret
            | Self::NoLongTermCredentials
            | Self::Refused(..)
            | Self::UnknownHost(_)
            | Self::PortClosed
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::AllocationTimeout
            | Self::NotStun
            | Self::ConnectionClosed
            | Self::BadCertificate(_)
            | Self::TlsFailed(_) => false,
        }
    }
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("answers"),
            Self::ClockAhead => f.write_str("works, but its clock is more than a minute ahead of this server's: credentials expire early"),
            Self::Expired => f.write_str("rejects new credentials as expired (401): the secret is right, but its clock is ahead of this server's by more than TURNSERVER_TTL"),
            Self::WrongSecret => f.write_str("rejects new credentials (401), also those that expire in years: it has another secret, or authenticates in another way than coturn's use-auth-secret"),
            Self::OpenRelay => f.write_str("gives addresses to anyone without credentials, and no browser takes one so"),
            Self::IgnoresExpiry => f.write_str("relays, and never checks the expiry: credentials that ended a day ago work"),
            Self::StunOnly => f.write_str("answers STUN, but no request to relay"),
            Self::Redirects => f.write_str("redirects clients to another server (300), which was not probed"),
            Self::NoLongTermCredentials => f.write_str("does not ask for long-term credentials: its challenge names no realm"),
            Self::Refused(code, reason) => write!(f, "answers {code} {reason:?}{}", meaning(*code)),
            Self::UnknownHost(error) => write!(f, "its host name cannot be resolved: {error}"),
            Self::PortClosed => f.write_str("connection refused: nothing listens on the port"),
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Timeout => write!(f, "no answer within {} s", STEP_TIMEOUT.as_secs()),
            Self::AllocationTimeout => write!(f, "asks for credentials, and does not answer them within {} s{NO_PORT}", STEP_TIMEOUT.as_secs()),
            Self::NotStun => f.write_str("the answer is not STUN"),
            Self::ConnectionClosed => f.write_str("closes the connection without an answer"),
            Self::BadCertificate(fault) => write!(f, "its certificate is not accepted: {fault}"),
            Self::TlsFailed(fault) => write!(f, "TLS handshake failed: {fault}"),
        }
    }
}

/// Why a server does not find a port to relay from.
const NO_PORT: &str = ": it has no port left, or relay-ip= is no address of its machine";

/// What an error code means (RFC 8489 section 14.8, RFC 8656 section 19), for an operator.
fn meaning(code: u16) -> &'static str {
    match code {
        403 => ": this client is not allowed to relay",
        437 => ": it takes this client for another one",
        438 => ": it rejects every nonce as stale",
        442 => ": it does not relay UDP",
        486 => ": the user's allocation quota is reached",
        400 => ": it does not accept the request, for example the user name",
        508 => NO_PORT,
        _ => "",
    }
}

/// What a probe has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// How the probe ended.
    pub outcome: ProbeOutcome,
    /// How long the first request took to be answered, once there was a connection.
    pub latency: Option<Duration>,
    /// When the server's certificate expires, in whole seconds since the Unix epoch.
    pub certificate_expires_at: Option<u64>,
}

impl ProbeReport {
    /// A report without latency and certificate.
    pub(super) fn new(outcome: ProbeOutcome) -> Self {
        Self { outcome, latency: None, certificate_expires_at: None }
    }
}
