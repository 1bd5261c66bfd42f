//! What is counted, for `GET /metrics`. Nothing here names a room, a user or an address: every label has a
//! fixed set of values, of which those of relays come from the settings.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::wire::{CallOutcome, CallReport, MediaPath};

/// Everything that one server counts.
pub struct Metrics {
    registry: Registry,
    messages: [[Counter; Outcome::ALL.len()]; Kind::ALL.len()],
    received: Counter,
    sent: Counter,
    sent_frames: Counter,
    routing: Histogram,
    joins: Counter,
    resumes: [Counter; 3],
    calls: Family<Call, Counter>,
    call_setup: Histogram,
    ends: Family<End, Counter>,
    connections: Gauge,
    members: Gauge,
    rooms: Gauge,
}

/// What a client said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `offer`.
    Offer,
    /// `answer`.
    Answer,
    /// `ice_candidate`.
    IceCandidate,
    /// `message`.
    Message,
    /// `ping`.
    Ping,
    /// `auth_token`.
    AuthToken,
    /// `call_report`.
    Report,
    /// Nothing that the protocol knows, or not looked at.
    Other,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was passed on, or answered.
    Done,
    /// It was answered with an `error`.
    Refused,
    /// It came too fast.
    RateLimited,
    /// Its client had said it already, before it resumed.
    Repeated,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Offer,
        Self::Answer,
        Self::IceCandidate,
        Self::Message,
        Self::Ping,
        Self::AuthToken,
        Self::Report,
        Self::Other,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::IceCandidate => "ice_candidate",
            Self::Message => "message",
            Self::Ping => "ping",
            Self::AuthToken => "auth_token",
            Self::Report => "call_report",
            Self::Other => "other",
        }
    }
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Done, Self::Refused, Self::RateLimited, Self::Repeated];

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Repeated => "repeated",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Said {
    r#type: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    reason: &'static str,
    was_member: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    outcome: &'static str,
    path: &'static str,
}

