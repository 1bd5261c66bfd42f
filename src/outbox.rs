//! A bounded queue of frames towards one client.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytestring::ByteString;
use tokio::sync::{
    SetOnce,
    mpsc::{self, error::TrySendError},
};

/// Frames that may wait for one client: several full meshes of ten being set up at once.
pub const MAX_FRAMES: usize = 1024;

/// Bytes that may wait for one client.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Frames that are written at once.
const MOST_AT_ONCE: usize = 16;

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

/// A fresh, empty queue: the end that others write to, and the end that its connection reads.
pub fn pair() -> (Outbox, Mailbox) {
    let (sender, receiver) = mpsc::channel(MAX_FRAMES);
    let state = Arc::new(State { waiting: AtomicUsize::new(0), dismissed: SetOnce::new() });
    (Outbox { frames: sender, state: state.clone() }, Mailbox { frames: receiver, state })
}

/// The end of the queue that everyone else holds.
#[derive(Clone, Debug)]
pub struct Outbox {
    frames: mpsc::Sender<ByteString>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes in the queue.
    waiting: AtomicUsize,
    dismissed: SetOnce<Dismissal>,
}

impl Outbox {
    /// Queues a frame, or gives up on a client that reads too slowly.
    ///
    /// Signaling does not survive a gap (an answer without its offer is noise), so a full queue
    /// ends the connection instead of dropping a frame; the client reconnects and rejoins.
    pub fn push(&self, frame: ByteString) {
        let length = frame.len();
        let waiting = self.state.waiting.fetch_add(length, Ordering::Relaxed) + length;
        if waiting > MAX_BYTES {
            return self.dismiss(Dismissal::TooSlow);
        }
        match self.frames.try_send(frame) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.dismiss(Dismissal::TooSlow),
            Err(TrySendError::Closed(_)) => {} // its connection is leaving; the seat follows
        }
    }

    /// Asks the connection to end. The first reason given is the one that counts.
    pub fn dismiss(&self, why: Dismissal) {
        let _ = self.state.dismissed.set(why);
    }
}

/// The end of the queue that the client's own connection holds.
#[derive(Debug)]
pub struct Mailbox {
    frames: mpsc::Receiver<ByteString>,
    state: Arc<State>,
}

impl Mailbox {
    /// Moves frames that wait to `frames`, as many as go well into one write; waits while there is
    /// none. Safe to cancel.
    pub async fn take(&mut self, frames: &mut Vec<ByteString>) {
        self.frames.recv_many(frames, MOST_AT_ONCE).await;
        let taken = frames.iter().map(|frame| frame.len()).sum();
        self.state.waiting.fetch_sub(taken, Ordering::Relaxed);
    }

    /// A frame that already waits, if there is one.
    pub fn next_now(&mut self) -> Option<ByteString> {
        let frame = self.frames.try_recv().ok()?;
        self.state.waiting.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }

    /// Something to wait on for the dismissal, also while the mailbox itself is in use.
    pub fn notice(&self) -> Notice {
        Notice(self.state.clone())
    }
}

/// Tells a connection that it was asked to end.
#[derive(Clone, Debug)]
pub struct Notice(Arc<State>);

impl Notice {
    /// Waits until somebody dismisses the client. Safe to cancel.
    pub async fn dismissed(&self) -> Dismissal {
        *self.0.dismissed.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_holds_too_many_frames_ends_the_connection() {
        let (outbox, mailbox) = pair();

        for _ in 0..=MAX_FRAMES {
            outbox.push("x".into());
        }

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::TooSlow);
    }

    #[tokio::test]
    async fn a_queue_that_holds_too_many_bytes_ends_the_connection() {
        let (outbox, mailbox) = pair();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..=MAX_BYTES / megabyte.len() {
            outbox.push(megabyte.clone());
        }

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::TooSlow);
    }

    #[tokio::test]
    async fn what_was_read_no_longer_counts() {
        let (outbox, mut mailbox) = pair();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..MAX_FRAMES * 2 {
            outbox.push(megabyte.clone());
            mailbox.next_now().unwrap();
        }
        outbox.dismiss(Dismissal::Replaced);

        assert_eq!(mailbox.notice().dismissed().await, Dismissal::Replaced);
    }
}
