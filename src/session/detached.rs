//! A membership without a connection: until its client resumes it, and over a restart.

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

use super::{AuthError, Authorized, liveness::SUSPEND_THRESHOLD};
use crate::{
    auth::{resume_token::ResumeToken, token_sessions::TokenSessionGuard},
    delivery::{self, ClientQueue, ClientQueueReader, DisconnectReason, ReplayBuffer},
    metrics::{Metrics, ResumeResult},
    protocol::{CloseReason, Features},
    rooms::{Membership, MigratedMember, Peer, RoomRegistry},
};

/// The leave reason of a member that did not resume in time.
pub(super) const NOT_RESUMED_IN_TIME: &str = "resume_timeout";

/// A member without a connection, for as long as it may resume. Dropping it is leaving.
pub struct DetachedMember {
    membership: Membership,
    reader: ClientQueueReader,
    resume_token: Box<ResumeToken>,
    deadline: Instant,
    resume_window: Duration,
    _token_session: Option<TokenSessionGuard>,
}

/// A member without a connection, as it outlives the process.
#[derive(Deserialize, Serialize)]
pub struct SavedMember {
    #[serde(rename = "ticket")]
    resume_token: Box<ResumeToken>,
    replay: Box<ReplayBuffer>,
    features: Features,
    #[serde(rename = "arrival")]
    join_order: u64,
    /// The sequence number of the last webhook of its room.
    #[serde(default, rename = "sequence")]
    webhook_seq: u64,
    /// When it leaves, in seconds since the Unix epoch.
    #[serde(rename = "until")]
    deadline: u64,
}

/// What a membership brings from another server: what the new server needs to let its client resume it.
#[derive(Deserialize, Serialize)]
struct MigrationContext {
    #[serde(rename = "ticket")]
    resume_token: Box<ResumeToken>,
    /// How long it may still be without a connection, in seconds: two servers' clocks differ.
    #[serde(rename = "left")]
    remaining: u64,
}

/// What a server that [claims](Membership::claim) a membership gets back with it.
pub(super) fn encode_context(token: &ResumeToken, remaining: Duration) -> ByteString {
    let resume_token = Box::new(token.clone());
    let context = MigrationContext { resume_token, remaining: remaining.as_secs() + 1 };
    #[expect(clippy::expect_used, reason = "strings and numbers")]
    serde_json::to_string(&context).expect("serializing a resume token cannot fail").into()
}

impl SavedMember {
    /// How many bytes of frames are kept for it.
    pub fn bytes(&self) -> usize {
        self.replay.bytes()
    }
}

/// The members that were detached, or became so, when the server stopped. Clones share them.
#[derive(Clone, Default)]
pub struct ShutdownSnapshot(Arc<Mutex<Vec<DetachedMember>>>);

impl ShutdownSnapshot {
    /// Takes all of them.
    pub fn take(&self) -> Vec<DetachedMember> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds one.
    pub fn push(&self, member: DetachedMember) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(member);
    }
}

impl DetachedMember {
    /// The connection has ended. From now on the client may be without one for `resume_window`.
    pub(super) fn new(
        membership: Membership,
        reader: ClientQueueReader,
        resume_token: Box<ResumeToken>,
        resume_window: Duration,
        token_session: Option<TokenSessionGuard>,
    ) -> Self {
        membership.detach();
        Self {
            membership,
            reader,
            resume_token,
            deadline: Instant::now() + resume_window,
            resume_window,
            _token_session: token_session,
        }
    }

    /// Restores the membership of `saved`, detached, without informing its peers; `now` in whole seconds since the Unix
    /// epoch, `resume_window` as [`SessionLimits::resume_window`](super::SessionLimits::resume_window). `authorize`
    /// checks that its user and token are still valid: where they are not, or where the client was without a
    /// connection too long, [`wait_for_resume`](Self::wait_for_resume) ends at once, which informs the peers.
    ///
    /// `None` where another member has the client id.
    pub fn restore(
        rooms: &RoomRegistry,
        saved: SavedMember,
        now: u64,
        resume_window: Duration,
        authorize: impl FnOnce(&ResumeToken, &ClientQueue) -> Result<Authorized, AuthError>,
    ) -> Option<Self> {
        let SavedMember { resume_token, replay, features, join_order, webhook_seq, deadline } =
            saved;
        let (queue, reader) = delivery::channel();
        queue.enable_replay(replay);
        queue.set_features(features);
        queue.detach();
        let authorized = authorize(&resume_token, &queue);
        let peer = Peer {
            client_id: resume_token.client_id.as_str().into(),
            username: resume_token.username.as_str().into(),
            name: resume_token.name.as_deref().map(Arc::from),
        };
        let room = resume_token.room.as_str().into();
        let membership = Membership::restore(rooms, &room, peer, queue, join_order).ok()?;
        rooms.advance_webhook_seq(&resume_token.room, webhook_seq);
        // At most the window, whatever the clock showed when the member was saved.
        let left = Duration::from_secs(deadline.saturating_sub(now)).min(resume_window);
        let left = if authorized.is_ok() { left } else { Duration::ZERO };
        let token_session = authorized.ok().and_then(|authorized| authorized.session);
        let deadline = Instant::now() + left;
        Some(Self {
            membership,
            reader,
            resume_token,
            deadline,
            resume_window,
            _token_session: token_session,
        })
    }

