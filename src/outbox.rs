//! A bounded queue of frames towards one client.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use bytestring::ByteString;
use tokio::time::Instant;

/// Frames that may wait for one client: several full meshes of ten being set up at once.
pub const MAX_FRAMES: usize = 1024;

/// Bytes that may wait for one client.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Frames that are written at once.
const MOST_AT_ONCE: usize = 16;

/// Room for so many frames is kept while none waits: for a member of a quiet room.
pub const KEPT: usize = 4;

/// Why somebody else ended a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// It reads more slowly than its room talks to it.
    TooSlow,
    /// Its own user took over its client id from another connection.
    Replaced,
    /// The token that it came in with was logged out.
    LoggedOut,
    /// The password of its account was changed.
    PasswordChanged,
    /// Its account was removed or disabled.
    AccountGone,
}

/// A way past the queue: straight to the client, as long as nothing waits for it.
pub trait Shortcut: Send + Sync {
    /// Writes as much of a frame as can be written now. It may be called on any thread.
    fn try_send(&self, frame: &ByteString) -> Sent;
}

/// What became of a frame on the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is on its way.
    Whole,
    /// It is on its way, and the client's own task has to write the rest of it.
    Begun,
    /// Nothing of it: it has to wait its turn.
    Nothing,
}

/// A fresh, empty queue: the end that others write to, and the end that its connection reads.
pub fn pair() -> (Outbox, Mailbox) {
    let shared = Arc::new(Shared::default());
    (Outbox(shared.clone()), Mailbox(shared))
}

/// The end of the queue that everyone else holds.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

/// Our own and no channel: a channel of this size has a kilobyte and more of its own, also while it is
/// empty, and most members' queues are.
#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    dismissed: OnceLock<Dismissal>,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<ByteString>,
    /// All their bytes.
    bytes: usize,
    /// When the first of them was heard that is a peer's message.
    since: Option<Instant>,
    /// The way past the queue, where there is one.
    shortcut: Option<Arc<dyn Shortcut>>,
    /// Frames were taken out, and may not be written yet.
    is_in_hand: bool,
    /// Nobody reads any more.
    is_closed: bool,
    /// Wakes the one task that reads, and that is to end. It stays when it was used: the task is the
    /// same for as long as it lives.
    reader: Option<Waker>,
}

impl Waiting {
    fn remember(&mut self, reader: &Waker) {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
    }

    fn wake(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }
}

/// How much, but not what: the frames are what people say to each other.
impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("frames", &self.frames.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    /// Sends a frame at once where nothing waits before it, or else queues it, or gives up on a client
    /// that reads too slowly; `heard_at` where it is a peer's message. Says whether it was sent at once.
    ///
    /// Signaling does not survive a gap (an answer without its offer is noise), so a full queue
    /// ends the connection instead of dropping a frame; the client reconnects and rejoins.
    pub fn push(&self, frame: ByteString, heard_at: Option<Instant>) -> bool {
        let mut waiting = self.0.waiting();
        if waiting.is_closed {
            return false; // its connection is leaving; the seat follows
        }
        if waiting.frames.is_empty()
            && !waiting.is_in_hand
            && let Some(shortcut) = &waiting.shortcut
        {
            match shortcut.try_send(&frame) {
                Sent::Whole => return true,
                Sent::Begun => {
                    waiting.wake();
                    return true;
                }
                Sent::Nothing => {}
            }
        }
        if waiting.frames.len() == MAX_FRAMES || waiting.bytes + frame.len() > MAX_BYTES {
            drop(waiting);
            self.dismiss(Dismissal::TooSlow);
            return false;
        }
        waiting.bytes += frame.len();
        waiting.since = waiting.since.or(heard_at);
        waiting.frames.push_back(frame);
        waiting.wake();
        false
    }

    /// Asks the connection to end. The first reason given is the one that counts.
    pub fn dismiss(&self, why: Dismissal) {
        if self.0.dismissed.set(why).is_ok() {
            self.0.waiting().wake();
        }
    }
}

