//! What is counted, for `GET /metrics`. Nothing here names a room, a user or an address: every label has a
//! fixed set of values. What there is at the moment, and is not counted, `http::metrics` adds to it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::wire::{CallOutcome, CallReport, MediaPath};

/// Names of labels, and a value for each.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The values that a label has, and the word for each.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$about_value:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about_value])* $value,)+
        }

        impl $name {
            const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

words! {
    /// What a client said.
    Kind {
        /// `offer`.
        Offer = "offer",
        /// `answer`.
        Answer = "answer",
        /// `ice_candidate`.
        IceCandidate = "ice_candidate",
        /// `message`.
        Message = "message",
        /// `ping`.
        Ping = "ping",
        /// `auth_token`.
        AuthToken = "auth_token",
        /// `call_report`.
        Report = "call_report",
        /// Nothing that the protocol knows, or not looked at.
        Other = "other",
    }
}

words! {
    /// What became of it.
    Outcome {
        /// It was passed on, or answered.
        Done = "done",
        /// It was answered with an `error`.
        Refused = "refused",
        /// It came too fast.
        RateLimited = "rate_limited",
        /// Its client had said it already, before it resumed.
        Repeated = "repeated",
    }
}

words! {
    /// What became of a client that wanted to come back, or might have.
    Resume {
        /// It goes on where it was.
        Resumed = "resumed",
        /// It might not.
        Refused = "refused",
        /// It was away, and did not come.
        GivenUp = "given_up",
    }
}

words! {
    /// What became of a login.
    Login {
        /// There is a token.
        Done = "done",
        /// Name or password was wrong.
        Wrong = "wrong",
        /// Too many were wrong before.
        LockedOut = "locked_out",
        /// Too many waited already.
        Busy = "busy",
        /// The token could not be signed: our own fault.
        Failed = "failed",
    }
}

words! {
    /// What there was too much of.
    Limit {
        /// HTTP requests from an address (`RATE_LIMIT_PER_MINUTE`).
        Requests = "requests",
        /// Messages on a connection (`WEBSOCKET_MESSAGES_PER_SECOND`).
        Messages = "messages",
        /// Failed logins (`AUTH_MAX_FAILURES`).
        FailedLogins = "failed_logins",
        /// Bad socket tokens from an address (`AUTH_MAX_FAILURES`).
        BadTokens = "bad_tokens",
        /// Logins that wait for a password to be checked.
        WaitingLogins = "waiting_logins",
        /// Sockets from an address (`MAX_CONNECTIONS_PER_IP`).
        Sockets = "sockets",
        /// Sockets that have not shown a token.
        Strangers = "strangers",
        /// Connections from an address that are no WebSocket.
        Connections = "connections",
        /// Members from an address that are away and may come back.
        Seats = "seats",
    }
}

/// Everything that one server counts.
pub struct Metrics {
    registry: Registry,
    messages: [[Counter; Outcome::ALL.len()]; Kind::ALL.len()],
    received: Counter,
    sent: Counter,
    sent_frames: Counter,
    routing: Histogram,
    overflows: Counter,
    ping_rtt: Histogram,
    joins: Counter,
    leaves: Family<Labels<1>, Counter>,
    resumes: [Counter; Resume::ALL.len()],
    calls: Family<Labels<2>, Counter>,
    call_setup: Histogram,
    ends: Family<Labels<2>, Counter>,
    errors: Family<Labels<1>, Counter>,
    closes: Family<[(&'static str, String); 1], Counter>,
    limited: [Counter; Limit::ALL.len()],
    logins: [Counter; Login::ALL.len()],
    turn_credentials: Counter,
    /// In whole seconds since the Unix epoch; 0 where there is no certificate.
    certificate_expires_at: AtomicI64,
    /// Counted where they are delivered.
    pub webhooks: WebhookFigures,
}

/// What became of events for `WEBHOOK_URLS`; one that goes to two URLs counts as two.
#[derive(Clone, Debug, Default)]
pub struct WebhookFigures {
    /// The receiver has it.
    pub delivered: Counter,
    /// It was given up after it had been tried.
    pub failed: Counter,
    /// It was tried once more.
    pub retried: Counter,
    /// It was not waited for: too many others did, or the receiver wanted no more, or the server stopped.
    pub dropped: Counter,
    /// So many wait, or are on their way.
    pub queued: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("signaling");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The server that these figures are of", version);

        let by_kind = Family::<Labels<2>, Counter>::default();
        // Looked up once: a message must not cost a search by labels.
        let messages = Kind::ALL.map(|kind| {
            Outcome::ALL.map(|outcome| {
                let labels = [("type", kind.word()), ("outcome", outcome.word())];
                by_kind.get_or_create_owned(&labels)
            })
        });
        registry.register("messages", "Messages from members, by type and outcome", by_kind);
        let mut counter = |name: &str, unit: Option<Unit>, help: &str| {
            let counter = Counter::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, counter.clone()),
                None => registry.register(name, help, counter.clone()),
            }
            counter
        };
        let received = counter("received", Some(Unit::Bytes), "Text of members' messages");
        let sent = counter("sent", Some(Unit::Bytes), "Text of frames to clients");
        let sent_frames = counter("sent_frames", None, "Text frames to clients");
        let joins = counter("joins", None, "Members that sat down");
        let help = "Clients for whom more waited than the server keeps";
        let overflows = counter("outbox_overflows", None, help);
        let help = "TURN credentials that were handed out";
        let turn_credentials = counter("turn_credentials", None, help);
        let webhooks = WebhookFigures {
            delivered: counter("webhooks_delivered", None, "Webhooks that a receiver has taken"),
            failed: counter("webhooks_failed", None, "Webhooks given up after they were tried"),
            retried: counter("webhooks_retried", None, "Webhooks tried once more"),
            dropped: counter("webhooks_dropped", None, "Webhooks for which nobody could wait"),
            queued: Gauge::default(),
        };
        let help = "Webhooks that wait or are on their way";
        registry.register("webhooks_queued", help, webhooks.queued.clone());

        let by_result = Family::<Labels<1>, Counter>::default();
        let resumes = Resume::ALL.map(|it| by_result.get_or_create_owned(&[("result", it.word())]));
        registry.register("resumes", "Clients that came back, might not, or did not", by_result);
        let by_outcome = Family::<Labels<1>, Counter>::default();
        let logins = Login::ALL.map(|it| by_outcome.get_or_create_owned(&[("outcome", it.word())]));
        registry.register("logins", "Logins, by outcome", by_outcome);
        let by_limit = Family::<Labels<1>, Counter>::default();
        let limited = Limit::ALL.map(|it| by_limit.get_or_create_owned(&[("kind", it.word())]));
        let help = "What was refused because there was too much of it, by kind";
        registry.register("rate_limited", help, by_limit);

        let mut seconds = |name: &str, help: &str, buckets: (f64, f64, u16)| {
            let (first, factor, count) = buckets;
            let histogram = Histogram::new(exponential_buckets(first, factor, count));
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        // From 10 µs, which no network notices, to 10 s, which ends calls.
        let help = "From a message's arrival until it was written to its peer's socket; of frames that are written together the longest";
        let routing = seconds("routing", help, (0.000_01, 4.0, 11));
        // From 50 ms, on one network, to 51 s, when everybody has hung up.
        let help = "From a peer's coming until its connection stood, as clients report it";
        let call_setup = seconds("call_setup", help, (0.05, 2.0, 11));
        // From 1 ms, on one network, to 16 s, when a network stands still.
        let help = "From a WebSocket Ping to a member until its Pong";
        let ping_rtt = seconds("ping_rtt", help, (0.001, 2.0, 15));

        let calls = Family::default();
        let help = "Calls as clients report them, by outcome and way";
        registry.register("calls", help, calls.clone());
        let leaves = Family::default();
        let help = "Members that lost their seat for good, by reason";
        registry.register("leaves", help, leaves.clone());
        let ends = Family::default();
        registry.register("session_ends", "WebSockets that ended, by reason", ends.clone());
        let errors = Family::default();
        registry.register("errors", "Errors that clients were told, by code", errors.clone());
        let closes = Family::default();
        registry.register("closes", "WebSockets that the server closed, by code", closes.clone());
        Self {
            registry,
            messages,
            received,
            sent,
            sent_frames,
            routing,
            overflows,
            ping_rtt,
            joins,
            leaves,
            resumes,
            calls,
            call_setup,
            ends,
            errors,
            closes,
            limited,
            logins,
            turn_credentials,
            certificate_expires_at: AtomicI64::new(0),
            webhooks,
        }
    }
}

impl Metrics {
    /// A member said something of so many bytes.
    pub fn said(&self, kind: Kind, outcome: Outcome, bytes: usize) {
        let of_kind = self.messages.get(kind as usize);
        if let Some(counter) = of_kind.and_then(|outcomes| outcomes.get(outcome as usize)) {
            counter.inc();
        }
        self.received.inc_by(bytes as u64);
        if outcome == Outcome::RateLimited {
            self.limited(Limit::Messages);
        }
    }

    /// A text frame of so many bytes was written, or begun to be written, to a client.
    pub fn sent(&self, bytes: usize) {
        self.sent_frames.inc();
        self.sent.inc_by(bytes as u64);
    }

    /// A message of a member was written to its peers so long after it had arrived.
    pub fn routed(&self, within: Duration) {
        self.routing.observe(within.as_secs_f64());
    }

    /// More waited for a client than is kept.
    pub fn overflowed(&self) {
        self.overflows.inc();
    }

    /// A member has answered a Ping so long after it was sent.
    pub fn ponged(&self, within: Duration) {
        self.ping_rtt.observe(within.as_secs_f64());
    }

    /// Somebody sat down.
    pub fn joined(&self) {
        self.joins.inc();
    }

    /// A member lost its seat for good, for one of our own words.
    pub fn left(&self, reason: &'static str) {
        self.leaves.get_or_create(&[("reason", reason)]).inc();
    }

    /// A client came back, might not, or did not.
    pub fn resumed(&self, result: Resume) {
        count(&self.resumes, result as usize);
    }

    /// What a client says became of one of its calls.
    pub fn reported(&self, report: &CallReport<'_>) {
        let &CallReport { outcome, ms, path, .. } = report;
        let path = path.map_or("unknown", MediaPath::word);
        self.calls.get_or_create(&[("outcome", outcome.word()), ("path", path)]).inc();
        if outcome == CallOutcome::Connected {
            self.call_setup.observe(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// A WebSocket ended, for one of our own words.
    pub fn ended(&self, reason: &'static str, was_member: bool) {
        self.ends.get_or_create(&end(reason, was_member)).inc();
    }

    /// A client was told an error, by one of our own words.
    pub fn erred(&self, code: &'static str) {
        self.errors.get_or_create(&[("code", code)]).inc();
    }

    /// The server closed a WebSocket with this code.
    pub fn closed(&self, code: u16) {
        self.closes.get_or_create(&[("code", code.to_string())]).inc();
    }

    /// A session may end for this reason, and its client be told so with this code: from now on they are there as
    /// 0, for what appears with its first event is no rise to Prometheus.
    pub fn expects_end(&self, reason: &'static str, code: Option<u16>) {
        for was_member in [true, false] {
            let _ = self.ends.get_or_create(&end(reason, was_member));
        }
        if let Some(code) = code {
            let _ = self.closes.get_or_create(&[("code", code.to_string())]);
            let _ = self.errors.get_or_create(&[("code", reason)]);
        }
    }

    /// The same for a member that leaves.
    pub fn expects_leave(&self, reason: &'static str) {
        let _ = self.leaves.get_or_create(&[("reason", reason)]);
    }

    /// Something was refused because there was too much of it.
    pub fn limited(&self, limit: Limit) {
        count(&self.limited, limit as usize);
    }

    /// Somebody tried to log in.
    pub fn logged_in(&self, outcome: Login) {
        count(&self.logins, outcome as usize);
    }

    /// Somebody got TURN credentials.
    pub fn issued_turn_credentials(&self) {
        self.turn_credentials.inc();
    }

    /// The TLS certificate in force is good until then, in whole seconds since the Unix epoch.
    pub fn certificate_expires(&self, at: i64) {
        self.certificate_expires_at.store(at, Ordering::Relaxed);
    }

    /// All of it, and what there is `now`, as OpenMetrics text.
    pub fn text(&self, now: &[Registry]) -> String {
        let mut certificate = Registry::with_prefix("signaling");
        let expires_at = self.certificate_expires_at.load(Ordering::Relaxed);
        if expires_at != 0 {
            let help = "When the TLS certificate in force expires, since the Unix epoch";
            let name = "tls_certificate_expiry_timestamp";
            certificate.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(expires_at));
        }
        let mut text = String::new();
        #[expect(clippy::expect_used, reason = "see the message")]
        [&self.registry, &certificate]
            .into_iter()
            .chain(now)
            .try_for_each(|registry| text::encode_registry(&mut text, registry))
            .and_then(|()| text::encode_eof(&mut text))
            .expect("a String takes everything");
        text
    }
}

fn count(counters: &[Counter], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.inc();
    }
}

fn end(reason: &'static str, was_member: bool) -> Labels<2> {
    [("reason", reason), ("was_member", if was_member { "true" } else { "false" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_outcome_has_a_counter_of_its_own() {
        let metrics = Metrics::default();

        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            for (offset, outcome) in Outcome::ALL.into_iter().enumerate() {
                assert_eq!((kind as usize, outcome as usize), (number, offset));
                (0..=4 * number + offset).for_each(|_| metrics.said(kind, outcome, 1));
            }
        }

        let mut now = Registry::with_prefix("signaling");
        now.register("members", "Members", ConstGauge::new(2));
        metrics.certificate_expires(4_102_444_800);
        let text = metrics.text(&[now]);
        assert!(
            text.contains("signaling_messages_total{type=\"offer\",outcome=\"done\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("signaling_messages_total{type=\"other\",outcome=\"repeated\"} 32\n")
        );
        assert!(text.contains("signaling_received_bytes_total 528\n"), "{text}");
        let refused = "signaling_rate_limited_total{kind=\"messages\"} 136\n";
        assert!(text.contains(refused), "{text}");
        assert!(text.contains("signaling_members 2\n") && text.ends_with("# EOF\n"));
        let expiry = "signaling_tls_certificate_expiry_timestamp_seconds 4102444800\n";
        assert!(text.contains(expiry), "{text}");
    }
}
