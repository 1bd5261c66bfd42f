//! The counters and histograms of one server, and the text that Prometheus reads.
//!
//! No label names a room, a user or an address: every label has a fixed set of values. Gauges of the present state are
//! added by `http::metrics`.

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
use strum::{EnumCount, VariantArray};

use super::labels::{LimitKind, LoginOutcome, MessageOutcome, MessageType, ResumeResult};
use crate::protocol::{CallOutcome, CallReport, MediaPath};

/// Label names, each with its value.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The counters and histograms of one server.
pub struct Metrics {
    registry: Registry,
    /// One counter for each outcome of the first type, then of the second, and so on.
    messages: Vec<Counter>,
    received_bytes: Counter,
    sent_bytes: Counter,
    sent_frames: Counter,
    routing: Histogram,
    queue_overflows: Counter,
    ping_rtt: Histogram,
    joins: Counter,
    leaves: Family<Labels<1>, Counter>,
    resumes: Vec<Counter>,
    calls: Family<Labels<2>, Counter>,
    call_setup: Histogram,
    session_ends: Family<Labels<2>, Counter>,
    errors: Family<Labels<1>, Counter>,
    closes: Family<[(&'static str, String); 1], Counter>,
    limits: Vec<Counter>,
    logins: Vec<Counter>,
    turn_credentials: Counter,
    /// In whole seconds since the Unix epoch; 0 without a certificate.
    certificate_expires_at: AtomicI64,
    /// What became of webhooks; `webhooks` counts it.
    pub webhooks: WebhookMetrics,
}

/// What became of events for `WEBHOOK_URLS`. An event for two URLs counts as two.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    /// Events that a receiver has accepted.
    pub delivered: Counter,
    /// Events that were given up after at least one try.
    pub failed: Counter,
    /// Tries after the first one.
    pub retried: Counter,
    /// Events that were not kept: the queue was full, the receiver answered 410, or the server stopped.
    pub dropped: Counter,
    /// Events that wait or are being delivered.
    pub queued: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("signaling");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this server", version);

        let by_type = Family::<Labels<2>, Counter>::default();
        // Looked up once, so that a message costs no lookup by labels.
        let mut messages = Vec::with_capacity(MessageType::COUNT * MessageOutcome::COUNT);
        for kind in MessageType::VARIANTS {
            messages.extend(MessageOutcome::VARIANTS.iter().map(|outcome| {
                let labels = [("type", kind.into()), ("outcome", outcome.into())];
                by_type.get_or_create_owned(&labels)
            }));
        }
        registry.register("messages", "Messages from members, by type and outcome", by_type);
        let mut counter = |name: &str, unit: Option<Unit>, help: &str| {
            let counter = Counter::default();
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, counter.clone()),
                None => registry.register(name, help, counter.clone()),
            }
            counter
        };
        let received_bytes = counter("received", Some(Unit::Bytes), "Text of members' messages");
        let sent_bytes = counter("sent", Some(Unit::Bytes), "Text of frames to clients");
        let sent_frames = counter("sent_frames", None, "Text frames to clients");
        let joins = counter("joins", None, "Members that joined a room");
        let help = "Clients whose send queue was full";
        let queue_overflows = counter("send_queue_overflows", None, help);
        let turn_credentials = counter("turn_credentials", None, "TURN credentials issued");
        let webhooks = WebhookMetrics {
            delivered: counter("webhooks_delivered", None, "Webhooks that a receiver accepted"),
            failed: counter("webhooks_failed", None, "Webhooks given up after at least one try"),
            retried: counter("webhooks_retried", None, "Tries of webhooks after the first one"),
            dropped: counter("webhooks_dropped", None, "Webhooks that were not kept"),
            queued: Gauge::default(),
        };
        let help = "Webhooks that wait or are being delivered";
        registry.register("webhooks_queued", help, webhooks.queued.clone());

        let help = "Attempts to resume, and detached members that did not return";
        let resumes = register_by_label::<ResumeResult>(&mut registry, "resumes", help, "result");
        let help = "Logins, by outcome";
        let logins = register_by_label::<LoginOutcome>(&mut registry, "logins", help, "outcome");
        let help = "What was refused because a limit was reached, by limit";
        let limits = register_by_label::<LimitKind>(&mut registry, "rate_limited", help, "kind");

        let mut seconds = |name: &str, help: &str, buckets: (f64, f64, u16)| {
            let (first, factor, count) = buckets;
            let histogram = Histogram::new(exponential_buckets(first, factor, count));
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
            histogram
        };
        // From 10 µs, which no network shows, to 10 s, which ends calls.
        let help = "From a message's arrival until it was written to its peer's socket; of frames that are written together the longest";
        let routing = seconds("routing", help, (0.000_01, 4.0, 11));
        // From 50 ms, on one network, to 51 s, when every user has hung up.
        let help = "From a peer's join until its connection stood, as clients report it";
        let call_setup = seconds("call_setup", help, (0.05, 2.0, 11));
        // From 1 ms, on one network, to 16 s, when a network stalls.
        let help = "From a WebSocket Ping to a member until its Pong";
        let ping_rtt = seconds("ping_rtt", help, (0.001, 2.0, 15));

        let calls = Family::default();
        let help = "Calls as clients report them, by outcome and path";
        registry.register("calls", help, calls.clone());
        let leaves = Family::default();
        registry.register("leaves", "Members that left for good, by reason", leaves.clone());
        let session_ends = Family::default();
        registry.register("session_ends", "WebSockets that ended, by reason", session_ends.clone());
        let errors = Family::default();
        registry.register("errors", "Errors sent to clients, by code", errors.clone());
        let closes = Family::default();
        registry.register("closes", "WebSockets that the server closed, by code", closes.clone());
        Self {
            registry,
            messages,
            received_bytes,
            sent_bytes,
            sent_frames,
            routing,
            queue_overflows,
            ping_rtt,
            joins,
            leaves,
            resumes,
            calls,
            call_setup,
            session_ends,
            errors,
            closes,
            limits,
            logins,
            turn_credentials,
            certificate_expires_at: AtomicI64::new(0),
            webhooks,
        }
    }
}

