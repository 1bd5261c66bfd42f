//! The frames that a client which may resume has been sent and may not have received, and the ids of the frames
//! that were relayed for it. Pure.

use std::collections::VecDeque;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::deferred::DeferredFrames;

/// The most frames that are kept for one client: several full meshes of ten that are set up at once.
pub const REPLAY_MAX_FRAMES: usize = 1024;

/// The most bytes that are kept for one client.
pub const REPLAY_MAX_BYTES: usize = 1024 * 1024;

/// How many ids of relayed frames are kept for one client: more than it can have had in flight.
const MAX_RELAYED_IDS: usize = 256;

/// An empty buffer keeps room for this many frames: enough for a member of a quiet room.
const IDLE_CAPACITY: usize = 4;

/// What a frame takes beside its bytes: its places in the queues, its count of references, and what the allocator adds.
pub(super) const FRAME_OVERHEAD: usize = 128;

/// What a deferred frame takes beside its bytes: as much, and whom it is about.
const DEFERRED_OVERHEAD: usize = 256;

/// What an id takes beside its bytes.
const ID_OVERHEAD: usize = 48;

/// The frames of one membership that its client may not have received, independent of the connections that carry
/// them. A frame gets its number when it is sent; those that came while there was no connection have none yet.
#[derive(Clone, Deserialize, Serialize)]
#[serde(from = "SavedReplay", into = "SavedReplay")]
pub struct ReplayBuffer {
    /// Identifies the membership among all, also among those of the same client.
    key: u128,
    /// The frames that were sent and not acknowledged, the newest last. They are stored without their sequence
    /// numbers, since all receivers share them.
    sent: VecDeque<ByteString>,
    sent_bytes: usize,
    /// The sequence number of the last frame that was sent; the first has 1.
    last_seq: u64,
    /// How many of the last frames in `sent` may have been written to no connection; 0 while there is one.
    unwritten: usize,
    /// The frames that came while there was no connection.
    deferred: DeferredFrames,
    /// The `id`s of the frames that were relayed for the client, the newest last.
    relayed_ids: VecDeque<String>,
    /// How many of those are from before its last resume.
    relayed_before_resume: usize,
    /// What those ids take; not of those that came from another process.
    relayed_id_bytes: usize,
}

/// A [`ReplayBuffer`] as other processes read it, also those of earlier versions, which number all frames.
#[derive(Deserialize, Serialize)]
struct SavedReplay {
    key: u128,
    frames: VecDeque<ByteString>,
    bytes: usize,
    last: u64,
    /// The sequence number of the first frame that was written to no connection.
    unheard: Option<u64>,
    said: VecDeque<String>,
    said_before: usize,
    /// How many of the last frames have no number yet.
    #[serde(default)]
    deferred: usize,
}

/// Frames that the client has not received are no longer kept: it can only join again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayGap;

/// Why a client cannot resume its membership. The text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// There is no such membership, or no longer.
    #[error("That membership is over, or was never to be resumed")]
    Ended,
    /// The client has missed frames that are no longer kept, or names one that was never sent.
    #[error("Not all that was sent after that \"last_seq\" is kept")]
    Gap,
}

impl ReplayBuffer {
    /// The buffer of a new membership.
    pub fn new(key: u128) -> Self {
        Self {
            key,
            sent: VecDeque::new(),
            sent_bytes: 0,
            last_seq: 0,
            unwritten: 0,
            deferred: DeferredFrames::default(),
            relayed_ids: VecDeque::new(),
            relayed_before_resume: 0,
            relayed_id_bytes: 0,
        }
    }

    /// The key of the membership.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// The sequence number that the next frame gets.
    pub fn next_seq(&self) -> u64 {
        self.last_seq.saturating_add(1)
    }

    /// Keeps a frame that is sent now, with the number [`next_seq`](Self::next_seq). The oldest frames make room for
    /// it: a client that never acknowledges can only resume after what is still kept.
    pub fn push_sent(&mut self, frame: ByteString) {
        self.last_seq = self.next_seq();
        self.sent_bytes += frame.len();
        self.sent.push_back(frame);
        while self.is_over_limit() && !self.sent.is_empty() {
            self.drop_first();
        }
    }

    /// Keeps a frame for a client that has no connection.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`] where more is kept than may be, and all of it was written to no connection.
    pub fn defer(&mut self, frame: ByteString) -> Result<(), ReplayGap> {
        self.deferred.push(frame);
        while self.is_over_limit() {
            if self.sent.len() <= self.unwritten {
                return Err(ReplayGap);
            }
            self.drop_first();
        }
        Ok(())
    }

    /// How many bytes of frames are kept.
    pub fn bytes(&self) -> usize {
        self.sent_bytes + self.deferred.bytes()
    }

    /// How many bytes all of it takes.
    pub(super) fn held_bytes(&self) -> usize {
        let overhead = self.sent.len() * FRAME_OVERHEAD + self.deferred.len() * DEFERRED_OVERHEAD;
        self.bytes() + overhead + self.relayed_id_bytes
    }

