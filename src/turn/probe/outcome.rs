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
    /// The server allocates relay addresses without credentials.
    OpenRelay,
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
    /// The answer is no STUN message.
    NotStun,
    /// The server closed the connection without an answer.
    ConnectionClosed,
    /// Clients do not accept the server's certificate; what they report.
    BadCertificate(String),
    /// The TLS handshake failed; what was reported.
    TlsFailed(String),
    /// TURN over DTLS is not probed.
    NotProbed,
}

impl ProbeOutcome {
    /// Whether the server can be expected to work for clients.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Up | Self::ClockAhead | Self::OpenRelay | Self::Redirects | Self::NotProbed => {
                true
            }
            Self::Expired
            | Self::WrongSecret
            | Self::NoLongTermCredentials
            | Self::Refused(..)
            | Self::UnknownHost(_)
            | Self::PortClosed
            | Self::Unreachable(_)
            | Self::Timeout
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
            Self::WrongSecret => f.write_str("rejects new credentials (401), also those that expire in years: it has another secret"),
            Self::OpenRelay => f.write_str("relays without credentials, for anyone"),
            Self::Redirects => f.write_str("redirects clients to another server (300), which was not probed"),
            Self::NoLongTermCredentials => f.write_str("does not ask for long-term credentials: its challenge names no realm"),
            Self::Refused(code, reason) => write!(f, "answers {code} {reason:?}{}", meaning(*code)),
            Self::UnknownHost(error) => write!(f, "its host name cannot be resolved: {error}"),
            Self::PortClosed => f.write_str("connection refused: nothing listens on the port"),
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Timeout => write!(f, "no answer within {} s", STEP_TIMEOUT.as_secs()),
            Self::NotStun => f.write_str("the answer is not STUN"),
            Self::ConnectionClosed => f.write_str("closes the connection without an answer"),
            Self::BadCertificate(fault) => write!(f, "its certificate is not accepted: {fault}"),
            Self::TlsFailed(fault) => write!(f, "TLS handshake failed: {fault}"),
            Self::NotProbed => f.write_str("TURN over DTLS is not probed, and few clients support it"),
        }
    }
}

/// What an error code means (RFC 8489 section 14.8, RFC 8656 section 19), for an operator.
fn meaning(code: u16) -> &'static str {
    match code {
        403 => ": this client is not allowed to relay",
        437 => ": it takes this client for another one",
        438 => ": it rejects every nonce as stale",
        442 => ": it does not relay UDP",
        486 => ": the user's allocation quota is reached",
        508 => ": it has no port or bandwidth left",
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
