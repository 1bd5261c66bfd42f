//! A bounded queue of frames towards one client.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytestring::ByteString;
use tokio::time::Instant;

use crate::{
    replay::{ReplayBuffer, ReplayGap},
    wire::{self, Features, MediaPath},
};

/// Frames that may wait for one client: several full meshes of ten being set up at once.
pub const MAX_FRAMES: usize = 1024;

/// Bytes that may wait for one client.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Frames that are written at once.
const MAX_BATCH_FRAMES: usize = 16;

/// Room for so many frames is kept while none waits: for a member of a quiet room.
pub const IDLE_CAPACITY: usize = 4;

/// Stands for a membership that is on its way here.
pub const AWAITING_MIGRATION: u128 = 0;

/// Why somebody else ended a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// It reads more slowly than its room talks to it.
    TooSlow,
    /// Its own user took over its client id from another connection.
    Replaced,
    /// The client goes on with a newer connection.
    Resumed,
    /// The token that it came in with was logged out.
    LoggedOut,
    /// The password of its account was changed.
    PasswordChanged,
    /// Its account was removed or disabled.
    AccountGone,
    /// An administrator has thrown it out.
    Removed,
}

/// A way past the queue: straight to the client, as long as nothing waits for it.
pub trait DirectWriter: Send + Sync {
    /// Writes as much of a frame as can be written now. It may be called on any thread.
    fn try_send(&self, frame: &ByteString) -> WriteOutcome;
}

/// What became of a frame on the shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All of it is on its way.
    Complete,
    /// It is on its way, and the client's own task has to write the rest of it.
    Partial,
    /// Nothing of it: it has to wait its turn.
    NotSent,
}

/// A fresh, empty queue: the end that others write to, and the end that its connection reads.
pub fn channel() -> (ClientQueue, ClientQueueReader) {
    let shared = Arc::new(QueueShared::default());
    (ClientQueue(shared.clone()), ClientQueueReader(shared))
}

/// The end of the queue that everyone else holds.
#[derive(Clone, Debug)]
pub struct ClientQueue(Arc<QueueShared>);

/// Our own and no channel: a channel of this size has a kilobyte and more of its own, also while it is
/// empty, and most members' queues are.
#[derive(Debug, Default)]
struct QueueShared {
    state: Mutex<QueueState>,
    disconnect_reason: OnceLock<DisconnectReason>,
}

#[derive(Default)]
struct QueueState {
    frames: VecDeque<ByteString>,
    /// All their bytes.
    bytes: usize,
    /// When the first of them was heard that is a peer's message.
    since: Option<Instant>,
    /// The way past the queue, where there is one.
    direct_writer: Option<Arc<dyn DirectWriter>>,
    /// So many frames were taken out, and may not be written yet.
    unconfirmed: usize,
    /// What outlives this connection, where its client may come back.
    replay: Option<Box<ReplayBuffer>>,
    /// The connection is gone, or about to go: frames are only kept for the next one.
    is_detached: bool,
    /// Others know that there is no connection.
    is_detached_reported: bool,
    /// What the client has opted in to.
    features: Features,
    /// Where its connection comes from.
    address: Option<IpAddr>,
    /// Which way its last call went, as it says itself.
    path: Option<MediaPath>,
    /// How long its last Pong took.
    ping_rtt: Option<Duration>,
    /// Nobody reads any more.
    is_closed: bool,
    /// Wakes the one task that reads, and that is to end. It stays when it was used: the task is the
    /// same for as long as it lives.
    reader: Option<Waker>,
}

impl QueueState {
    fn register_reader(&mut self, reader: &Waker) {
        if !self.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            self.reader = Some(reader.clone());
        }
    }

    /// The first frame that waits, with its number where it has one: those that wait are the last that
    /// were numbered.
    fn pop(&mut self) -> Option<ByteString> {
        let frame = self.frames.pop_front()?;
        let behind = self.frames.len() as u64;
        self.bytes -= frame.len();
        match &self.replay {
            None => Some(frame),
            Some(replay) => Some(wire::with_seq(&frame, replay.last_seq().saturating_sub(behind))),
        }
    }

    fn wake(&self) {
        if let Some(reader) = &self.reader {
            reader.wake_by_ref();
        }
    }
}

