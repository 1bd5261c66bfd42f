//! The end of a connection: its reason, its last frames, and what is logged and counted.

use std::{net::IpAddr, time::Duration};

use strum::IntoEnumIterator;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{AuthError, detached::NOT_RESUMED_IN_TIME};
use crate::{
    delivery::DisconnectReason,
    limits::{RefusalKind, log_refusal_in_span},
    metrics::Metrics,
    moderation::EntryDenied,
    protocol::{CloseInfo, CloseReason, ServerMessage},
    rooms::JoinError,
    websocket::{ConnectionLost, Socket},
};

/// How long a client may take to read the last frames and to close its side.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// After which time clients come back that were refused because too much memory is held: this long in milliseconds, and a
/// random part of the other.
const OVERLOAD_RETRY_MS: u64 = 1000;
const OVERLOAD_RETRY_SPREAD: Duration = Duration::from_secs(4);

/// Registers in `metrics` every reason with which a session may end. Call it once, before the first session.
pub fn preregister_metrics(metrics: &Metrics) {
    for reason in CloseReason::iter() {
        metrics
            .preregister_session_end(reason.as_str(), reason.info().frame.map(|frame| frame.code));
        metrics.preregister_leave(reason.as_str());
    }
    metrics.preregister_leave(NOT_RESUMED_IN_TIME);
}

/// Sends the last frames and waits until the client has closed its side, [`CLOSE_TIMEOUT`] at most.
pub(super) async fn close(
    socket: &mut impl Socket,
    reason: CloseReason,
    was_member: bool,
    metrics: &Metrics,
) {
    let closing = async {
        let CloseInfo { frame, code, sentence, is_sent_before_auth, retry, .. } = reason.info();
        if let Some(frame) = frame {
            let mut retry_after_ms = None;
            if let CloseReason::Restarting(within) = reason {
                let reconnect_in_ms = random_delay_ms(within);
                retry_after_ms = Some(reconnect_in_ms);
                socket.send(&[ServerMessage::ServerShutdown { reconnect_in_ms }.encode()]).await?;
            }
            if let CloseReason::TooManyJoins(wait) = reason {
                retry_after_ms = Some(whole_ms(wait));
            }
            if reason == CloseReason::Overloaded {
                retry_after_ms = Some(OVERLOAD_RETRY_MS + random_delay_ms(OVERLOAD_RETRY_SPREAD));
            }
            if was_member || is_sent_before_auth {
                let error = ServerMessage::Error {
                    message: sentence,
                    code,
                    id: None,
                    retry: Some(retry),
                    retry_after_ms,
                    max_message_bytes: None,
                };
                metrics.record_error(code);
                socket.send(&[error.encode()]).await?;
            }
            metrics.record_close(frame.code);
            socket.close(frame.code, frame.reason).await?;
        }
        // Closing a socket with unread data resets the connection, and the Close frame may be lost on the way.
        while socket.receive().await.is_some() {}
        Ok::<_, ConnectionLost>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// In milliseconds, rounded up: a client that waits so long has waited long enough.
pub(super) fn whole_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// A random time within the given one, in milliseconds, so that clients do not return all at once.
fn random_delay_ms(within: Duration) -> u64 {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    Uuid::new_v4().as_u64_pair().1 % within
}

/// Logs that a connection from `address` was refused before it became a member, in the span of its handshake.
pub(super) fn log_rejection(reason: CloseReason, address: IpAddr) {
    // A blocked client could fill the log; its failed attempts were logged before.
    let is_quiet = reason.info().frame.is_none() || reason == CloseReason::Blocked;
    let reason = reason.as_str();
    if is_quiet {
        tracing::debug!(reason, "not let in");
    } else {
        log_refusal_in_span(RefusalKind::Connection(reason), address, Instant::now());
    }
}

impl From<DisconnectReason> for CloseReason {
    fn from(reason: DisconnectReason) -> Self {
        match reason {
            DisconnectReason::TooSlow => Self::TooSlow,
            DisconnectReason::Replaced | DisconnectReason::Resumed => Self::Replaced,
            DisconnectReason::LoggedOut => Self::LoggedOut,
            DisconnectReason::PasswordChanged => Self::PasswordChanged,
            DisconnectReason::AccountGone => Self::AccountDisabled,
            DisconnectReason::Removed => Self::Removed,
        }
    }
}

impl From<EntryDenied> for CloseReason {
    fn from(denied: EntryDenied) -> Self {
        match denied {
            EntryDenied::Banned => Self::Banned,
            EntryDenied::Locked => Self::RoomLocked,
        }
    }
}

impl From<JoinError> for CloseReason {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Full => Self::RoomFull,
            JoinError::ClientIdTaken => Self::ClientIdTaken,
            JoinError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<AuthError> for CloseReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::BadToken => Self::InvalidToken,
            AuthError::Blocked => Self::Blocked,
            AuthError::NoSuchUser => Self::NoSuchUser,
            AuthError::TooManyConnections => Self::TooManyUserConnections,
            AuthError::Removed => Self::Banned,
        }
    }
}