    /// Takes over a membership that has migrated from another server, with its client's right to resume;
    /// `resume_window` as [`SessionLimits::resume_window`](super::SessionLimits::resume_window). `authorize` checks
    /// that its user and token are valid here.
    ///
    /// `None` where they are not, or where the migration context cannot be parsed; then it has left.
    pub fn from_migration(
        migrated: MigratedMember,
        resume_window: Duration,
        authorize: impl FnOnce(&ResumeToken, &ClientQueue) -> Result<Authorized, AuthError>,
    ) -> Option<Self> {
        let MigratedMember { membership, queue, reader, context, is_expected } = migrated;
        let MigrationContext { resume_token, remaining } = serde_json::from_str(&context).ok()?;
        let authorized = authorize(&resume_token, &queue).ok()?;
        if !is_expected {
            membership.detach();
        }
        let deadline = Instant::now() + Duration::from_secs(remaining).min(resume_window);
        Some(Self {
            membership,
            reader,
            resume_token,
            deadline,
            resume_window,
            _token_session: authorized.session,
        })
    }

    /// Sends it to another server, where its client may resume it.
    pub fn migrate_to(self, node: Arc<str>) {
        let context = encode_context(&self.resume_token, self.remaining());
        self.membership.migrate_to(node, context);
    }

    /// How many bytes of frames are kept for it.
    pub fn bytes(&self) -> usize {
        self.reader.replay_bytes()
    }

    /// Informs its peers that it is detached, once all members of a snapshot are restored.
    pub fn announce_detached(&self) {
        self.membership.detach();
    }

    /// Its room.
    pub fn room(&self) -> &str {
        &self.resume_token.room
    }

    /// The account that it counts against; `None` for a guest.
    pub fn account(&self) -> Option<Arc<str>> {
        let username = &self.membership.peer().username;
        self.resume_token.claims.as_ref().map(|_| username.clone())
    }

    /// How long it may still be without a connection.
    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether its client may still resume it.
    pub fn can_resume(&self) -> bool {
        self.reader.disconnect_signal().reason().is_none()
    }

    /// What another process needs to continue it; `now` in whole seconds since the Unix epoch. From now on no frames
    /// are kept for it here. `None` where its client may no longer resume it.
    pub fn to_saved(&self, now: u64) -> Option<SavedMember> {
        if !self.can_resume() {
            return None;
        }
        let (replay, features) = self.reader.take_replay()?;
        // Both numbers are rounded down, and no client gets less time than it was promised.
        let deadline = now + self.remaining().as_secs() + 2;
        let (resume_token, join_order) = (self.resume_token.clone(), self.membership.join_order());
        let webhook_seq = self.membership.webhook_seq();
        Some(SavedMember { resume_token, replay, features, join_order, webhook_seq, deadline })
    }

    /// Waits until the client has resumed on another connection, may no longer resume, or its time is over. When the
    /// server stops, the member is added to `snapshot`.
    pub async fn wait_for_resume(
        mut self,
        mut closing: watch::Receiver<Option<Duration>>,
        snapshot: &ShutdownSnapshot,
        metrics: &Metrics,
    ) {
        let signal = self.reader.disconnect_signal();
        let disconnected = tokio::select! {
            biased;
            reason = signal.disconnected() => Some(reason),
            _ = closing.wait_for(Option::is_some) => return snapshot.push(self),
            () = sleep_unless_suspended(self.deadline, self.resume_window) => None,
        };
        if disconnected == Some(DisconnectReason::Resumed) {
            return;
        }
        let reason =
            disconnected.map_or(NOT_RESUMED_IN_TIME, |reason| CloseReason::from(reason).as_str());
        self.membership.set_leave_reason(reason);
        metrics.record_resume(ResumeResult::Expired);
        if disconnected == Some(DisconnectReason::TooSlow) {
            metrics.record_queue_overflow();
        }
        metrics.record_leave(reason);
        let Peer { username, client_id, .. } = self.membership.peer();
        let (room, user, client) = (self.room(), &**username, &**client_id);
        tracing::error_span!("socket", room, user, client)
            .in_scope(|| tracing::info!(reason, "detached member left"));
    }
}

/// Waits until `deadline`. Where the process was suspended over it, waits longer, since no client could reach the
/// server meanwhile: as long as the suspension, and at most a whole `resume_window`.
async fn sleep_unless_suspended(deadline: Instant, resume_window: Duration) {
    sleep_until(deadline).await;
    let late = deadline.elapsed();
    if late > SUSPEND_THRESHOLD {
        sleep(late.min(resume_window)).await;
    }
}