/// The end of the queue that the client's own connection holds: one task, in all that it waits for.
#[derive(Debug)]
pub struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// From now on what finds an empty queue goes past it.
    pub fn opens(&mut self, shortcut: Option<Arc<dyn Shortcut>>) {
        self.0.waiting().shortcut = shortcut;
    }

    /// Moves frames that wait to `frames`, as many as go well into one write; waits while there is
    /// none. Says since when the longest waits of those that are a peer's message. Safe to cancel.
    ///
    /// Nothing overtakes them: to ask again is to say that they were written.
    pub async fn take(&mut self, frames: &mut Vec<ByteString>) -> Option<Instant> {
        poll_fn(|context| self.poll_take(context, frames)).await
    }

    fn poll_take(
        &self,
        context: &Context<'_>,
        frames: &mut Vec<ByteString>,
    ) -> Poll<Option<Instant>> {
        let mut waiting = self.0.waiting();
        waiting.is_in_hand = !waiting.frames.is_empty();
        if waiting.frames.is_empty() {
            waiting.remember(context.waker());
            return Poll::Pending;
        }
        let taken = waiting.frames.len().min(MOST_AT_ONCE);
        let before = frames.len();
        frames.extend(waiting.frames.drain(..taken));
        let bytes: usize = frames.iter().skip(before).map(|frame| frame.len()).sum();
        waiting.bytes -= bytes;
        let since = waiting.since.take();
        if waiting.frames.is_empty() && waiting.frames.capacity() > KEPT {
            waiting.frames = VecDeque::new();
        }
        Poll::Ready(since)
    }

    /// A frame that already waits, if there is one.
    pub fn next_now(&mut self) -> Option<ByteString> {
        let mut waiting = self.0.waiting();
        let frame = waiting.frames.pop_front()?;
        waiting.bytes -= frame.len();
        Some(frame)
    }

    /// Something to wait on for the dismissal, also while the mailbox itself is in use; in the same task.
    pub fn notice(&self) -> Notice {
        Notice(self.0.clone())
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        *self.0.waiting() = Waiting { is_closed: true, ..Waiting::default() };
    }
}

/// Tells a connection that it was asked to end.
#[derive(Clone, Debug)]
pub struct Notice(Arc<Shared>);

impl Notice {
    /// Waits until somebody dismisses the client. Safe to cancel.
    pub async fn dismissed(&self) -> Dismissal {
        poll_fn(|context| {
            self.wakes(context.waker());
            self.now().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Why the client was dismissed, if it was.
    pub fn now(&self) -> Option<Dismissal> {
        self.0.dismissed.get().copied()
    }

    /// From now on the dismissal wakes this task, as a frame does. Look for it after that.
    pub fn wakes(&self, reader: &Waker) {
        self.0.waiting().remember(reader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_holds_too_many_frames_ends_the_connection() {
        let (outbox, mailbox) = pair();

        for _ in 0..=MAX_FRAMES {
            outbox.push("x".into(), None);
        }

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::TooSlow);
    }

    #[tokio::test]
    async fn a_queue_that_holds_too_many_bytes_ends_the_connection() {
        let (outbox, mailbox) = pair();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..=MAX_BYTES / megabyte.len() {
            outbox.push(megabyte.clone(), None);
        }

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::TooSlow);
    }

    /// A shortcut that takes everything.
    struct Open;

    impl Shortcut for Open {
        fn try_send(&self, _: &ByteString) -> Sent {
            Sent::Whole
        }
    }

    #[test]
    fn nothing_goes_past_what_waits_or_was_taken_and_may_not_be_written_yet() {
        let (outbox, mut mailbox) = pair();
        let mut took = Vec::new();
        let context = Context::from_waker(Waker::noop());

        assert!(!outbox.push("before there is a way".into(), None));
        mailbox.opens(Some(Arc::new(Open)));
        assert!(!outbox.push("behind it".into(), None));
        assert!(mailbox.poll_take(&context, &mut took).is_ready());
        assert!(!outbox.push("while those are being written".into(), None));
        assert!(mailbox.poll_take(&context, &mut took).is_ready());
        assert!(mailbox.poll_take(&context, &mut took).is_pending());
        assert!(outbox.push("past".into(), None));

        assert_eq!(
            took,
            ["before there is a way", "behind it", "while those are being written"]
                .map(ByteString::from)
        );
    }

    #[test]
    fn debug_output_says_how_much_waits_and_not_what() {
        let (outbox, mailbox) = pair();

        outbox.push("v=0 the payload".into(), None);

        let shown = format!("{outbox:?} {mailbox:?} {:?}", mailbox.notice());
        assert!(shown.contains("frames: 1") && !shown.contains("payload"), "{shown}");
    }

    #[tokio::test]
    async fn what_was_read_no_longer_counts() {
        let (outbox, mut mailbox) = pair();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..MAX_FRAMES * 2 {
            outbox.push(megabyte.clone(), None);
            mailbox.next_now().unwrap();
        }
        outbox.dismiss(Dismissal::Replaced);

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::Replaced);
    }
}