/// How much, but not what: the frames are what people say to each other.
impl fmt::Debug for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("frames", &self.frames.len())
            .field("bytes", &self.bytes)
            .field("is_away", &self.is_detached)
            .finish_non_exhaustive()
    }
}

impl QueueShared {
    fn lock_state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientQueue {
    /// Sends a frame at once where nothing waits before it, or else queues it, or gives up on a client
    /// that reads too slowly; `heard_at` where it is a peer's message. Says whether it was sent at once.
    ///
    /// Signaling does not survive a gap (an answer without its offer is noise), so a full queue
    /// ends the connection instead of dropping a frame; the client reconnects and rejoins.
    pub fn push(&self, frame: ByteString, heard_at: Option<Instant>) -> bool {
        let mut waiting = self.0.lock_state();
        if waiting.is_closed {
            return false; // its connection is leaving; the seat follows
        }
        let number = match waiting.replay.as_mut().map(|replay| replay.push(frame.clone())) {
            None => None,
            Some(Ok(number)) => Some(number),
            Some(Err(ReplayGap)) => {
                drop(waiting);
                self.disconnect(DisconnectReason::TooSlow);
                return false;
            }
        };
        if waiting.is_detached {
            return false;
        }
        if waiting.frames.is_empty()
            && waiting.unconfirmed == 0
            && let Some(shortcut) = &waiting.direct_writer
        {
            let sent = match number {
                None => shortcut.try_send(&frame),
                Some(number) => shortcut.try_send(&wire::with_seq(&frame, number)),
            };
            match sent {
                WriteOutcome::Complete => return true,
                WriteOutcome::Partial => {
                    waiting.wake();
                    return true;
                }
                WriteOutcome::NotSent => {}
            }
        }
        if waiting.frames.len() == MAX_FRAMES || waiting.bytes + frame.len() > MAX_BYTES {
            drop(waiting);
            self.disconnect(DisconnectReason::TooSlow);
            return false;
        }
        waiting.bytes += frame.len();
        waiting.since = waiting.since.or(heard_at);
        waiting.frames.push_back(frame);
        waiting.wake();
        false
    }

    /// From now on frames are numbered, and kept for the time after this connection.
    pub fn enable_replay(&self, replay: Box<ReplayBuffer>) {
        self.0.lock_state().replay = Some(replay);
    }

    /// The client has opted in to these.
    pub fn set_features(&self, features: Features) {
        self.0.lock_state().features = features;
    }

    /// What the client has opted in to.
    pub fn features(&self) -> Features {
        self.0.lock_state().features
    }

    /// Its connection comes from there.
    pub fn set_address(&self, address: IpAddr) {
        self.0.lock_state().address = Some(address);
    }

    /// Its last call went this way.
    pub fn set_media_path(&self, path: MediaPath) {
        self.0.lock_state().path = Some(path);
    }

    /// It has answered a Ping so long after it was sent.
    pub fn record_ping_rtt(&self, within: Duration) {
        self.0.lock_state().ping_rtt = Some(within);
    }

    /// From where its connection comes and how long its last Pong took, while there is one, and by which way its last
    /// call went.
    pub fn connection_info(&self) -> (Option<IpAddr>, Option<Duration>, Option<MediaPath>) {
        let waiting = self.0.lock_state();
        let is_here = !waiting.is_detached;
        (waiting.address.filter(|_| is_here), waiting.ping_rtt.filter(|_| is_here), waiting.path)
    }

    /// Whether the client may come back once its connection is gone.
    pub fn may_resume(&self) -> bool {
        self.0.lock_state().replay.is_some()
    }

    /// The connection is gone, or is not to hear any more: frames wait for the next one.
    pub fn detach(&self) {
        let mut waiting = self.0.lock_state();
        if !std::mem::replace(&mut waiting.is_detached, true) {
            let unheard = waiting.frames.len() + waiting.unconfirmed;
            if let Some(replay) = &mut waiting.replay {
                replay.mark_undelivered(unheard);
            }
            waiting.frames = VecDeque::new();
            waiting.bytes = 0;
            waiting.direct_writer = None;
        }
    }

    /// Others are told that there is no connection; whether they did not know.
    pub fn mark_detached_reported(&self) -> bool {
        !std::mem::replace(&mut self.0.lock_state().is_detached_reported, true)
    }

    /// Whether others know that there is no connection.
    pub fn is_detached_reported(&self) -> bool {
        self.0.lock_state().is_detached_reported
    }

    /// How many frames wait for the connection, or are being written to it.
    pub fn queued(&self) -> usize {
        let waiting = self.0.lock_state();
        if waiting.is_detached { 0 } else { waiting.frames.len() + waiting.unconfirmed }
    }

    /// Whether there is no connection.
    pub fn is_detached(&self) -> bool {
        self.0.lock_state().is_detached
    }

    /// Goes on at `new`, a fresh queue, with what the client has not got after `last_seq`; says how many
    /// frames that is. This queue is over, and its connection dismissed. `key` is the membership's.
    ///
    /// # Errors
    ///
    /// [`NotResumed`]; then nothing has changed.
    pub fn resume_into(&self, new: &Self, key: u128, last_seq: u64) -> Result<usize, ResumeError> {
        let mut old = self.0.lock_state();
        let replay = old.replay.as_mut().filter(|replay| replay.key() == key);
        let replay = replay.ok_or(ResumeError::Ended)?;
        if self.0.disconnect_reason.get().is_some() {
            return Err(ResumeError::Ended);
        }
        let frames = replay.resume_after(last_seq).map_err(|ReplayGap| ResumeError::Gap)?;
        let replayed = frames.len();
        let mut fresh = new.0.lock_state();
        fresh.replay = old.replay.take();
        (fresh.features, fresh.path) = (old.features, old.path);
        fresh.bytes = frames.iter().map(|frame| frame.len()).sum();
        fresh.frames = frames;
        drop(fresh);
        old.is_closed = true;
        drop(old);
        self.disconnect(DisconnectReason::Resumed);
        Ok(replayed)
    }

    /// Which membership it is, where its client may come back to it.
    pub fn membership_key(&self) -> Option<u128> {
        let membership = self.0.lock_state().replay.as_ref().map(|replay| replay.key());
        membership.filter(|_| self.0.disconnect_reason.get().is_none())
    }

    /// Keeps what the client may not have got at `carrier`, a fresh queue without a connection. This queue is
    /// over, and its connection dismissed.
    pub fn migrate_into(&self, carrier: &Self) {
        self.detach();
        let mut old = self.0.lock_state();
        let mut fresh = carrier.0.lock_state();
        (fresh.replay, fresh.features) = (old.replay.take(), old.features);
        (fresh.is_detached, fresh.is_detached_reported) = (true, old.is_detached_reported);
        drop(fresh);
        old.is_closed = true;
        drop(old);
        self.disconnect(DisconnectReason::Resumed);
    }

    /// From now on frames are kept for a membership that is on its way here.
    pub fn expect_migration(&self) {
        self.enable_replay(Box::new(ReplayBuffer::new(AWAITING_MIGRATION)));
        self.detach();
    }

    /// What was [awaited](Self::awaits) is here: `replay`, then `news`, come before what was kept since.
    pub fn absorb_migration(
        &self,
        mut replay: Box<ReplayBuffer>,
        news: Vec<ByteString>,
        features: Features,
        is_missed: bool,
    ) {
        let mut waiting = self.0.lock_state();
        let later = waiting.replay.take().map(|later| *later);
        let is_whole = replay.append(news).is_ok()
            && later.is_none_or(|later| replay.append(later.into_frames()).is_ok());
        (waiting.replay, waiting.features) = (Some(replay), features);
        waiting.is_detached_reported = is_missed;
        drop(waiting);
        if !is_whole {
            self.disconnect(DisconnectReason::TooSlow);
        }
    }

    /// The client has got everything up to this number.
    pub fn acknowledge(&self, number: u64) {
        if let Some(replay) = &mut self.0.lock_state().replay {
            replay.acknowledge(number);
        }
    }

    /// See [`Replay::is_repeated`].
    pub fn is_duplicate_id(&self, id: &str) -> bool {
        self.0.lock_state().replay.as_ref().is_some_and(|replay| replay.is_duplicate_id(id))
    }

    /// See [`Replay::passed_on`].
    pub fn note_relayed_id(&self, id: &str) {
        if let Some(replay) = &mut self.0.lock_state().replay {
            replay.note_relayed_id(id);
        }
    }

    /// Asks the connection to end. The first reason given is the one that counts.
    pub fn disconnect(&self, why: DisconnectReason) {
        if self.0.disconnect_reason.set(why).is_ok() {
            self.0.lock_state().wake();
        }
    }
}

/// Why a client cannot go on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// There is no such membership, or no longer.
    #[error("That membership is over, or was never to be resumed")]
    Ended,
    /// It has missed frames that are no longer kept, or names one that was never sent.
    #[error("Not all that was sent after that \"last_seq\" is kept")]
    Gap,
}

