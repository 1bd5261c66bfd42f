//! The log lines that a client can cause in any number: one for each kind, address and minute.
//!
//! Most are about refusals, some about what a client with a token does again and again. Every such line goes through here;
//! `tests/log_lines_doc.rs` finds others.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::field::display;

use super::address_key;

/// How long refusals of one kind from one address are counted before there is another line.
const WINDOW: Duration = Duration::from_secs(60);

/// How many lines of one kind there are in a [`WINDOW`].
const MAX_LINES_PER_KIND: u32 = 60;

/// What was refused, or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// An HTTP request: too many came from its address.
    HttpRate,
    /// A request that must come by HTTPS: the trusted proxy at this address did not say whether it did.
    SilentProxy,
    /// The same where the proxy's PROXY header does not say so.
    SilentTcpProxy,
    /// A connection without a PROXY header of a trusted proxy, for this reason.
    ProxyHeader(&'static str),
    /// The handshake of a WebSocket: its `Origin` is not one of `CORS_ORIGINS`.
    Origin,
    /// The handshake of a WebSocket, for this reason.
    Handshake(&'static str),
    /// A request with a bearer token that is not `ADMIN_TOKEN`.
    AdminToken,
    /// A login with a wrong username or password.
    Login,
    /// An access token, for a reason of this kind.
    Token(&'static str),
    /// A login: too many wait for their passwords to be checked.
    WaitingLogins,
    /// A WebSocket or its client, for the reason of this close.
    Connection(&'static str),
    /// A connection: its address has too many that are no WebSocket.
    AddressConnections,
    /// A resume.
    Resume,
    /// A detached member: its address has too many.
    DetachedMember,
    /// Messages over the rate of a connection.
    MessageRate,
    /// A new access token in a session.
    TokenRefresh(&'static str),
    /// A logout, which was done.
    Logout,
    /// This action of a moderator, which was done.
    Moderation(&'static str),
    /// An action of a moderator, for this reason.
    ModerationRefused(&'static str),
    /// The file of moderation rules: the system did not write it.
    RulesNotSaved,
    /// The file of logouts: the system did not write it.
    LogoutsNotSaved,
}

impl RefusalKind {
    /// Logs `count` refusals. `address` is their address, where they have one and the span does not name it.
    fn log(self, address: Option<IpAddr>, count: u64) {
        let address = address.map(display);
        match self {
            Self::HttpRate => tracing::warn!(address, count, "HTTP rate limit reached"),
            Self::SilentProxy => tracing::warn!(
                address,
                count,
                "HTTPS required, and this proxy sent no X-Forwarded-Proto"
            ),
            Self::SilentTcpProxy => tracing::warn!(
                address,
                count,
                "HTTPS required, and this proxy's PROXY header does not say that the client used TLS"
            ),
            Self::ProxyHeader(reason) => {
                tracing::warn!(
                    reason,
                    address,
                    count,
                    "connection without a valid PROXY header closed"
                )
            }
            Self::Origin => tracing::warn!(address, count, "origin refused"),
            Self::Handshake(reason) => tracing::warn!(reason, address, count, "handshake refused"),
            Self::AdminToken => tracing::warn!(address, count, "invalid admin token"),
            Self::Login => tracing::warn!(address, count, "login failed"),
            Self::Token(reason) => tracing::warn!(reason, address, count, "token refused"),
            Self::WaitingLogins => {
                tracing::warn!(address, count, "login rejected: too many are waiting")
            }
            Self::Connection(reason) => {
                tracing::warn!(reason, address, count, "connection rejected")
            }
            Self::AddressConnections => {
                tracing::warn!(address, count, "too many connections from one address; closing")
            }
            Self::Resume => tracing::info!(address, count, "resume refused"),
            Self::DetachedMember => tracing::warn!(
                address,
                count,
                "member not kept: too many detached members from this address"
            ),
            Self::MessageRate => tracing::warn!(address, count, "message rate exceeded"),
            Self::TokenRefresh(reason) => {
                tracing::warn!(reason, address, count, "token refresh refused")
            }
            Self::Logout => tracing::info!(address, count, "logged out"),
            Self::Moderation(action) => {
                tracing::info!(action, address, count, "moderator acts")
            }
            Self::ModerationRefused(reason) => {
                tracing::warn!(reason, address, count, "moderation refused")
            }
            Self::RulesNotSaved => {
                tracing::error!(count, "moderation rules not saved: a restart would undo them")
            }
            Self::LogoutsNotSaved => {
                tracing::error!(count, "logouts not saved: a restart would undo them")
            }
        }
    }
}

/// Decides which refusals are logged.
///
/// The first refusal of a kind from an address is logged at once. Those that follow within a minute are counted, and the
/// next line has their number. Where a kind has all its lines of a minute, further addresses are counted together, and
/// have one line without an address.
#[derive(Default)]
struct RefusalLog {
    addresses: BTreeMap<(RefusalKind, IpAddr), AddressRefusals>,
    kinds: BTreeMap<RefusalKind, KindRefusals>,
}

/// Refusals of one kind from an address that has a line in the log.
struct AddressRefusals {
    logged_at: Instant,
    /// How many there were since.
    unlogged: u64,
}

/// Refusals of one kind.
struct KindRefusals {
    window_start: Instant,
    /// How many lines there were in the window.
    lines: u32,
    /// How many are counted without an address, and when the first of them was.
    unlogged: Option<(u64, Instant)>,
}

/// The log belongs to the process, and so does what is counted for it.
static REFUSALS: LazyLock<Mutex<RefusalLog>> = LazyLock::new(Mutex::default);

/// Logs a refusal of a client at `address`, or counts it for a later line.
pub fn log_refusal(kind: RefusalKind, address: IpAddr, now: Instant) {
    if let Some(count) = count_refusal(kind, address, now) {
        kind.log(Some(address), count);
    }
}

/// The same where the current span names the address.
pub fn log_refusal_in_span(kind: RefusalKind, address: IpAddr, now: Instant) {
    if let Some(count) = count_refusal(kind, address, now) {
        kind.log(None, count);
    }
}

/// Counts a refusal. Where it is to be logged, returns how many refusals that line stands for: the caller logs it, with
/// the fields that only it knows.
pub fn count_refusal(kind: RefusalKind, address: IpAddr, now: Instant) -> Option<u64> {
    refusals().count(kind, address_key(address), now)
}

/// Counts a fault of the system that a client's requests meet again and again, as [`count_refusal`] does for one address.
pub fn count_fault(kind: RefusalKind, now: Instant) -> Option<u64> {
    refusals().count(kind, Ipv4Addr::UNSPECIFIED.into(), now)
}

/// Logs the refusals that were counted, where the minute of their last line is over.
pub fn log_counted_refusals(now: Instant) {
    let due = refusals().take_due(now);
    for (kind, address, count) in due {
        kind.log(address, count);
    }
}

fn refusals() -> MutexGuard<'static, RefusalLog> {
    REFUSALS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_over(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= WINDOW
}

impl KindRefusals {
    fn new(now: Instant) -> Self {
        Self { window_start: now, lines: 0, unlogged: None }
    }

    /// Whether there may be another line, of which there are at most `max` in a window; then it counts.
    fn take_line(&mut self, max: u32, now: Instant) -> bool {
        if is_over(self.window_start, now) {
            (self.window_start, self.lines) = (now, 0);
        }
        let has_line = self.lines < max;
        self.lines += u32::from(has_line);
        has_line
    }

    /// The same for a line that names an address: one is left for those without.
    fn take_address_line(&mut self, now: Instant) -> bool {
        self.take_line(MAX_LINES_PER_KIND - 1, now)
    }
}

impl RefusalLog {
    /// Counts one; where it is to be logged, how many the line stands for.
    fn count(&mut self, kind: RefusalKind, address: IpAddr, now: Instant) -> Option<u64> {
        let of_kind = self.kinds.entry(kind).or_insert_with(|| KindRefusals::new(now));
        match self.addresses.entry((kind, address)) {
            Entry::Occupied(entry) => {
                let refusals = entry.into_mut();
                refusals.unlogged += 1;
                if !is_over(refusals.logged_at, now) || !of_kind.take_address_line(now) {
                    return None;
                }
                refusals.logged_at = now;
                Some(std::mem::take(&mut refusals.unlogged))
            }
            Entry::Vacant(entry) => {
                if of_kind.take_address_line(now) {
                    entry.insert(AddressRefusals { logged_at: now, unlogged: 0 });
                    return Some(1);
                }
                of_kind.unlogged.get_or_insert((0, now)).0 += 1;
                None
            }
        }
    }

    /// The lines about what was counted a minute ago: each with its kind, address and count. What has nothing left to say
    /// is dropped.
    fn take_due(&mut self, now: Instant) -> Vec<(RefusalKind, Option<IpAddr>, u64)> {
        let mut due = Vec::new();
        let kinds = &mut self.kinds;
        for (kind, of_kind) in kinds.iter_mut() {
            let waiting = of_kind.unlogged.filter(|(_, first_at)| is_over(*first_at, now));
            if let Some((count, _)) = waiting
                && of_kind.take_line(MAX_LINES_PER_KIND, now)
            {
                of_kind.unlogged = None;
                due.push((*kind, None, count));
            }
        }
        self.addresses.retain(|(kind, address), refusals| {
            if !is_over(refusals.logged_at, now) || refusals.unlogged == 0 {
                return !is_over(refusals.logged_at, now);
            }
            let of_kind = kinds.entry(*kind).or_insert_with(|| KindRefusals::new(now));
            if of_kind.take_address_line(now) {
                due.push((*kind, Some(*address), std::mem::take(&mut refusals.unlogged)));
                refusals.logged_at = now;
            }
            true
        });
        kinds
            .retain(|_, of_kind| !is_over(of_kind.window_start, now) || of_kind.unlogged.is_some());
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: RefusalKind = RefusalKind::HttpRate;
    const SECOND: Duration = Duration::from_secs(1);

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xC000_0200 + number).into()
    }

    #[test]
    fn the_first_refusal_is_logged_at_once_and_those_of_a_minute_together() {
        let (mut log, now) = (RefusalLog::default(), Instant::now());

        assert_eq!(log.count(KIND, ip(1), now), Some(1));
        for _ in 0..1_000 {
            assert_eq!(log.count(KIND, ip(1), now + 59 * SECOND), None);
        }
        assert_eq!(log.count(RefusalKind::Login, ip(1), now), Some(1), "another kind");
        assert_eq!(log.count(KIND, ip(2), now), Some(1), "another address");
        assert_eq!(log.count(KIND, ip(1), now + 60 * SECOND), Some(1_001));
        assert_eq!(log.count(KIND, ip(1), now + 61 * SECOND), None);
    }

    #[test]
    fn what_was_counted_is_logged_when_its_minute_is_over_also_where_nothing_follows() {
        let (mut log, now) = (RefusalLog::default(), Instant::now());
        for _ in 0..8 {
            log.count(KIND, ip(1), now);
        }
        log.count(KIND, ip(2), now);

        assert_eq!(log.take_due(now + 59 * SECOND), []);
        assert_eq!(log.take_due(now + 60 * SECOND), [(KIND, Some(ip(1)), 7)]);
        assert_eq!(log.take_due(now + 119 * SECOND), []);
        assert_eq!(log.take_due(now + 120 * SECOND), []);
        assert!(log.addresses.is_empty() && log.kinds.is_empty());
    }

    #[test]
    fn a_kind_has_sixty_lines_a_minute_from_any_number_of_addresses_and_every_refusal_is_counted() {
        let (mut log, now) = (RefusalLog::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for minute in 0..5 {
            let now = now + minute * 60 * SECOND;
            let mut in_minute = 0;
            for (_, _, count) in log.take_due(now) {
                (in_minute, counted) = (in_minute + 1, counted + count);
            }
            for number in 0..10_000 {
                if let Some(count) = log.count(KIND, ip(number), now) {
                    (in_minute, counted) = (in_minute + 1, counted + count);
                }
            }
            assert!(in_minute <= MAX_LINES_PER_KIND, "{in_minute}");
            assert!(log.addresses.len() <= 2 * MAX_LINES_PER_KIND as usize);
            lines += in_minute;
        }
        for minute in 5..10 {
            let due = log.take_due(now + minute * 60 * SECOND);
            counted += due.iter().map(|(.., count)| count).sum::<u64>();
        }

        assert_eq!(counted, 50_000);
        assert!(lines > 200, "{lines}");
        assert!(log.addresses.is_empty() && log.kinds.is_empty());
    }
}
