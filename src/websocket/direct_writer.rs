//! The stream of a WebSocket, to which its own task and the tasks of its peers write.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytestring::ByteString;
use tokio::io::AsyncWrite;

use super::{codec::FrameHeader, scratch::THREAD_SCRATCH};
use crate::memory::{Charge, MemoryHolder, MemoryKind};

/// Writes text frames to a client at once, past its send queue, while nothing is queued for it.
pub trait DirectWriter: Send + Sync {
    /// Writes as much of a frame as the socket accepts now. It may be called on any thread.
    fn try_send(&self, frame: &ByteString) -> WriteOutcome;
}

/// How much of a frame a [`DirectWriter`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The whole frame.
    Complete,
    /// A part of it. The client's own task has to write the rest.
    Partial,
    /// Nothing: the frame has to be queued.
    NotSent,
}

/// Counts the text frames that are sent.
pub trait FrameCounter: Send + Sync {
    /// A text frame with a payload of so many bytes was written.
    fn record_sent_frame(&self, bytes: usize);
}

impl<T: FrameCounter> FrameCounter for Arc<T> {
    fn record_sent_frame(&self, bytes: usize) {
        (**self).record_sent_frame(bytes);
    }
}

/// The stream of a WebSocket, which its own task reads and to which also the tasks of peers write. Every message touches it: what
/// is looked at together is together, as in a send queue.
#[repr(C)]
pub(super) struct SharedStream<S, C> {
    pub(super) counter: C,
    state: Mutex<StreamState<S>>,
}

#[repr(C)]
pub(super) struct StreamState<S> {
    /// The socket's own task has to write the rest and waits until it can. No other task may write then, or the
    /// waiting one would not be woken.
    flush_pending: bool,
    is_close_queued: bool,
    /// The rest of a frame, or of several, that was written in part.
    unsent: Vec<u8>,
    pub(super) stream: S,
    unsent_charge: Charge,
}

impl<S, C> SharedStream<S, C> {
    pub(super) fn new(stream: S, counter: C) -> Self {
        let state = StreamState {
            flush_pending: false,
            is_close_queued: false,
            unsent: Vec::new(),
            stream,
            unsent_charge: Charge::uncounted(MemoryKind::UnsentRemainders),
        };
        Self { counter, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, StreamState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Send + Unpin, C: FrameCounter> DirectWriter for SharedStream<S, C> {
    fn try_send(&self, frame: &ByteString) -> WriteOutcome {
        let outcome = self.lock().try_send(frame);
        if outcome != WriteOutcome::NotSent {
            self.counter.record_sent_frame(frame.len());
        }
        outcome
    }
}

impl<S> StreamState<S> {
    pub(super) fn set_memory_holder(&mut self, holder: &Arc<MemoryHolder>) {
        self.unsent_charge.bill(holder);
    }

    /// Counts the bytes that are not sent yet; the task of a peer may have kept them.
    fn update_charge(&mut self) {
        let _ = self.unsent_charge.set(self.unsent.capacity());
    }
}

impl<S: AsyncWrite + Unpin> StreamState<S> {
    /// Queues a control frame behind the bytes that are not sent yet. After a Close nothing is sent any more (section
    /// 5.5.1).
    pub(super) fn queue_control(&mut self, frame: &[u8]) {
        if !self.is_close_queued {
            self.unsent.extend_from_slice(frame);
            self.update_charge();
        }
    }

    pub(super) fn queue_close(&mut self, frame: &[u8]) {
        self.queue_control(frame);
        self.is_close_queued = true;
    }

    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flush_pending && self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.flush_pending = true;
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..written);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
                self.update_charge();
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.flush_pending = false;
        Poll::Ready(Ok(()))
    }

    /// Starts to write text messages once all earlier bytes are sent, and keeps the bytes that the socket did not
    /// accept.
    pub(super) fn poll_start_send(
        &mut self,
        context: &mut Context<'_>,
        texts: &[ByteString],
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        self.flush_pending = true;
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            // Copying them together costs less than a write for each, or than a write of several parts.
            let (mut used, mut left) = (0, texts);
            while let [text, others @ ..] = left
                && let Some(place) = scratch.get_mut(used..)
                && let Some(length) =
                    FrameHeader::text(text.len()).copy_with_payload(text.as_bytes(), place)
            {
                used += length;
                left = others;
            }
            let filled = scratch.get(..used).unwrap_or_default();
            let written = if filled.is_empty() {
                0 // the first does not fit into the scratch buffer
            } else {
                match Pin::new(&mut self.stream).poll_write(context, filled) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                }
            };
            self.unsent.extend_from_slice(filled.get(written..).unwrap_or_default());
            for text in left {
                self.unsent.extend_from_slice(FrameHeader::text(text.len()).bytes());
                self.unsent.extend_from_slice(text.as_bytes());
            }
            self.update_charge();
            Poll::Ready(Ok(()))
        })
    }

    /// Writes one text message in a peer's task, unless earlier bytes are not sent yet.
    fn try_send(&mut self, text: &ByteString) -> WriteOutcome {
        if self.is_close_queued || self.flush_pending || !self.unsent.is_empty() {
            return WriteOutcome::NotSent;
        }
        // Only the socket's own task waits for the socket. Its send queue wakes it for the rest.
        let mut context = Context::from_waker(Waker::noop());
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let header = FrameHeader::text(text.len());
            let length = header.copy_with_payload(text.as_bytes(), scratch).unwrap_or(0);
            let frame = scratch.get(..length).unwrap_or_default();
            if frame.is_empty() {
                return WriteOutcome::NotSent; // it does not fit into the scratch buffer
            }
            let Poll::Ready(Ok(written @ 1..)) =
                Pin::new(&mut self.stream).poll_write(&mut context, frame)
            else {
                return WriteOutcome::NotSent;
            };
            self.unsent.extend_from_slice(frame.get(written..).unwrap_or_default());
            if self.unsent.is_empty()
                && Pin::new(&mut self.stream).poll_flush(&mut context).is_ready()
            {
                return WriteOutcome::Complete; // the next read or write reports an error of the flush
            }
            self.flush_pending = true;
            self.update_charge();
            WriteOutcome::Partial
        })
    }
}