    /// Whether the client has acknowledged every frame.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.deferred.len() == 0
    }

    /// The client has received every frame up to this sequence number.
    pub fn acknowledge(&mut self, seq: u64) {
        while !self.sent.is_empty() && self.first_seq() <= seq {
            self.drop_first();
        }
        if self.sent.is_empty() && self.sent.capacity() > IDLE_CAPACITY {
            self.sent = VecDeque::new();
        }
    }

    /// The connection has ended, and the last `count` frames that were sent may not have been written to it.
    pub fn mark_unwritten(&mut self, count: usize) {
        self.unwritten = count.min(self.sent.len());
    }

    /// The client has a connection again, and has received every frame up to `last_seq`: returns the frames to send
    /// next. `queued` are those that waited for its connection before, where that is still open.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`], also where `last_seq` was never sent; then nothing has changed.
    pub fn resume_after(
        &mut self,
        last_seq: u64,
        queued: &mut VecDeque<ByteString>,
    ) -> Result<VecDeque<ByteString>, ReplayGap> {
        if last_seq > self.last_seq || last_seq.saturating_add(1) < self.first_seq() {
            return Err(ReplayGap);
        }
        let missed = usize::try_from(self.last_seq - last_seq).map_err(|_| ReplayGap)?;
        let unsent = self.deferred.len() + queued.len();
        let unsent_bytes =
            self.deferred.bytes() + queued.iter().map(|frame| frame.len()).sum::<usize>();
        let missed_bytes: usize =
            self.sent.iter().rev().take(missed).map(|frame| frame.len()).sum();
        if missed + unsent > REPLAY_MAX_FRAMES || missed_bytes + unsent_bytes > REPLAY_MAX_BYTES {
            return Err(ReplayGap);
        }
        self.acknowledge(last_seq);
        // No connection has carried them to the client: they are numbered anew, alike, when they are sent again.
        let mut frames = std::mem::take(&mut self.sent);
        frames.extend(std::mem::take(&mut self.deferred).into_frames());
        frames.append(queued);
        (self.sent_bytes, self.unwritten, self.last_seq) = (0, 0, last_seq);
        self.relayed_before_resume = self.relayed_ids.len();
        Ok(frames)
    }

    /// Appends the frames that another server kept while this buffer migrated to it.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`], as for a single [`defer`](Self::defer).
    pub fn append(&mut self, later: impl IntoIterator<Item = ByteString>) -> Result<(), ReplayGap> {
        later.into_iter().try_for_each(|frame| self.defer(frame))
    }

    /// All frames that are kept.
    pub fn into_frames(self) -> impl Iterator<Item = ByteString> {
        self.sent.into_iter().chain(self.deferred.into_frames())
    }

    /// Whether a frame with this `id` was relayed before the client's last resume.
    pub fn is_duplicate_id(&self, id: &str) -> bool {
        self.relayed_ids.iter().take(self.relayed_before_resume).any(|relayed| relayed == id)
    }

    /// Records that a frame with this `id` was relayed.
    pub fn note_relayed_id(&mut self, id: &str) {
        if self.relayed_ids.len() == MAX_RELAYED_IDS {
            let oldest = self.relayed_ids.pop_front();
            let freed = oldest.map_or(0, |id| ID_OVERHEAD + id.len());
            self.relayed_id_bytes = self.relayed_id_bytes.saturating_sub(freed);
            self.relayed_before_resume = self.relayed_before_resume.saturating_sub(1);
        }
        self.relayed_id_bytes += ID_OVERHEAD + id.len();
        self.relayed_ids.push_back(id.to_owned());
    }

    /// A frame with this `id` may not have arrived after all, and may be sent again.
    pub fn forget_relayed_id(&mut self, id: &str) {
        if let Some(index) = self.relayed_ids.iter().rposition(|relayed| relayed == id) {
            self.relayed_ids.remove(index);
            if index < self.relayed_before_resume {
                self.relayed_before_resume -= 1;
            }
        }
    }

    /// The sequence number of the oldest frame that was sent and is kept, or of the next frame where none is.
    fn first_seq(&self) -> u64 {
        self.next_seq().saturating_sub(self.sent.len() as u64)
    }

    fn is_over_limit(&self) -> bool {
        self.sent.len() + self.deferred.len() > REPLAY_MAX_FRAMES || self.bytes() > REPLAY_MAX_BYTES
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.sent.pop_front() {
            self.sent_bytes = self.sent_bytes.saturating_sub(frame.len());
        }
    }
}

impl From<ReplayBuffer> for SavedReplay {
    fn from(replay: ReplayBuffer) -> Self {
        let deferred = replay.deferred.len();
        let unheard = replay.next_seq().saturating_sub(replay.unwritten as u64);
        Self {
            key: replay.key,
            bytes: replay.bytes(),
            last: replay.last_seq.saturating_add(deferred as u64),
            unheard: Some(unheard),
            said: replay.relayed_ids.clone(),
            said_before: replay.relayed_before_resume,
            deferred,
            frames: replay.into_frames().collect(),
        }
    }
}

impl From<SavedReplay> for ReplayBuffer {
    fn from(saved: SavedReplay) -> Self {
        let SavedReplay { key, mut frames, last, unheard, said, said_before, deferred, bytes: _ } =
            saved;
        let unsent = frames.split_off(frames.len().saturating_sub(deferred));
        let last_seq = last.saturating_sub(unsent.len() as u64);
        let unwritten =
            unheard.map_or(0, |unheard| last_seq.saturating_add(1).saturating_sub(unheard));
        let mut replay = Self {
            last_seq,
            sent_bytes: frames.iter().map(|frame| frame.len()).sum(),
            unwritten: usize::try_from(unwritten).unwrap_or(usize::MAX).min(frames.len()),
            sent: frames,
            relayed_ids: said,
            relayed_before_resume: said_before,
            ..Self::new(key)
        };
        unsent.into_iter().for_each(|frame| replay.deferred.push(frame));
        replay
    }
}

#[cfg(test)]
mod tests;
