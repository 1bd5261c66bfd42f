//! A membership without a connection: until its client is back, and over a restart.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{AuthError, Authorized, CloseReason, SUSPEND_THRESHOLD};
use crate::{
    auth::{grants::TokenSessionGuard, ticket::ResumeToken},
    metrics::{Metrics, Resume},
    outbox::{self, ClientQueue, ClientQueueReader, DisconnectReason},
    replay::ReplayBuffer,
    rooms::{Membership, MigratedMember, Peer, RoomRegistry},
    wire::Features,
};

/// Why a member left that did not come back in time.
pub(super) const NOT_RESUMED_IN_TIME: &str = "away_too_long";

/// A member without a connection, for as long as it may come back. Dropping it is leaving.
pub struct DetachedMember {
    seat: Membership,
    mailbox: ClientQueueReader,
    ticket: Box<ResumeToken>,
    until: Instant,
    window: Duration,
    _grant: Option<TokenSessionGuard>,
}

/// A member without a connection, as it outlives the process.
#[derive(Deserialize, Serialize)]
pub struct SavedMember {
    ticket: Box<ResumeToken>,
    replay: Box<ReplayBuffer>,
    features: Features,
    arrival: u64,
    /// The number of what was told last of its room to webhooks.
    #[serde(default)]
    sequence: u64,
    /// When it has been away too long, in seconds since the Unix epoch.
    until: u64,
}

/// What comes with a seat from another server: what this one needs to go on with it.
#[derive(Deserialize, Serialize)]
struct MigrationContext {
    ticket: Box<ResumeToken>,
    /// How long it may still be away, in seconds: the clocks of two servers are not the same.
    left: u64,
}

/// What a server that [fetches](Seat::fetch) a seat wants back with it.
pub(super) fn encode_context(ticket: &ResumeToken, left: Duration) -> ByteString {
    let luggage = MigrationContext { ticket: Box::new(ticket.clone()), left: left.as_secs() + 1 };
    #[expect(clippy::expect_used, reason = "strings and numbers")]
    serde_json::to_string(&luggage).expect("a ticket can be written").into()
}

impl SavedMember {
    /// How many bytes of frames are kept for it.
    pub fn bytes(&self) -> usize {
        self.replay.bytes()
    }
}

/// Members that were away, or became so, when the server stopped. Clones are the same.
#[derive(Clone, Default)]
pub struct ShutdownSnapshot(Arc<Mutex<Vec<DetachedMember>>>);

impl ShutdownSnapshot {
    /// Takes all of them.
    pub fn take(&self) -> Vec<DetachedMember> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds one.
    pub fn push(&self, parked: DetachedMember) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(parked);
    }
}

impl DetachedMember {
    /// The connection is gone; from now on the client may be away for `window`.
    pub(super) fn new(
        seat: Membership,
        mailbox: ClientQueueReader,
        ticket: Box<ResumeToken>,
        window: Duration,
        grant: Option<TokenSessionGuard>,
    ) -> Self {
        seat.detach();
        Self { seat, mailbox, ticket, until: Instant::now() + window, window, _grant: grant }
    }

    /// Sits down again where `record` says, away, and nobody hears of it; `now` in whole seconds since the
    /// Unix epoch, `window` as [`Rules::resume_window`](super::Rules::resume_window). `admit` says whether what the membership stands
    /// on still counts: where not, or where the client has been away too long, it [`lingers`](Self::lingers)
    /// no longer than it takes to tell the others.
    ///
    /// Nothing where the seat is taken.
    pub fn restore(
        rooms: &RoomRegistry,
        record: SavedMember,
        now: u64,
        window: Duration,
        admit: impl FnOnce(&ResumeToken, &ClientQueue) -> Result<Authorized, AuthError>,
    ) -> Option<Self> {
        let SavedMember { ticket, replay, features, arrival, sequence, until } = record;
        let (outbox, mailbox) = outbox::channel();
        outbox.enable_replay(replay);
        outbox.set_features(features);
        outbox.detach();
        let admission = admit(&ticket, &outbox);
        let peer = Peer {
            client_id: ticket.client_id.as_str().into(),
            username: ticket.username.as_str().into(),
        };
        let seat =
            Membership::restore(rooms, &ticket.room.as_str().into(), peer, outbox, arrival).ok()?;
        rooms.advance_webhook_seq(&ticket.room, sequence);
        // No more than the window, wherever the clock was when it was written.
        let left = Duration::from_secs(until.saturating_sub(now)).min(window);
        let left = if admission.is_ok() { left } else { Duration::ZERO };
        let grant = admission.ok().and_then(|admission| admission.session);
        let until = Instant::now() + left;
        Some(Self { seat, mailbox, ticket, until, window, _grant: grant })
    }

