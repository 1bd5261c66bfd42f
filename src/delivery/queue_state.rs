//! What a send queue holds, and what its two ends share.

use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use bytestring::ByteString;
use tokio::{sync::oneshot, time::Instant};

use super::{
    DisconnectReason,
    replay::{FRAME_OVERHEAD, ReplayBuffer, ReplayGap},
};
use crate::{
    memory::{Charge, Growth, MemoryHolder, MemoryKind, Shed},
    protocol::{self, Features, MediaPath},
    websocket::{DirectWriter, WriteOutcome},
};

/// The most frames in a send queue: several full meshes of ten that are set up at once.
pub const QUEUE_MAX_FRAMES: usize = 1024;

/// The most bytes in a send queue.
pub const QUEUE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// What both ends share. This is no channel: a channel of this size takes a kilobyte and more also while it is
/// empty, and most members' queues are.
#[derive(Debug, Default)]
#[repr(C)] // as the state itself
pub(super) struct QueueShared {
    pub(super) disconnect_reason: OnceLock<DisconnectReason>,
    /// The connection is to end because too much memory is held; its client may resume.
    pub(super) is_shed: AtomicBool,
    pub(super) state: Mutex<QueueState>,
}

impl QueueShared {
    pub(super) fn lock_state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disconnect_reason(&self) -> Option<DisconnectReason> {
        self.disconnect_reason.get().copied()
    }

    pub(super) fn is_shed(&self) -> bool {
        self.is_shed.load(Ordering::Relaxed)
    }
}

impl Shed for QueueShared {
    /// Disconnects the client as one that reads too slowly. It can resume only where it has acknowledged every frame:
    /// those that it has not are freed.
    fn shed(&self) -> bool {
        let mut state = self.lock_state();
        let may_resume = state.frames.is_empty()
            && state.replay.as_ref().is_some_and(|replay| replay.is_empty());
        state.frames = VecDeque::new();
        let _ = state.detach();
        if may_resume {
            let _ = state.update_charges();
            self.is_shed.store(true, Ordering::Relaxed);
            state.wake();
            return false;
        }
        state.replay = None;
        state.is_closed = true;
        let _ = state.update_charges();
        if self.disconnect_reason.set(DisconnectReason::TooSlow).is_ok() {
            state.wake();
        }
        true
    }
}

/// The client reads more slowly than its room sends: a frame would be lost.
pub(super) struct QueueOverflow;

/// What a queue holds, as the memory budget counts it.
pub(super) struct QueueCharges {
    pub(super) holder: Option<Arc<MemoryHolder>>,
    pub(super) queue: Charge,
    pub(super) replay: Charge,
}

impl Default for QueueCharges {
    fn default() -> Self {
        Self {
            holder: None,
            queue: Charge::uncounted(MemoryKind::SendQueues),
            replay: Charge::uncounted(MemoryKind::ReplayBuffers),
        }
    }
}

impl QueueCharges {
    pub(super) fn bill(&mut self, holder: &Arc<MemoryHolder>) {
        self.holder = Some(holder.clone());
        self.queue.bill(holder);
        self.replay.bill(holder);
    }
}

/// In this order, since every message touches the first half: it fits into two cache lines, and where thousands of rooms are
/// active each line is a cache miss.
#[derive(Default)]
#[repr(C)]
pub(super) struct QueueState {
    /// The queue has no reader any more.
    pub(super) is_closed: bool,
    /// The connection has ended or is about to end: frames are only kept for the next one.
    pub(super) is_detached: bool,
    /// The peers were informed that there is no connection.
    pub(super) is_detached_reported: bool,
    /// The connection is to send a Ping now.
    pub(super) is_ping_requested: bool,
    /// The client has no account.
    pub(super) is_guest: bool,
    /// The features that the client has opted in to.
    pub(super) features: Features,
    pub(super) frames: VecDeque<ByteString>,
    /// How many frames were taken out and may not be written yet.
    pub(super) unconfirmed: usize,
    /// The bytes of those.
    pub(super) unconfirmed_bytes: usize,
    /// Writes frames that find the queue empty.
    pub(super) direct_writer: Option<Arc<dyn DirectWriter>>,
    /// The frames that outlive this connection, where the client may resume.
    pub(super) replay: Option<Box<ReplayBuffer>>,
    /// Wakes the one task that reads and that a disconnect ends. It stays when it was used: the task is the same
    /// for as long as it lives.
    pub(super) reader: Option<Waker>,
    /// The bytes of all frames.
    pub(super) bytes: usize,
    /// When the first frame that is a peer's signal was received.
    pub(super) oldest_received_at: Option<Instant>,
    pub(super) charges: QueueCharges,
    /// The address that the connection comes from.
    pub(super) address: Option<IpAddr>,
    /// The media path of the client's last call, as the client reports it.
    pub(super) media_path: Option<MediaPath>,
    /// The time from the last answered Ping to its Pong.
    pub(super) ping_rtt: Option<Duration>,
    /// The task that waits for a Pong; boxed, since there is rarely one.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each queue")]
    pub(super) pong_waiters: Option<Box<Vec<oneshot::Sender<()>>>>,
}