/// The end of the queue that the client's own connection holds: one task, in all that it waits for.
#[derive(Debug)]
pub struct ClientQueueReader(Arc<QueueShared>);

impl ClientQueueReader {
    /// From now on what finds an empty queue goes past it.
    pub fn set_direct_writer(&mut self, shortcut: Option<Arc<dyn DirectWriter>>) {
        self.0.lock_state().direct_writer = shortcut;
    }

    /// Moves frames that wait to `frames`, as many as go well into one write; waits while there is
    /// none. Says since when the longest waits of those that are a peer's message. Safe to cancel.
    ///
    /// Nothing overtakes them: to ask again is to say that they were written.
    pub async fn recv_many(&mut self, frames: &mut Vec<ByteString>) -> Option<Instant> {
        poll_fn(|context| self.poll_recv_many(context, frames)).await
    }

    fn poll_recv_many(
        &self,
        context: &Context<'_>,
        frames: &mut Vec<ByteString>,
    ) -> Poll<Option<Instant>> {
        let mut waiting = self.0.lock_state();
        waiting.unconfirmed = 0;
        if waiting.frames.is_empty() {
            waiting.register_reader(context.waker());
            return Poll::Pending;
        }
        let taken = waiting.frames.len().min(MAX_BATCH_FRAMES);
        waiting.unconfirmed = taken;
        frames.extend((0..taken).map_while(|_| waiting.pop()));
        let since = waiting.since.take();
        if waiting.frames.is_empty() && waiting.frames.capacity() > IDLE_CAPACITY {
            waiting.frames = VecDeque::new();
        }
        Poll::Ready(since)
    }

