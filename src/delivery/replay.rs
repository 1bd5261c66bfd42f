//! The frames that a client which may resume has been sent and may not have received, and the ids of the frames
//! that were relayed for it. Pure.

use std::collections::VecDeque;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// The most frames that are kept for one client: several full meshes of ten that are set up at once.
pub const REPLAY_MAX_FRAMES: usize = 1024;

/// The most bytes that are kept for one client.
pub const REPLAY_MAX_BYTES: usize = 1024 * 1024;

/// How many ids of relayed frames are kept for one client: more than it can have had in flight.
const MAX_RELAYED_IDS: usize = 256;

/// The numbered frames of one membership, independent of the connections that carry them.
#[derive(Clone, Deserialize, Serialize)]
pub struct ReplayBuffer {
    /// Identifies the membership among all, also among those of the same client.
    key: u128,
    /// The frames that were not acknowledged, the newest last. They are stored without their sequence numbers, since
    /// all receivers share them.
    frames: VecDeque<ByteString>,
    bytes: usize,
    /// The sequence number of the newest frame; the first has 1.
    #[serde(rename = "last")]
    last_seq: u64,
    /// The sequence number of the first frame that was written to no connection; `None` while there is a connection.
    #[serde(rename = "unheard")]
    first_undelivered: Option<u64>,
    /// The `id`s of the frames that were relayed for the client, the newest last.
    #[serde(rename = "said")]
    relayed_ids: VecDeque<String>,
    /// How many of those are from before its last resume.
    #[serde(rename = "said_before")]
    relayed_before_resume: usize,
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
            frames: VecDeque::new(),
            bytes: 0,
            last_seq: 0,
            first_undelivered: None,
            relayed_ids: VecDeque::new(),
            relayed_before_resume: 0,
        }
    }

    /// The key of the membership.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// Keeps a frame, and returns its sequence number.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`] where it fits only if a frame is dropped that was written to no connection.
    pub fn push(&mut self, frame: ByteString) -> Result<u64, ReplayGap> {
        self.last_seq = self.last_seq.saturating_add(1);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > REPLAY_MAX_FRAMES || self.bytes > REPLAY_MAX_BYTES {
            if self.first_undelivered.is_some_and(|seq| self.first_seq() >= seq) {
                return Err(ReplayGap);
            }
            self.drop_first();
        }
        Ok(self.last_seq)
    }

    /// The sequence number of the newest frame.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// How many bytes of frames are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client has received every frame up to this sequence number.
    pub fn acknowledge(&mut self, seq: u64) {
        while !self.frames.is_empty() && self.first_seq() <= seq {
            self.drop_first();
        }
    }

    /// The connection has ended, and the last `count` frames were not written to it.
    pub fn mark_undelivered(&mut self, count: usize) {
        let next = self.next_seq();
        self.first_undelivered.get_or_insert(next.saturating_sub(count as u64));
    }

    /// The client has a connection again, and has received every frame up to `last_seq`: returns the frames to send
    /// first.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`], also where `last_seq` was never sent; then nothing has changed.
    pub fn resume_after(&mut self, last_seq: u64) -> Result<VecDeque<ByteString>, ReplayGap> {
        if last_seq > self.last_seq || last_seq.saturating_add(1) < self.first_seq() {
            return Err(ReplayGap);
        }
        self.acknowledge(last_seq);
        self.first_undelivered = None;
        self.relayed_before_resume = self.relayed_ids.len();
        Ok(self.frames.clone())
    }

    /// Appends the frames that another server kept while this buffer migrated to it.
    ///
    /// # Errors
    ///
    /// [`ReplayGap`], as for a single [`push`](Self::push).
    pub fn append(&mut self, later: impl IntoIterator<Item = ByteString>) -> Result<(), ReplayGap> {
        later.into_iter().try_for_each(|frame| self.push(frame).map(drop))
    }

    /// All frames that are kept.
    pub fn into_frames(self) -> VecDeque<ByteString> {
        self.frames
    }

    /// Whether a frame with this `id` was relayed before the client's last resume.
    pub fn is_duplicate_id(&self, id: &str) -> bool {
        self.relayed_ids.iter().take(self.relayed_before_resume).any(|relayed| relayed == id)
    }

    /// Records that a frame with this `id` was relayed.
    pub fn note_relayed_id(&mut self, id: &str) {
        if self.relayed_ids.len() == MAX_RELAYED_IDS {
            self.relayed_ids.pop_front();
            self.relayed_before_resume = self.relayed_before_resume.saturating_sub(1);
        }
        self.relayed_ids.push_back(id.to_owned());
    }

    /// The sequence number of the oldest frame that is kept, or of the next frame where none is.
    fn first_seq(&self) -> u64 {
        self.next_seq().saturating_sub(self.frames.len() as u64)
    }

    fn next_seq(&self) -> u64 {
        self.last_seq.saturating_add(1)
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes = self.bytes.saturating_sub(frame.len());
        }
    }
}

#[cfg(test)]
mod tests;
