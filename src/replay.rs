//! What a client that may resume has been sent and may not have got, and what it has said already. Pure.

use std::collections::VecDeque;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// Frames that are kept for one client: several full meshes of ten being set up at once.
pub const MAX_FRAMES: usize = 1024;

/// Bytes that are kept for one client.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How many `id`s of what was passed on for a client are known: more than it can have had on the way.
const MAX_IDS: usize = 256;

/// One membership's numbered frames, beyond the connections that carried them.
#[derive(Clone, Deserialize, Serialize)]
pub struct ReplayBuffer {
    /// Tells this membership from all others, also of the same client.
    key: u128,
    /// Those that were not acknowledged, the newest last; without their numbers, as all who hear them share
    /// them.
    frames: VecDeque<ByteString>,
    bytes: usize,
    /// The number of the newest frame; the first has 1.
    last: u64,
    /// The first frame that no connection has had; `None` while there is a connection.
    unheard: Option<u64>,
    /// The `id`s of what was passed on for the client, the newest last.
    said: VecDeque<String>,
    /// How many of those it said before it resumed.
    said_before: usize,
}

/// Frames that the client has not got are gone: it can only begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayGap;

impl ReplayBuffer {
    /// Of a new membership.
    pub fn new(key: u128) -> Self {
        let (frames, said) = (VecDeque::new(), VecDeque::new());
        Self { key, frames, bytes: 0, last: 0, unheard: None, said, said_before: 0 }
    }

    /// Which membership it is.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// Keeps a frame, and says its number.
    ///
    /// # Errors
    ///
    /// [`Gap`] when there is no room for it but by forgetting what no connection has had.
    pub fn push(&mut self, frame: ByteString) -> Result<u64, ReplayGap> {
        self.last = self.last.saturating_add(1);
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > MAX_FRAMES || self.bytes > MAX_BYTES {
            if self.unheard.is_some_and(|unheard| self.first_seq() >= unheard) {
                return Err(ReplayGap);
            }
            self.drop_first();
        }
        Ok(self.last)
    }

