//! The task that carries out the effects of a [`Membership`](crate::membership::Membership).

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::{
    endpoint::{Endpoint, WebSocket},
    events::{Error, Event},
    membership::{Effect, Input, TokenPurpose},
    shared::{SharedMembership, moment},
    tokens::{TokenRequest, Tokens, lifetime_of},
};

/// How long sending a Close frame and waiting for the answer may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The socket of the membership.
enum Socket {
    None,
    Opening(Pin<Box<dyn Future<Output = Result<WebSocket, tungstenite::Error>> + Send>>),
    Open(Box<WebSocket>),
}

pub(crate) struct Driver {
    shared: Arc<SharedMembership>,
    endpoint: Endpoint,
    room: String,
    tokens: Tokens,
    started: Instant,
    socket: Socket,
    send_queue: VecDeque<Message>,
    token_request: Option<(TokenPurpose, TokenRequest)>,
    /// Events that the channel to the program has no capacity for yet.
    pending_events: VecDeque<Event>,
    events: mpsc::Sender<Event>,
}

impl Driver {
    pub fn new(
        shared: Arc<SharedMembership>,
        endpoint: Endpoint,
        room: String,
        tokens: Tokens,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            shared,
            endpoint,
            room,
            tokens,
            started: Instant::now(),
            socket: Socket::None,
            send_queue: VecDeque::new(),
            token_request: None,
            pending_events: VecDeque::new(),
            events,
        }
    }

    /// Runs until the session has ended; drops `closing` after the Close frame.
    pub async fn run(mut self, closing: watch::Sender<()>) {
        while !self.apply_effects() {
            if let Some(input) = self.next_input().await {
                let at = moment(self.started.elapsed());
                self.shared.lock().handle(input, at);
            }
        }
        if let Socket::Open(socket) = self.socket {
            close(socket, self.send_queue.into_iter().chain([Message::Close(None)])).await;
        }
        drop(closing);
        for event in self.pending_events {
            let _ = self.events.send(event).await; // the program may have dropped the receiver
        }
    }

    /// Carries out all effects; returns whether the last one was [`Effect::Close`].
    fn apply_effects(&mut self) -> bool {
        loop {
            // The lock is released for each effect, because a token function may use the session.
            let effect = self.shared.lock().next_effect();
            let Some(effect) = effect else { return false };
            match effect {
                Effect::OpenSocket => {
                    self.send_queue.clear();
                    let (endpoint, room) = (self.endpoint.clone(), self.room.clone());
                    self.socket =
                        Socket::Opening(Box::pin(async move { endpoint.open(&room).await }));
                }
                Effect::SendText(text) => self.send_queue.push_back(Message::text(text)),
                Effect::AbandonSocket => self.socket = Socket::None,
                Effect::RequestToken(purpose, renew) => {
                    self.token_request = Some((purpose, self.tokens.request(renew)));
                }
                Effect::Emit(event) => self.pending_events.push_back(event),
                Effect::Close => return true,
            }
        }
    }

    /// Waits for the next input. `None` if something else has happened that may allow progress.
    ///
    /// While the program does not read its events, the socket is not read and no timer fires.
    async fn next_input(&mut self) -> Option<Input> {
        let next_wakeup = self.shared.lock().next_wakeup();
        let Self {
            shared, started, socket, send_queue, token_request, pending_events, events, ..
        } = self;
        let may_read = pending_events.is_empty();
        let other_input = async {
            tokio::select! {
                () = shared.changed.notified() => None,
                input = poll_fn(|cx| socket.poll(send_queue, may_read, cx)) => input,
                token = requested_token(token_request) => Some(token),
                permit = events.reserve(), if !may_read => {
                    match (permit, pending_events.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        (Err(_), _) => pending_events.clear(), // the program has dropped the receiver
                        (Ok(_), None) => {}
                    }
                    None
                }
            }
        };
        let wakeup = async {
            match next_wakeup {
                Some(at) if may_read => sleep_until(*started + at).await,
                Some(_) | None => pending().await,
            }
        };
        // A frame that has already arrived counts, even if the timer is due as well.
        tokio::select! {
            biased;
            input = other_input => input,
            () = wakeup => Some(Input::Wakeup),
        }
    }
}

async fn requested_token(token_request: &mut Option<(TokenPurpose, TokenRequest)>) -> Input {
    let Some((purpose, request)) = token_request else { return pending().await };
    let token = match request.await {
        Ok(token) => {
            let lifetime = token.as_deref().and_then(lifetime_of);
            Ok((token, lifetime))
        }
        Err(error) => match error.downcast::<Error>().map(|error| *error) {
            Ok(fatal @ Error::Closed { .. }) => Err(fatal),
            Ok(other) => Err(Error::NoToken(other.to_string())),
            Err(other) => Err(Error::NoToken(other.to_string())),
        },
    };
    let purpose = *purpose;
    *token_request = None;
    Input::Token(purpose, token)
}

impl Socket {
    /// Writes the queued messages and, if `may_read`, waits for the next message or the end of the socket.
    fn poll(
        &mut self,
        send_queue: &mut VecDeque<Message>,
        may_read: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Input>> {
        let closed = match self {
            Self::None => return Poll::Pending,
            Self::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                Ok(socket) => {
                    *self = Self::Open(Box::new(socket));
                    return Poll::Ready(None);
                }
                Err(error) => socket_error(error),
            },
            Self::Open(socket) => match ready!(poll_message(socket, send_queue, may_read, cx)) {
                Ok(Message::Text(text)) => {
                    return Poll::Ready(Some(Input::Received(text.as_str().to_owned())));
                }
                Ok(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    Input::SocketClosed { code, reason }
                }
                Ok(_) => return Poll::Ready(None),
                Err(error) => socket_error(error),
            },
        };
        if let Self::Open(socket) = std::mem::replace(self, Self::None) {
            // Reading on sends the answer to the server's Close frame.
            tokio::spawn(close(socket, std::iter::empty()));
        }
        Poll::Ready(Some(closed))
    }
}

fn poll_message(
    socket: &mut WebSocket,
    send_queue: &mut VecDeque<Message>,
    may_read: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Message, tungstenite::Error>> {
    while !send_queue.is_empty() && socket.poll_ready_unpin(cx)?.is_ready() {
        send_queue.pop_front().map_or(Ok(()), |message| socket.start_send_unpin(message))?;
    }
    let _ = socket.poll_flush_unpin(cx)?; // a pending flush wakes this task when there is room
    if !may_read {
        return Poll::Pending;
    }
    let end = Err(tungstenite::Error::ConnectionClosed);
    socket.poll_next_unpin(cx).map(|message| message.unwrap_or(end))
}

fn socket_error(error: tungstenite::Error) -> Input {
    if let tungstenite::Error::Http(response) = &error {
        return Input::UpgradeRefused(response.status().as_u16());
    }
    let has_reason = !matches!(error, tungstenite::Error::ConnectionClosed);
    let reason = if has_reason { error.to_string() } else { String::new() };
    Input::SocketClosed { code: 1006, reason }
}

/// Sends the last messages and reads to the end: a TCP connection that is dropped with unread data may be reset, and
/// what was sent last may then be lost.
async fn close(mut socket: Box<WebSocket>, last: impl Iterator<Item = Message>) {
    let closing = async {
        for message in last {
            if socket.feed(message).await.is_err() {
                return;
            }
        }
        let _ = socket.flush().await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
