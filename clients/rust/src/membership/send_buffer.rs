//! Outgoing frames that may have to be sent, or sent again.

use std::collections::VecDeque;

use crate::{
    events::Error,
    membership::frame::{Frame, size_error},
};

/// How many frames are kept; beyond that the oldest is dropped.
const MAX_FRAMES: usize = 200;

/// The frames that are unsent, or sent and neither confirmed by a pong nor refused.
///
/// Each carries an `id`. The server discards a frame whose id it has already relayed, so a frame may be sent
/// again after a resume.
#[derive(Default)]
pub(super) struct SendBuffer {
    /// With their ids, which increase.
    frames: VecDeque<(u64, Frame)>,
    last_id: u64,
    /// The id of the last frame that the awaited pong will confirm.
    pinged: Option<u64>,
}

impl SendBuffer {
    /// Numbers a frame, keeps it, and returns it as it is to be sent. [`Error::TooBig`] if it is longer than `max`.
    pub fn push(&mut self, mut frame: Frame, max: Option<usize>) -> Result<Frame, Error> {
        frame.insert("id".to_owned(), (self.last_id + 1).into());
        if let Some(error) = size_error(&frame, max) {
            return Err(error);
        }
        self.last_id += 1;
        self.frames.push_back((self.last_id, frame.clone()));
        if self.frames.len() > MAX_FRAMES {
            self.frames.pop_front();
        }
        Ok(frame)
    }

    /// The kept frames, oldest first.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.iter().map(|(_, frame)| frame.clone()).collect()
    }

    /// Whether a ping was sent on this socket and not answered yet.
    pub fn is_pong_awaited(&self) -> bool {
        self.pinged.is_some()
    }

    /// The next pong will confirm all frames that are kept now.
    pub fn mark_pinged(&mut self) {
        self.pinged = Some(self.last_id);
    }

    /// Removes a frame that the server has refused: after a resume it would arrive, late and behind those that followed it.
    pub fn refuse(&mut self, refused: u64) {
        self.frames.retain(|(id, _)| *id != refused);
    }

    /// Removes the frames that were kept at the time of the ping: they have arrived.
    pub fn confirm_pinged(&mut self) {
        let confirmed = self.pinged.take().unwrap_or_default();
        self.frames.retain(|(id, _)| *id > confirmed);
    }

    /// No pong is awaited any more: the ping belonged to another socket.
    pub fn forget_ping(&mut self) {
        self.pinged = None;
    }

    /// Removes the frames that are longer than `max`, and returns an error for each. No pong may be awaited.
    pub fn remove_larger(&mut self, max: Option<usize>) -> Vec<Error> {
        let mut errors = Vec::new();
        self.frames.retain(|(_, frame)| {
            let error = size_error(frame, max);
            let is_kept = error.is_none();
            errors.extend(error);
            is_kept
        });
        errors
    }

    pub fn clear(&mut self) {
        self.frames.clear();
    }
}