    /// Takes over a seat that has come from another server, with its client's right to come back; `window` as
    /// [`Rules::resume_window`](super::Rules::resume_window). `admit` says whether what the membership stands on counts here.
    ///
    /// Nothing where it does not, or where the luggage is none; then it has left.
    pub fn from_migration(
        arrival: MigratedMember,
        window: Duration,
        admit: impl FnOnce(&ResumeToken, &ClientQueue) -> Result<Authorized, AuthError>,
    ) -> Option<Self> {
        let MigratedMember {
            membership: seat,
            queue: outbox,
            reader: mailbox,
            context: luggage,
            is_expected,
        } = arrival;
        let MigrationContext { ticket, left } = serde_json::from_str(&luggage).ok()?;
        let admission = admit(&ticket, &outbox).ok()?;
        if !is_expected {
            seat.detach();
        }
        let until = Instant::now() + Duration::from_secs(left).min(window);
        Some(Self { seat, mailbox, ticket, until, window, _grant: admission.session })
    }

    /// Sends it to another server, where its client may come back to it.
    pub fn migrate_to(self, node: Arc<str>) {
        let luggage = encode_context(&self.ticket, self.remaining());
        self.seat.migrate_to(node, luggage);
    }

    /// How many bytes of frames are kept for it.
    pub fn bytes(&self) -> usize {
        self.mailbox.replay_bytes()
    }

    /// All sit that were there: each hears which of the others are away.
    pub fn announce_detached(&self) {
        self.seat.detach();
    }

    /// The room that it sits in.
    pub fn room(&self) -> &str {
        &self.ticket.room
    }

    /// How long it may still be away.
    pub(super) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether it still has its right to come back.
    pub fn can_resume(&self) -> bool {
        self.mailbox.disconnect_signal().reason().is_none()
    }

    /// What another process needs to go on with it; `now` in whole seconds since the Unix epoch. From
    /// now on nothing more is kept for it here. Nothing where it has lost its right to come back.
    pub fn to_saved(&self, now: u64) -> Option<SavedMember> {
        if !self.can_resume() {
            return None;
        }
        let (replay, features) = self.mailbox.take_replay()?;
        // Both are rounded down, and nobody is to have less time than it was told.
        let until = now + self.remaining().as_secs() + 2;
        let (ticket, arrival) = (self.ticket.clone(), self.seat.join_order());
        let sequence = self.seat.webhook_seq();
        Some(SavedMember { ticket, replay, features, arrival, sequence, until })
    }

    /// Waits until the client is back on another connection, has lost its right to come, or has been away
    /// too long. When the server stops it is kept among the survivors.
    pub async fn wait_for_resume(
        mut self,
        mut closing: watch::Receiver<Option<Duration>>,
        survivors: &ShutdownSnapshot,
        metrics: &Metrics,
    ) {
        let notice = self.mailbox.disconnect_signal();
        let why = tokio::select! {
            biased;
            why = notice.disconnected() => Some(why),
            _ = closing.wait_for(Option::is_some) => return survivors.push(self),
            () = sleep_unless_suspended(self.until, self.window) => None,
        };
        if why == Some(DisconnectReason::Resumed) {
            return;
        }
        let reason = why.map_or(NOT_RESUMED_IN_TIME, |why| CloseReason::from(why).as_str());
        self.seat.set_leave_reason(reason);
        metrics.resumed(Resume::GivenUp);
        if why == Some(DisconnectReason::TooSlow) {
            metrics.overflowed();
        }
        metrics.left(reason);
        let Peer { username, client_id } = self.seat.peer();
        let (room, user, client) = (&*self.ticket.room, &**username, &**client_id);
        tracing::error_span!("socket", room, user, client)
            .in_scope(|| tracing::info!(reason, "left, being away"));
    }
}

/// Waits until then, or, where we slept through that, a while longer: nobody could reach us meanwhile. As
/// long as we slept at most, and at most for a whole `window`.
async fn sleep_unless_suspended(until: Instant, window: Duration) {
    sleep_until(until).await;
    let late = until.elapsed();
    if late > SUSPEND_THRESHOLD {
        sleep(late.min(window)).await;
    }
}
