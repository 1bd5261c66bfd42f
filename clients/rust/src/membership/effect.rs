//! The inputs of a membership, and the effects that it asks for.

use std::time::Duration;

use crate::events::{Error, Event};

/// The time of an input, and a random number for the decisions that follow from it.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// Since the membership was created.
    pub now: Duration,
    /// From 0 up to, but not including, 1; a new one for each input.
    pub random: f64,
}

/// What a token is requested for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenPurpose {
    /// To join the room on the socket that is open.
    Join,
    /// To replace a token that is about to expire.
    Refresh,
}

/// Something that happened outside the membership.
pub(crate) enum Input {
    /// The server has sent a text frame.
    Received(String),
    /// The socket is closed; 1006 if there was no Close frame.
    SocketClosed { code: u16, reason: String },
    /// The server answered the WebSocket handshake with this HTTP status.
    UpgradeRefused(u16),
    /// The answer to [`Effect::RequestToken`], with its lifetime from the issue on if the token states it. A
    /// guest has no token. [`Error::Closed`] if there will never be one.
    Token(TokenPurpose, Result<(Option<String>, Option<Duration>), Error>),
    /// The time that `next_wakeup` named has come.
    Wakeup,
    /// The program leaves the room.
    Leave,
}

/// An action for the driver, to be carried out in order.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Effect {
    /// Open a socket in place of the previous one.
    OpenSocket,
    /// Send this text on the socket.
    SendText(String),
    /// Drop the socket without a Close frame, which would mean leaving the room.
    AbandonSocket,
    /// Request a token, a new one if the flag is set; replaces an earlier request.
    RequestToken(TokenPurpose, bool),
    /// Deliver an event to the program.
    Emit(Event),
    /// Send a Close frame if there is a socket. No effect follows.
    Close,
}
