//! The send queue of one client: a bounded list of frames.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use bytestring::ByteString;
use tokio::{sync::oneshot, time::Instant};

use super::{
    ClientQueueReader, DisconnectReason,
    queue_state::{QueueOverflow, QueueShared, QueueState},
    replay::{ReplayBuffer, ReplayGap, ResumeError},
};
use crate::{
    memory::{Growth, MemoryAccount, MemoryBudget, MemoryHolder},
    protocol::{Features, MediaPath},
};

/// The key of a replay buffer that stands in for a membership which is migrating to this server.
pub const AWAITING_MIGRATION: u128 = 0;

/// Creates an empty queue: the end into which others push, and the end that the client's connection reads.
pub fn channel() -> (ClientQueue, ClientQueueReader) {
    let shared = Arc::new(QueueShared::default());
    (ClientQueue(shared.clone()), ClientQueueReader(shared))
}

/// The end of a send queue into which frames are pushed. Clones push into the same queue.
#[derive(Clone, Debug)]
pub struct ClientQueue(Arc<QueueShared>);

impl ClientQueue {
    /// Sends a frame: writes it at once where none is queued before it, otherwise queues it, or disconnects a
    /// client that reads too slowly. `received_at` is the time at which a peer's signal arrived, `None` for other
    /// frames. Returns whether the frame was written at once.
    ///
    /// Signaling does not survive a gap (an answer without its offer is useless), so a full queue ends the
    /// connection instead of dropping a frame; the client reconnects and rejoins.
    pub fn push(&self, frame: ByteString, received_at: Option<Instant>) -> bool {
        let mut state = self.0.lock_state();
        let pushed = state.push(frame, received_at);
        if matches!(pushed, Ok(true)) && state.replay.is_none() {
            return true; // nothing is held for it
        }
        if state.update_charges() == Growth::Excessive {
            let holder = state.charges.holder.clone();
            drop(state);
            if let Some(holder) = holder {
                holder.shed();
            }
            return false;
        }
        pushed.unwrap_or_else(|QueueOverflow| {
            drop(state);
            self.disconnect(DisconnectReason::TooSlow);
            false
        })
    }

    /// Asks the connection to end. The first reason counts.
    pub fn disconnect(&self, reason: DisconnectReason) {
        if self.0.disconnect_reason.set(reason).is_ok() {
            self.0.lock_state().wake();
        }
    }

    /// Wakes the connection, which looks whether it is to end.
    pub fn wake(&self) {
        self.0.lock_state().wake();
    }

    /// The client has lost its connection, or its connection is not to receive more: frames are kept for the next
    /// one.
    pub fn detach(&self) {
        let mut state = self.0.lock_state();
        let kept = state.detach();
        let _ = state.update_charges();
        drop(state);
        if kept.is_err() {
            self.disconnect(DisconnectReason::TooSlow);
        }
    }

    /// From now on what this queue holds counts for `holder`, and this queue is what is shed for it.
    pub fn set_memory_holder(&self, holder: &Arc<MemoryHolder>) {
        let shed: Weak<QueueShared> = Arc::downgrade(&self.0);
        holder.set_shed(shed);
        self.0.lock_state().charges.bill(holder);
    }

    /// From now on what this queue holds counts against an account.
    pub fn assign_account(&self, budget: &MemoryBudget, account: &MemoryAccount) {
        let known = self.0.lock_state().charges.holder.clone();
        let holder = known.unwrap_or_else(|| {
            let holder = budget.holder();
            self.set_memory_holder(&holder);
            holder
        });
        holder.assign(account);
    }

    /// Records that the peers were informed of the client's detachment. Returns whether they were not before.
    pub fn mark_detached_reported(&self) -> bool {
        !std::mem::replace(&mut self.0.lock_state().is_detached_reported, true)
    }

    /// Whether the peers were informed that the client is detached.
    pub fn is_detached_reported(&self) -> bool {
        self.0.lock_state().is_detached_reported
    }

    /// Whether the client has no connection.
    pub fn is_detached(&self) -> bool {
        self.0.lock_state().is_detached
    }

    /// How many frames are queued for the connection, or are being written to it.
    pub fn queued(&self) -> usize {
        let state = self.0.lock_state();
        if state.is_detached { 0 } else { state.frames.len() + state.unconfirmed }
    }

    /// From now on frames have sequence numbers, and are kept in `replay` beyond this connection.
    pub fn enable_replay(&self, replay: Box<ReplayBuffer>) {
        let mut state = self.0.lock_state();
        state.replay = Some(replay);
        let _ = state.update_charges();
    }

    /// Whether the client may resume its membership when it loses its connection.
    pub fn may_resume(&self) -> bool {
        self.0.lock_state().replay.is_some()
    }

    /// The key of the membership that the client may resume; `None` where it may not, or is being disconnected.
    pub fn membership_key(&self) -> Option<u128> {
        let key = self.0.lock_state().replay.as_ref().map(|replay| replay.key());
        key.filter(|_| self.0.disconnect_reason.get().is_none())
    }

    /// The client has received every frame up to this sequence number.
    pub fn acknowledge(&self, seq: u64) {
        let mut state = self.0.lock_state();
        if let Some(replay) = &mut state.replay {
            replay.acknowledge(seq);
            let _ = state.update_charges();
        }
    }

    /// See [`ReplayBuffer::is_duplicate_id`].
    pub fn is_duplicate_id(&self, id: &str) -> bool {
        self.0.lock_state().replay.as_ref().is_some_and(|replay| replay.is_duplicate_id(id))
    }