    /// What is to be kept of a client that is away, for another process, and what it has opted in to. From
    /// now on nothing is kept here.
    pub fn take_replay(&self) -> Option<(Box<ReplayBuffer>, Features)> {
        let mut waiting = self.0.lock_state();
        let features = waiting.features;
        waiting.replay.take().map(|replay| (replay, features))
    }

    /// How many bytes of frames are kept for a client that may come back.
    pub fn replay_bytes(&self) -> usize {
        self.0.lock_state().replay.as_ref().map_or(0, |replay| replay.bytes())
    }

    /// A frame that already waits, if there is one.
    pub fn try_recv(&mut self) -> Option<ByteString> {
        self.0.lock_state().pop()
    }

    /// Something to wait on for the dismissal, also while the mailbox itself is in use; in the same task.
    pub fn disconnect_signal(&self) -> DisconnectSignal {
        DisconnectSignal(self.0.clone())
    }
}

impl Drop for ClientQueueReader {
    fn drop(&mut self) {
        *self.0.lock_state() = QueueState { is_closed: true, ..QueueState::default() };
    }
}

/// Tells a connection that it was asked to end.
#[derive(Clone, Debug)]
pub struct DisconnectSignal(Arc<QueueShared>);

impl DisconnectSignal {
    /// Waits until somebody dismisses the client. Safe to cancel.
    pub async fn disconnected(&self) -> DisconnectReason {
        poll_fn(|context| {
            self.register_waker(context.waker());
            self.reason().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Why the client was dismissed, if it was.
    pub fn reason(&self) -> Option<DisconnectReason> {
        self.0.disconnect_reason.get().copied()
    }

    /// From now on the dismissal wakes this task, as a frame does. Look for it after that.
    pub fn register_waker(&self, reader: &Waker) {
        self.0.lock_state().register_reader(reader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_that_holds_too_many_frames_ends_the_connection() {
        let (outbox, mailbox) = channel();

        for _ in 0..=MAX_FRAMES {
            outbox.push("x".into(), None);
        }

        assert_eq!(mailbox.disconnect_signal().disconnected().await, DisconnectReason::TooSlow);
    }

    #[tokio::test]
    async fn a_queue_that_holds_too_many_bytes_ends_the_connection() {
        let (outbox, mailbox) = channel();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..=MAX_BYTES / megabyte.len() {
            outbox.push(megabyte.clone(), None);
        }

        assert_eq!(mailbox.disconnect_signal().disconnected().await, DisconnectReason::TooSlow);
    }

    /// A shortcut that takes everything.
    struct Open;

    impl DirectWriter for Open {
        fn try_send(&self, _: &ByteString) -> WriteOutcome {
            WriteOutcome::Complete
        }
    }

    #[test]
    fn nothing_goes_past_what_waits_or_was_taken_and_may_not_be_written_yet() {
        let (outbox, mut mailbox) = channel();
        let mut took = Vec::new();
        let context = Context::from_waker(Waker::noop());

        assert!(!outbox.push("before there is a way".into(), None));
        mailbox.set_direct_writer(Some(Arc::new(Open)));
        assert!(!outbox.push("behind it".into(), None));
        assert!(mailbox.poll_recv_many(&context, &mut took).is_ready());
        assert!(!outbox.push("while those are being written".into(), None));
        assert!(mailbox.poll_recv_many(&context, &mut took).is_ready());
        assert!(mailbox.poll_recv_many(&context, &mut took).is_pending());
        assert!(outbox.push("past".into(), None));

        assert_eq!(
            took,
            ["before there is a way", "behind it", "while those are being written"]
                .map(ByteString::from)
        );
    }

    #[test]
    fn debug_output_says_how_much_waits_and_not_what() {
        let (outbox, mailbox) = channel();

        outbox.push("v=0 the payload".into(), None);

        let shown = format!("{outbox:?} {mailbox:?} {:?}", mailbox.disconnect_signal());
        assert!(shown.contains("frames: 1") && !shown.contains("payload"), "{shown}");
    }

    #[tokio::test]
    async fn what_was_read_no_longer_counts() {
        let (outbox, mut mailbox) = channel();
        let megabyte = ByteString::from("x".repeat(1024 * 1024));

        for _ in 0..MAX_FRAMES * 2 {
            outbox.push(megabyte.clone(), None);
            mailbox.try_recv().unwrap();
        }
        outbox.disconnect(DisconnectReason::Replaced);

        assert_eq!(mailbox.disconnect_signal().disconnected().await, DisconnectReason::Replaced);
    }
}
