//! The signal by which others end a client's connection, and its reasons.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use super::queue_state::QueueShared;

/// Why a client's connection is ended by another task than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// Its send queue or replay buffer overflowed: it reads more slowly than its room sends.
    TooSlow,
    /// The same user took over its client id from another connection.
    Replaced,
    /// The client resumed its membership on a newer connection, here or on another server.
    Resumed,
    /// Its access token was logged out.
    LoggedOut,
    /// The password of its account was changed.
    PasswordChanged,
    /// Its account was removed or disabled.
    AccountGone,
    /// An administrator removed the member.
    Removed,
}

/// Tells a connection that it is to end.
#[derive(Clone, Debug)]
pub struct DisconnectSignal(pub(super) Arc<QueueShared>);

impl DisconnectSignal {
    /// Waits until the client is disconnected. Safe to cancel.
    pub async fn disconnected(&self) -> DisconnectReason {
        poll_fn(|context| {
            self.register_waker(context.waker());
            self.reason().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Why the client is to be disconnected; `None` while it is not.
    pub fn reason(&self) -> Option<DisconnectReason> {
        self.0.disconnect_reason()
    }

    /// Whether the connection is to end because too much memory is held, while its client may resume.
    pub fn is_shed(&self) -> bool {
        self.0.is_shed()
    }

    /// Has this task woken by a disconnect, as by a frame. Check [`reason`](Self::reason) after the call.
    pub fn register_waker(&self, reader: &Waker) {
        self.0.lock_state().register_reader(reader);
    }
}