impl Metrics {
    /// Records a frame of `bytes` from a member.
    pub fn record_message(&self, kind: MessageType, outcome: MessageOutcome, bytes: usize) {
        increment(&self.messages, kind as usize * MessageOutcome::COUNT + outcome as usize);
        self.received_bytes.inc_by(bytes as u64);
        if outcome == MessageOutcome::RateLimited {
            self.record_limit(LimitKind::Messages);
        }
    }

    /// Records a text frame of `bytes` that was written, or begun to be written, to a client.
    pub fn record_sent_frame(&self, bytes: usize) {
        self.sent_frames.inc();
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// Records the time from a message's arrival until it was written to its peers.
    pub fn record_routing(&self, latency: Duration) {
        self.routing.observe(latency.as_secs_f64());
    }

    /// Records that a client's send queue was full.
    pub fn record_queue_overflow(&self) {
        self.queue_overflows.inc();
    }

    /// Records the time from a Ping to a member until its Pong.
    pub fn record_ping_rtt(&self, rtt: Duration) {
        self.ping_rtt.observe(rtt.as_secs_f64());
    }

    /// Records that a member joined.
    pub fn record_join(&self) {
        self.joins.inc();
    }

    /// Records that a member left for good. `reason` is one of the server's own.
    pub fn record_leave(&self, reason: &'static str) {
        self.leaves.get_or_create(&[("reason", reason)]).inc();
    }

    /// Records an attempt to resume, or that a detached member did not return.
    pub fn record_resume(&self, result: ResumeResult) {
        increment(&self.resumes, result as usize);
    }

    /// Records a client's report on one of its calls.
    pub fn record_call_report(&self, report: &CallReport<'_>) {
        let &CallReport { outcome, ms, path, .. } = report;
        let path = path.map_or("unknown", MediaPath::as_str);
        self.calls.get_or_create(&[("outcome", outcome.as_str()), ("path", path)]).inc();
        if outcome == CallOutcome::Connected {
            self.call_setup.observe(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// Records that a WebSocket ended. `reason` is one of the server's own.
    pub fn record_session_end(&self, reason: &'static str, was_member: bool) {
        self.session_ends.get_or_create(&session_end(reason, was_member)).inc();
    }

    /// Records an error sent to a client. `code` is one of the server's own.
    pub fn record_error(&self, code: &'static str) {
        self.errors.get_or_create(&[("code", code)]).inc();
    }

    /// Records that the server closed a WebSocket with this close code.
    pub fn record_close(&self, code: u16) {
        self.closes.get_or_create(&[("code", code.to_string())]).inc();
    }

    /// Exports the counters of this reason, and of the close code that its client gets, as 0 from now on: Prometheus
    /// sees no rise in a counter that appears with its first event.
    pub fn preregister_session_end(&self, reason: &'static str, code: Option<u16>) {
        for was_member in [true, false] {
            let _ = self.session_ends.get_or_create(&session_end(reason, was_member));
        }
        if let Some(code) = code {
            let _ = self.closes.get_or_create(&[("code", code.to_string())]);
            let _ = self.errors.get_or_create(&[("code", reason)]);
        }
    }

    /// Exports the counter of members that leave for this reason as 0 from now on.
    pub fn preregister_leave(&self, reason: &'static str) {
        let _ = self.leaves.get_or_create(&[("reason", reason)]);
    }

    /// Records that a client has reached a limit.
    pub fn record_limit(&self, limit: LimitKind) {
        increment(&self.limits, limit as usize);
    }

    /// Records a login.
    pub fn record_login(&self, outcome: LoginOutcome) {
        increment(&self.logins, outcome as usize);
    }

    /// Records that TURN credentials were issued.
    pub fn record_turn_credentials(&self) {
        self.turn_credentials.inc();
    }

    /// Sets when the TLS certificate in force expires, in whole seconds since the Unix epoch.
    pub fn set_certificate_expiry(&self, at: i64) {
        self.certificate_expires_at.store(at, Ordering::Relaxed);
    }

    /// Encodes all metrics, and the gauges in `current`, as OpenMetrics text.
    pub fn encode(&self, current: &[Registry]) -> String {
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
            .chain(current)
            .try_for_each(|registry| text::encode_registry(&mut text, registry))
            .and_then(|()| text::encode_eof(&mut text))
            .expect("writing to a String does not fail");
        text
    }
}

/// Registers a family with one label and returns its counters in the order of the label's values, so that an event
/// costs no lookup by label.
fn register_by_label<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
) -> Vec<Counter>
where
    L: VariantArray + Copy + Into<&'static str>,
{
    let family = Family::<Labels<1>, Counter>::default();
    let values = L::VARIANTS.iter();
    let counters = values.map(|&value| family.get_or_create_owned(&[(label, value.into())]));
    let counters = counters.collect();
    registry.register(name, help, family);
    counters
}

fn increment(counters: &[Counter], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.inc();
    }
}

fn session_end(reason: &'static str, was_member: bool) -> Labels<2> {
    [("reason", reason), ("was_member", if was_member { "true" } else { "false" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_and_outcome_has_a_counter_of_its_own() {
        let metrics = Metrics::default();

        for (number, &kind) in MessageType::VARIANTS.iter().enumerate() {
            for (offset, &outcome) in MessageOutcome::VARIANTS.iter().enumerate() {
                assert_eq!((kind as usize, outcome as usize), (number, offset));
                (0..=4 * number + offset).for_each(|_| metrics.record_message(kind, outcome, 1));
            }
        }

        let mut current = Registry::with_prefix("signaling");
        current.register("members", "Members", ConstGauge::new(2));
        metrics.set_certificate_expiry(4_102_444_800);
        let text = metrics.encode(&[current]);
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