impl QueueState {
    /// The state of a queue whose reader is gone.
    pub(super) fn closed() -> Self {
        Self { is_closed: true, ..Self::default() }
    }

    /// Sends or queues a frame; whether it was written at once.
    pub(super) fn push(
        &mut self,
        frame: ByteString,
        received_at: Option<Instant>,
    ) -> Result<bool, QueueOverflow> {
        if self.is_closed {
            return Ok(false); // its connection is ending; the end of the membership follows
        }
        if self.is_detached {
            let kept = self.replay.as_mut().map_or(Ok(()), |replay| replay.defer(frame));
            return kept.map(|()| false).map_err(|ReplayGap| QueueOverflow);
        }
        if self.frames.is_empty()
            && self.unconfirmed == 0
            && let Some(writer) = &self.direct_writer
        {
            let outcome = match &self.replay {
                None => writer.try_send(&frame),
                Some(replay) => writer.try_send(&protocol::with_seq(&frame, replay.next_seq())),
            };
            if outcome != WriteOutcome::NotSent {
                if let Some(replay) = &mut self.replay {
                    replay.push_sent(frame);
                }
                if outcome == WriteOutcome::Partial {
                    self.wake();
                }
                return Ok(true);
            }
        }
        if self.frames.len() >= QUEUE_MAX_FRAMES || self.bytes + frame.len() > QUEUE_MAX_BYTES {
            return Err(QueueOverflow);
        }
        self.bytes += frame.len();
        self.oldest_received_at = self.oldest_received_at.or(received_at);
        self.frames.push_back(frame);
        self.wake();
        Ok(false)
    }

    /// There is no connection any more: frames are only kept for the next one.
    pub(super) fn detach(&mut self) -> Result<(), QueueOverflow> {
        if std::mem::replace(&mut self.is_detached, true) {
            return Ok(());
        }
        let (unsent, unwritten) = (std::mem::take(&mut self.frames), self.unconfirmed);
        (self.bytes, self.unconfirmed, self.unconfirmed_bytes) = (0, 0, 0);
        self.direct_writer = None;
        let kept = self.replay.as_mut().map_or(Ok(()), |replay| {
            replay.mark_unwritten(unwritten);
            replay.append(unsent)
        });
        kept.map_err(|ReplayGap| QueueOverflow)
    }

    /// Counts what is held now. Call it after every change of `frames` and `replay`.
    pub(super) fn update_charges(&mut self) -> Growth {
        let frames = self.frames.len() + self.unconfirmed;
        let queue = self.bytes + self.unconfirmed_bytes + frames * FRAME_OVERHEAD;
        let replay = self.replay.as_ref().map_or(0, |replay| replay.held_bytes());
        let grown = self.charges.queue.set(queue);
        match self.charges.replay.set(replay) {
            Growth::Fits => grown,
            Growth::Excessive => Growth::Excessive,
        }
    }

    pub(super) fn register_reader(&mut self, reader: &Waker) {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
    }

    /// Takes the first frame, which gets its sequence number where it has one: it is sent now.
    pub(super) fn pop(&mut self) -> Option<ByteString> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        if self.frames.is_empty() {
            self.frames = VecDeque::new(); // most queues are empty nearly always
        }
        let Some(replay) = &mut self.replay else { return Some(frame) };
        let numbered = protocol::with_seq(&frame, replay.next_seq());
        replay.push_sent(frame);
        Some(numbered)
    }

    pub(super) fn wake(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }
}

/// Shows how much is queued, and no contents: frames are what members send each other.
impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueState")
            .field("frames", &self.frames.len())
            .field("bytes", &self.bytes)
            .field("is_detached", &self.is_detached)
            .finish_non_exhaustive()
    }
}