    /// See [`ReplayBuffer::note_relayed_id`].
    pub fn note_relayed_id(&self, id: &str) {
        let mut state = self.0.lock_state();
        if let Some(replay) = &mut state.replay {
            replay.note_relayed_id(id);
            let _ = state.update_charges();
        }
    }

    /// See [`ReplayBuffer::forget_relayed_id`].
    pub fn forget_relayed_id(&self, id: &str) {
        if let Some(replay) = &mut self.0.lock_state().replay {
            replay.forget_relayed_id(id);
        }
    }

    /// Resumes the membership with `key` on `new`, a fresh queue, with the frames that the client has not received
    /// after `last_seq`; returns their number. This queue is closed and its connection disconnected.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]; then nothing has changed.
    pub fn resume_into(&self, new: &Self, key: u128, last_seq: u64) -> Result<usize, ResumeError> {
        let mut old = self.0.lock_state();
        let QueueState { replay, frames: queued, .. } = &mut *old;
        let replay = replay.as_mut().filter(|replay| replay.key() == key);
        let replay = replay.ok_or(ResumeError::Ended)?;
        if self.0.disconnect_reason.get().is_some() {
            return Err(ResumeError::Ended);
        }
        let frames = replay.resume_after(last_seq, queued).map_err(|ReplayGap| ResumeError::Gap)?;
        let replayed = frames.len();
        let mut fresh = new.0.lock_state();
        fresh.replay = old.replay.take();
        (fresh.features, fresh.media_path) = (old.features, old.media_path);
        fresh.bytes = frames.iter().map(|frame| frame.len()).sum();
        fresh.frames = frames;
        old.bytes = 0;
        let _ = (old.update_charges(), fresh.update_charges());
        drop(fresh);
        old.is_closed = true;
        drop(old);
        self.disconnect(DisconnectReason::Resumed);
        Ok(replayed)
    }

    /// Moves the frames that the client may not have received to `carrier`, a fresh queue without a connection.
    /// This queue is closed and its connection disconnected.
    pub fn migrate_into(&self, carrier: &Self) {
        self.detach();
        let mut old = self.0.lock_state();
        let mut fresh = carrier.0.lock_state();
        (fresh.replay, fresh.features) = (old.replay.take(), old.features);
        (fresh.is_detached, fresh.is_detached_reported) = (true, old.is_detached_reported);
        if let Some(holder) = &old.charges.holder {
            fresh.charges.bill(holder);
        }
        let _ = (old.update_charges(), fresh.update_charges());
        drop(fresh);
        old.is_closed = true;
        drop(old);
        self.disconnect(DisconnectReason::Resumed);
    }

    /// From now on frames are kept for a membership that is migrating to this server.
    pub fn expect_migration(&self) {
        self.enable_replay(Box::new(ReplayBuffer::new(AWAITING_MIGRATION)));
        self.detach();
    }

    /// Completes an [expected](Self::expect_migration) migration: the frames of `replay`, then `events`, come
    /// before those that were kept here since.
    pub fn absorb_migration(
        &self,
        mut replay: Box<ReplayBuffer>,
        events: Vec<ByteString>,
        features: Features,
        is_detached_reported: bool,
    ) {
        let mut state = self.0.lock_state();
        let later = state.replay.take().map(|later| *later);
        let is_complete = replay.append(events).is_ok()
            && later.is_none_or(|later| replay.append(later.into_frames()).is_ok());
        (state.replay, state.features) = (Some(replay), features);
        state.is_detached_reported = is_detached_reported;
        let _ = state.update_charges();
        drop(state);
        if !is_complete {
            self.disconnect(DisconnectReason::TooSlow);
        }
    }

    /// Sets the features that the client has opted in to.
    pub fn set_features(&self, features: Features) {
        self.0.lock_state().features = features;
    }

    /// The features that the client has opted in to.
    pub fn features(&self) -> Features {
        self.0.lock_state().features
    }

    /// The client is a guest.
    pub fn set_guest(&self) {
        self.0.lock_state().is_guest = true;
    }

    /// Whether the client is a guest, which is never the same user as another connection.
    pub fn is_guest(&self) -> bool {
        self.0.lock_state().is_guest
    }

    /// Sets the address that the connection comes from.
    pub fn set_address(&self, address: IpAddr) {
        self.0.lock_state().address = Some(address);
    }

    /// Sets the media path of the client's last call.
    pub fn set_media_path(&self, path: MediaPath) {
        self.0.lock_state().media_path = Some(path);
    }

    /// Has the client's connection send a Ping. What is returned resolves when a Pong arrives, and fails when the
    /// connection ends.
    pub fn request_pong(&self) -> oneshot::Receiver<()> {
        let (waiter, pong) = oneshot::channel();
        let mut state = self.0.lock_state();
        if !state.is_closed {
            state.pong_waiters.get_or_insert_default().push(waiter);
            state.is_ping_requested = true;
            state.wake();
        }
        pong
    }

    /// Records that a Pong has arrived.
    pub fn record_pong(&self) {
        let waiters = self.0.lock_state().pong_waiters.take();
        for waiter in waiters.into_iter().flat_map(|waiters| *waiters) {
            let _ = waiter.send(());
        }
    }

    /// Records the time from a Ping to its Pong.
    pub fn record_ping_rtt(&self, rtt: Duration) {
        self.0.lock_state().ping_rtt = Some(rtt);
    }

    /// The connection's address and its last round-trip time, while there is a connection, and the media path of
    /// the client's last call.
    pub fn connection_info(&self) -> (Option<IpAddr>, Option<Duration>, Option<MediaPath>) {
        let state = self.0.lock_state();
        let is_connected = !state.is_detached;
        (
            state.address.filter(|_| is_connected),
            state.ping_rtt.filter(|_| is_connected),
            state.media_path,
        )
    }
}