/// What the last trial of a TURN server has shown.
#[derive(Clone, Copy, Debug)]
pub struct Relay<'a> {
    /// As in `TURNSERVER_URLS`.
    pub url: &'a str,
    /// Whether it relays.
    pub is_up: bool,
    /// How long it took to answer.
    pub latency: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct At {
    url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resume {
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("signaling");
        let by_kind = Family::<Said, Counter>::default();
        // Looked up once: a message must not cost a search by labels.
        let counter = |kind: Kind, outcome: Outcome| {
            by_kind.get_or_create_owned(&Said { r#type: kind.name(), outcome: outcome.name() })
        };
        let messages = Kind::ALL.map(|kind| Outcome::ALL.map(|outcome| counter(kind, outcome)));
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
        let by_result = Family::<Resume, Counter>::default();
        let resumes = ["resumed", "refused", "given_up"]
            .map(|result| by_result.get_or_create_owned(&Resume { result }));
        registry.register("resumes", "Clients that came back, might not, or did not", by_result);
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let connections = gauge("connections", "Open WebSockets, also of those who are not in yet");
        let members = gauge("members", "Members of all rooms");
        let rooms = gauge("rooms", "Rooms with somebody in them");
        // From 10 µs, which no network notices, to 10 s, which ends calls.
        let routing = Histogram::new(exponential_buckets(0.000_01, 4.0, 11));
        let help = "From a message's arrival until it was written to its peer's socket; of frames that are written together the longest";
        registry.register_with_unit("routing", help, Unit::Seconds, routing.clone());
        let calls = Family::default();
        registry.register(
            "calls",
            "Calls as clients report them, by outcome and way",
            calls.clone(),
        );
        // From 50 ms, on one network, to 51 s, when everybody has hung up.
        let call_setup = Histogram::new(exponential_buckets(0.05, 2.0, 11));
        let help = "From a peer's coming until its connection stood, as clients report it";
        registry.register_with_unit("call_setup", help, Unit::Seconds, call_setup.clone());
        let ends = Family::default();
        registry.register("session_ends", "WebSockets that ended, by reason", ends.clone());
        Self {
            registry,
            messages,
            received,
            sent,
            sent_frames,
            routing,
            joins,
            resumes,
            calls,
            call_setup,
            ends,
            connections,
            members,
            rooms,
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

    /// Somebody sat down.
    pub fn joined(&self) {
        self.joins.inc();
    }

    /// A client came back to its membership.
    pub fn resumed(&self) {
        self.resumes[0].inc();
    }

    /// A client wanted to come back and might not.
    pub fn not_resumed(&self) {
        self.resumes[1].inc();
    }

    /// A member was away and did not come back.
    pub fn given_up(&self) {
        self.resumes[2].inc();
    }

    /// What a client says became of one of its calls.
    pub fn reported(&self, report: CallReport) {
        let CallReport { outcome, ms, path } = report;
        let outcome = match outcome {
            CallOutcome::Connected => "connected",
            CallOutcome::Failed => "failed",
        };
        let path = match path {
            Some(MediaPath::Host) => "host",
            Some(MediaPath::Srflx) => "srflx",
            Some(MediaPath::Relay) => "relay",
            None => "unknown",
        };
        self.calls.get_or_create(&Call { outcome, path }).inc();
        if outcome == "connected" {
            self.call_setup.observe(Duration::from_millis(ms).as_secs_f64());
        }
    }

    /// A WebSocket ended, for one of our own words.
    pub fn ended(&self, reason: &'static str, was_member: bool) {
        let was_member = if was_member { "true" } else { "false" };
        self.ends.get_or_create(&End { reason, was_member }).inc();
    }

    /// All of it, as OpenMetrics text; with what is not counted but there now, what others know, by name and
    /// what it is, and what the last trial of each relay has shown.
    pub fn text(
        &self,
        connections: usize,
        members: usize,
        rooms: usize,
        elsewhere: &[(&str, &str, usize)],
        relays: &[Relay<'_>],
    ) -> String {
        let set = |gauge: &Gauge, figure| {
            gauge.set(i64::try_from(figure).unwrap_or(i64::MAX));
        };
        let now =
            [(&self.connections, connections), (&self.members, members), (&self.rooms, rooms)];
        now.into_iter().for_each(|(gauge, figure)| set(gauge, figure));
        let mut others = Registry::with_prefix("signaling");
        for (name, help, figure) in elsewhere {
            let gauge = Gauge::default();
            set(&gauge, *figure);
            others.register(*name, *help, gauge);
        }
        if !relays.is_empty() {
            register_relays(&mut others, relays);
        }
        let mut text = String::new();
        #[expect(clippy::expect_used, reason = "see the message")]
        text::encode_registry(&mut text, &self.registry)
            .and_then(|()| text::encode_registry(&mut text, &others))
            .and_then(|()| text::encode_eof(&mut text))
            .expect("a String takes everything");
        text
    }
}

fn register_relays(registry: &mut Registry, relays: &[Relay<'_>]) {
    let up = Family::<At, Gauge>::default();
    let latency = Family::<At, Gauge<f64, AtomicU64>>::default();
    for relay in relays {
        let at = At { url: relay.url.to_owned() };
        up.get_or_create(&at).set(relay.is_up.into());
        if let Some(within) = relay.latency {
            latency.get_or_create(&at).set(within.as_secs_f64());
        }
    }
    let help = "Whether a TURN server gave an address to relay at when it was last tried";
    registry.register("turn_up", help, up);
    let help = "How long it took to answer then";
    registry.register_with_unit("turn_latency", help, Unit::Seconds, latency);
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

        let relay =
            Relay { url: "turn:a", is_up: false, latency: Some(Duration::from_millis(250)) };
        let text = metrics.text(3, 2, 1, &[("cluster_nodes", "Servers", 4)], &[relay]);
        assert!(
            text.contains("signaling_messages_total{type=\"offer\",outcome=\"done\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("signaling_messages_total{type=\"other\",outcome=\"repeated\"} 32\n")
        );
        assert!(text.contains("signaling_received_bytes_total 528\n"), "{text}");
        assert!(text.contains("signaling_members 2\n") && text.ends_with("# EOF\n"));
        assert!(text.contains("signaling_cluster_nodes 4\n"), "{text}");
        assert!(text.contains("signaling_turn_up{url=\"turn:a\"} 0\n"), "{text}");
        assert!(text.contains("signaling_turn_latency_seconds{url=\"turn:a\"} 0.25\n"), "{text}");
    }
}
