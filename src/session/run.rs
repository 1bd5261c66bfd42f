//! The sequence of a connection's life: handshake, welcome, membership, close.

use std::{
    future::{Future, pending, poll_fn},
    net::IpAddr,
    panic::AssertUnwindSafe,
    task::{Poll, Waker},
};

use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::{
    DetachedMember, SessionContext, SessionServices,
    close::{close, log_rejection},
    handshake::{HandshakeOutcome, handshake},
    liveness::TimedSocket,
    member::Member,
};
use crate::{
    delivery::{self, DisconnectReason, DisconnectSignal},
    metrics::Metrics,
    protocol::CloseReason,
    websocket::Socket,
};

/// Runs one connection to its end. Returns why it ended, and the member where it stays without a connection. A member
/// that does not stay has left its room before the last frames are sent. `handshake_span` is held no longer than the handshake
/// takes.
pub async fn run(
    socket: &mut impl Socket,
    context: &SessionContext<impl SessionServices>,
    handshake_span: Box<Span>,
) -> (CloseReason, Option<DetachedMember>) {
    let (queue, reader) = delivery::channel();
    queue.set_memory_holder(&context.memory);
    let end = disconnect_requested(reader.disconnect_signal(), context);
    let mut member = None;
    let session = async {
        let mut socket = TimedSocket { socket, limits: &context.limits };
        let handshake = {
            let (handshake_span, socket) = (handshake_span, &mut socket);
            let span = *handshake_span;
            let mut closing = context.closing.clone();
            // Boxed with all that it needs, so that a member does not hold that for as long as it stays.
            Box::pin(async move {
                tokio::select! {
                    biased;
                    entered = handshake(socket, context, queue, reader).instrument(span.clone()) => entered,
                    // Wakes this task when the server stops, as it is no member yet that is woken; what ends it is `end`.
                    () = closing.wait_for(Option::is_some).map(drop) => pending().await,
                }
                .inspect_err(|reason| span.in_scope(|| log_rejection(*reason, context.address)))
            })
        };
        let HandshakeOutcome { member: entered, greeting, guest_frame } = handshake.await?;
        let member = member.insert(entered);
        // It may have been no member yet when all were woken.
        if let Some(within) = *context.closing.borrow() {
            return Err(CloseReason::Restarting(within));
        }
        member.send_welcome(&mut socket, greeting, guest_frame).await?;
        member.run_member(&mut socket).await
    };
    let reason = tokio::select! {
        // `end` is polled first: when the server stops, no member is informed any more that all the others leave, which
        // would end calls that outlive the restart.
        biased;
        reason = end => reason,
        // A panic ends its own session alone: unwinding ends it, and the client receives a Close.
        ended = AssertUnwindSafe(session).catch_unwind() => match ended {
            Ok(Err(reason)) => reason,
            Err(_panic) => {
                context.span(None).in_scope(|| tracing::error!("session panicked"));
                CloseReason::Internal
            }
        },
    };
    let was_member = member.is_some();
    context.metrics.record_session_end(reason.as_str(), was_member);
    let detached = member.and_then(|member| leave_or_detach(member, reason, context));
    // When the server stops, a member is saved even if its client reads the last frames too slowly.
    let detached = if matches!(reason, CloseReason::Restarting(_)) {
        detached.into_iter().for_each(|detached| context.snapshot.push(detached));
        None
    } else {
        detached
    };
    Box::pin(close(socket, reason, was_member, &context.metrics)).await;
    (reason, detached)
}

/// Refuses a connection without a handshake: the reason is sent in place of `auth_required`.
pub async fn reject(
    socket: &mut impl Socket,
    reason: CloseReason,
    address: IpAddr,
    handshake_span: Span,
    metrics: &Metrics,
) {
    handshake_span.in_scope(|| log_rejection(reason, address));
    drop(handshake_span);
    metrics.record_session_end(reason.as_str(), false);
    close(socket, reason, false, metrics).await;
}

/// Ends the connection of a member: it leaves its room, or stays where it may resume. Logs and counts which.
fn leave_or_detach<D: SessionServices>(
    member: Member<'_, D>,
    reason: CloseReason,
    context: &SessionContext<D>,
) -> Option<DetachedMember> {
    let span = context.span(Some(member.peer()));
    let signal = member.disconnect_signal();
    let detached = member.into_detached(reason);
    let reason = reason.as_str();
    match signal.reason() {
        // The membership continues on another connection.
        Some(DisconnectReason::Resumed) => {}
        disconnected => {
            if disconnected == Some(DisconnectReason::TooSlow) {
                context.metrics.record_queue_overflow();
            }
            if detached.is_none() {
                context.metrics.record_leave(reason);
            }
        }
    }
    span.in_scope(|| match detached {
        Some(_) => tracing::info!(reason, "member detached"),
        None => tracing::info!(reason, "member left"),
    });
    detached
}

/// Waits until a session is ended from outside: by a disconnect, or because the server stops. It wakes for the latter only as a
/// member ([`RoomRegistry::wake_members`](crate::rooms::RoomRegistry::wake_members)): a watcher of its own would take 200 bytes
/// of each.
fn disconnect_requested<D: SessionServices>(
    signal: DisconnectSignal,
    context: &SessionContext<D>,
) -> impl Future<Output = CloseReason> {
    let mut registered: Option<Waker> = None;
    poll_fn(move |task| {
        // This is polled before every message, and registering takes a lock: once is enough.
        let is_registered = registered.as_ref().is_some_and(|it| it.will_wake(task.waker()));
        if !is_registered {
            registered = Some(task.waker().clone());
            signal.register_waker(task.waker());
        }
        if let Some(reason) = signal.reason() {
            return Poll::Ready(reason.into());
        }
        if signal.is_shed() {
            return Poll::Ready(CloseReason::TooSlow);
        }
        // Also a server that stopped before this connection began.
        if is_registered && !context.closing.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        match *context.closing.borrow() {
            Some(within) => Poll::Ready(CloseReason::Restarting(within)),
            None => Poll::Pending,
        }
    })
}
