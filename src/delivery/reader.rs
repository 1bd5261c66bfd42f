//! The end of a send queue that the client's connection reads.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    DisconnectSignal, ReplayBuffer,
    queue_state::{QueueShared, QueueState},
};
use crate::{protocol::Features, websocket::DirectWriter};

/// The most frames that are taken for one write.
const MAX_BATCH_FRAMES: usize = 16;

/// No further frame is taken for a write that has so many bytes: what the socket does not accept is copied.
const MAX_BATCH_BYTES: usize = 16 * 1024;

/// The end of a send queue that the client's own connection holds. All its waits belong to one task.
#[derive(Debug)]
pub struct ClientQueueReader(pub(super) Arc<QueueShared>);

impl ClientQueueReader {
    /// From now on a frame that finds the queue empty is written by its sender's task.
    pub fn set_direct_writer(&mut self, writer: Option<Arc<dyn DirectWriter>>) {
        self.0.lock_state().direct_writer = writer;
    }

    /// Moves queued frames to `frames`, as many as fit well into one write; pending while there are none. Says
    /// when the first of them that is a peer's signal was received. Where there are none in `frames` after that, a Ping
    /// was [requested](super::ClientQueue::request_pong). Safe to cancel.
    ///
    /// No frame overtakes them: the next call confirms that they were written.
    pub fn poll_recv_many(
        &mut self,
        context: &Context<'_>,
        frames: &mut Vec<ByteString>,
    ) -> Poll<Option<Instant>> {
        let mut state = self.0.lock_state();
        if std::mem::take(&mut state.unconfirmed) > 0 {
            state.unconfirmed_bytes = 0;
            let _ = state.update_charges();
        }
        if std::mem::take(&mut state.is_ping_requested) {
            return Poll::Ready(None);
        }
        if state.frames.is_empty() {
            state.register_reader(context.waker());
            return Poll::Pending;
        }
        while state.unconfirmed < MAX_BATCH_FRAMES
            && state.unconfirmed_bytes < MAX_BATCH_BYTES
            && let Some(frame) = state.pop()
        {
            state.unconfirmed += 1;
            state.unconfirmed_bytes += frame.len();
            frames.push(frame);
        }
        let _ = state.update_charges();
        let oldest_received_at = state.oldest_received_at.take();
        Poll::Ready(oldest_received_at)
    }

    /// Takes a queued frame, if there is one.
    pub fn try_recv(&mut self) -> Option<ByteString> {
        let mut state = self.0.lock_state();
        let frame = state.pop();
        let _ = state.update_charges();
        frame
    }

    /// Takes the replay buffer of a detached client, for another process, and the client's features. From now on
    /// no frames are kept here.
    pub fn take_replay(&self) -> Option<(Box<ReplayBuffer>, Features)> {
        let mut state = self.0.lock_state();
        let features = state.features;
        let replay = state.replay.take();
        let _ = state.update_charges();
        replay.map(|replay| (replay, features))
    }

    /// How many bytes of frames the replay buffer holds; 0 where there is none.
    pub fn replay_bytes(&self) -> usize {
        self.0.lock_state().replay.as_ref().map_or(0, |replay| replay.bytes())
    }

    /// The signal that ends the connection. The same task may wait on it while the reader itself is in use.
    pub fn disconnect_signal(&self) -> DisconnectSignal {
        DisconnectSignal(self.0.clone())
    }
}

impl Drop for ClientQueueReader {
    fn drop(&mut self) {
        *self.0.lock_state() = QueueState::closed();
    }
}