    /// The number of the newest frame.
    pub fn last_seq(&self) -> u64 {
        self.last
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client has got everything up to this number.
    pub fn acknowledge(&mut self, number: u64) {
        while !self.frames.is_empty() && self.first_seq() <= number {
            self.drop_first();
        }
    }

    /// There is no connection any more, and it has not had the last `waiting` frames.
    pub fn mark_undelivered(&mut self, waiting: usize) {
        let next = self.next_seq();
        self.unheard.get_or_insert(next.saturating_sub(waiting as u64));
    }

    /// There is a connection again, of a client that has got everything up to this number: what it is
    /// to hear first.
    ///
    /// # Errors
    ///
    /// [`Gap`], also where so much was never sent; then nothing has changed.
    pub fn resume_after(&mut self, number: u64) -> Result<VecDeque<ByteString>, ReplayGap> {
        if number > self.last || number.saturating_add(1) < self.first_seq() {
            return Err(ReplayGap);
        }
        self.acknowledge(number);
        self.unheard = None;
        self.said_before = self.said.len();
        Ok(self.frames.clone())
    }

    /// Goes on with what was noted elsewhere while this was on its way there: its frames come behind these.
    ///
    /// # Errors
    ///
    /// [`Gap`] as for a single [note](Self::note).
    pub fn append(&mut self, later: impl IntoIterator<Item = ByteString>) -> Result<(), ReplayGap> {
        later.into_iter().try_for_each(|frame| self.push(frame).map(drop))
    }

    /// All that is kept.
    pub fn into_frames(self) -> VecDeque<ByteString> {
        self.frames
    }

    /// Whether something with this `id` was passed on already, before the client resumed.
    pub fn is_duplicate_id(&self, id: &str) -> bool {
        self.said.iter().take(self.said_before).any(|said| said == id)
    }

    /// Something with this `id` was passed on.
    pub fn note_relayed_id(&mut self, id: &str) {
        if self.said.len() == MAX_IDS {
            self.said.pop_front();
            self.said_before = self.said_before.saturating_sub(1);
        }
        self.said.push_back(id.to_owned());
    }

    /// The number of the oldest frame that is kept, or of the next where none is.
    fn first_seq(&self) -> u64 {
        self.next_seq().saturating_sub(self.frames.len() as u64)
    }

    fn next_seq(&self) -> u64 {
        self.last.saturating_add(1)
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes = self.bytes.saturating_sub(frame.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(frames: &VecDeque<ByteString>) -> Vec<u64> {
        frames.iter().map(|frame| frame.parse().unwrap()).collect()
    }

    /// Each frame says its number.
    fn with(count: usize) -> ReplayBuffer {
        let mut replay = ReplayBuffer::new(1);
        for number in 1..=count {
            assert_eq!(replay.push(number.to_string().into()), Ok(number as u64));
        }
        replay
    }

    #[test]
    fn exactly_what_comes_after_the_last_that_was_got_is_heard_again() {
        for got in 0..=5 {
            let mut replay = with(5);

            assert_eq!(numbers(&replay.resume_after(got).unwrap()), Vec::from_iter(got + 1..=5));
            assert_eq!(replay.push("6".into()), Ok(6));
        }
    }

    #[test]
    fn what_was_acknowledged_is_no_longer_kept_and_never_heard_again() {
        let mut replay = with(5);

        replay.acknowledge(3);

        assert_eq!(replay.frames.len(), 2);
        assert_eq!(replay.resume_after(2), Err(ReplayGap));
        assert_eq!(numbers(&replay.resume_after(3).unwrap()), [4, 5]);
        replay.acknowledge(u64::MAX);
        assert_eq!((replay.frames.len(), replay.bytes), (0, 0));
        assert_eq!(numbers(&replay.resume_after(5).unwrap()), [] as [u64; 0]);
    }

    #[test]
    fn nobody_has_got_what_was_never_sent() {
        let mut replay = with(5);

        assert_eq!(replay.resume_after(6), Err(ReplayGap));
        assert_eq!(replay.resume_after(u64::MAX), Err(ReplayGap));
    }

    #[test]
    fn somebody_who_never_acknowledges_costs_a_bounded_amount() {
        let mut replay = with(MAX_FRAMES + 10);
        assert_eq!(replay.frames.len(), MAX_FRAMES);
        assert_eq!(replay.resume_after(9), Err(ReplayGap));
        assert_eq!(replay.resume_after(10).unwrap().len(), MAX_FRAMES);

        let large = ByteString::from("x".repeat(MAX_BYTES / 4));
        for _ in 0..10 {
            replay.push(large.clone()).unwrap();
            assert!(replay.bytes <= MAX_BYTES);
        }
    }

    #[test]
    fn a_client_that_is_away_misses_nothing_or_is_given_up() {
        let mut replay = with(100);
        replay.mark_undelivered(3);

        // What it has had makes room for what it has not.
        for _ in 0..MAX_FRAMES - 3 {
            replay.push("news".into()).unwrap();
        }

        assert_eq!(replay.push("one too many".into()), Err(ReplayGap));
    }

    #[test]
    fn what_was_noted_elsewhere_meanwhile_comes_behind() {
        let (mut replay, mut later) = (with(3), ReplayBuffer::new(0));
        replay.mark_undelivered(1);
        for number in 4..=5 {
            later.push(number.to_string().into()).unwrap();
        }

        assert_eq!(replay.append(later.into_frames()), Ok(()));

        assert_eq!((replay.key(), replay.last_seq()), (1, 5));
        assert_eq!(numbers(&replay.resume_after(2).unwrap()), [3, 4, 5]);
    }

    #[test]
    fn an_id_is_a_repetition_only_after_the_client_has_resumed() {
        let mut replay = with(0);
        for id in ["1", "1"] {
            assert!(!replay.is_duplicate_id(id));
            replay.note_relayed_id(id);
        }

        replay.resume_after(0).unwrap();

        assert!(replay.is_duplicate_id("1") && !replay.is_duplicate_id("2"));
        replay.note_relayed_id("2");
        assert!(!replay.is_duplicate_id("2"));
        for number in 0..MAX_IDS {
            replay.note_relayed_id(&format!("many {number}"));
        }
        assert_eq!((replay.said.len(), replay.is_duplicate_id("1")), (MAX_IDS, false));
    }
}
