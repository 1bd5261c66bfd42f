//! The task that does what a [`Membership`](crate::membership::Membership) decides.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    hash::{BuildHasher, Hasher, RandomState},
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
    Error, Event,
    dial::{Server, WebSocket},
    membership::{Effect, Fact, Moment, Purpose},
    session::Shared,
    tokens::{Asked, Tokens, life_left},
};

/// How long a Close may take to be said and answered.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// A socket, and what waits to be said on it.
enum Line {
    Dead,
    Opening(Pin<Box<dyn Future<Output = Result<WebSocket, tungstenite::Error>> + Send>>),
    Open(Box<WebSocket>),
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    server: Server,
    room: String,
    tokens: Tokens,
    began: Instant,
    line: Line,
    unsaid: VecDeque<Message>,
    asked: Option<(Purpose, Asked)>,
    /// What the program has no room for yet.
    untold: VecDeque<Event>,
    tell: mpsc::Sender<Event>,
}

impl Driver {
    pub fn new(
        shared: Arc<Shared>,
        server: Server,
        room: String,
        tokens: Tokens,
        tell: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            shared,
            server,
            room,
            tokens,
            began: Instant::now(),
            line: Line::Dead,
            unsaid: VecDeque::new(),
            asked: None,
            untold: VecDeque::new(),
            tell,
        }
    }

    /// To the end of the membership; then `end` is dropped.
    pub async fn run(mut self, end: watch::Sender<()>) {
        while !self.acts() {
            if let Some(fact) = self.happens().await {
                let at = moment(self.began.elapsed());
                self.shared.membership().learns(fact, at);
            }
        }
        if let Line::Open(socket) = self.line {
            let goodbye = hangs_up(socket, self.unsaid.into_iter().chain([Message::Close(None)]));
            goodbye.await;
        }
        drop(end);
        for event in self.untold {
            let _ = self.tell.send(event).await; // nobody may be interested
        }
    }

    /// Does what is to be done; whether that was the last of it.
    fn acts(&mut self) -> bool {
        loop {
            // Not locked meanwhile: where tokens come from may look at the session.
            let effect = self.shared.membership().effect();
            let Some(effect) = effect else { return false };
            match effect {
                Effect::Open => {
                    self.unsaid.clear();
                    let (server, room) = (self.server.clone(), self.room.clone());
                    self.line = Line::Opening(Box::pin(async move { server.open(&room).await }));
                }
                Effect::Send(text) => self.unsaid.push_back(Message::text(text)),
                Effect::Abandon => self.line = Line::Dead,
                Effect::ClusterCommand(purpose, renew) => {
                    self.asked = Some((purpose, self.tokens.ask(renew)))
                }
                Effect::Tell(event) => self.untold.push_back(event),
                Effect::Close => return true,
            }
        }
    }

    /// The next thing that happens, or nothing where it may only have made something possible.
    ///
    /// While the program does not read what it is told, nothing is heard and no time passes.
    async fn happens(&mut self) -> Option<Fact> {
        let wakes_at = self.shared.membership().wakes_at();
        let Self { shared, began, line, unsaid, asked, untold, tell, .. } = self;
        let listens = untold.is_empty();
        let something = async {
            tokio::select! {
                () = shared.news.notified() => None,
                fact = poll_fn(|cx| line.poll(unsaid, listens, cx)) => fact,
                token = answered(asked) => Some(token),
                room = tell.reserve(), if !listens => {
                    match (room, untold.pop_front()) {
                        (Ok(room), Some(event)) => room.send(event),
                        (Err(_), _) => untold.clear(), // nobody is interested
                        (Ok(_), None) => {}
                    }
                    None
                }
            }
        };
        let time = async {
            match wakes_at {
                Some(at) if listens => sleep_until(*began + at).await,
                Some(_) | None => pending().await,
            }
        };
        // What has arrived by now counts, however late we look.
        tokio::select! {
            biased;
            fact = something => fact,
            () = time => Some(Fact::Woken),
        }
    }
}

/// The token that was asked for.
async fn answered(asked: &mut Option<(Purpose, Asked)>) -> Fact {
    let Some((purpose, asking)) = asked else { return pending().await };
    let token = match asking.await {
        Ok(token) => {
            let life = token.as_deref().and_then(life_left);
            Ok((token, life))
        }
        Err(error) => match error.downcast::<Error>().map(|error| *error) {
            Ok(over @ Error::Closed { .. }) => Err(over),
            Ok(other) => Err(Error::NoToken(other.to_string())),
            Err(other) => Err(Error::NoToken(other.to_string())),
        },
    };
    let purpose = *purpose;
    *asked = None;
    Fact::Token(purpose, token)
}

impl Line {
    /// Says what there is to say, and waits for what is heard, if anybody `listens`.
    fn poll(
        &mut self,
        unsaid: &mut VecDeque<Message>,
        listens: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Fact>> {
        let fact = match self {
            Self::Dead => return Poll::Pending,
            Self::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                Ok(socket) => {
                    *self = Self::Open(Box::new(socket));
                    return Poll::Ready(None);
                }
                Err(error) => lost(error),
            },
            Self::Open(socket) => match ready!(poll_socket(socket, unsaid, listens, cx)) {
                Ok(Message::Text(text)) => {
                    return Poll::Ready(Some(Fact::Heard(text.as_str().to_owned())));
                }
                Ok(Message::Close(frame)) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    Fact::Lost { code, reason }
                }
                Ok(_) => return Poll::Ready(None),
                Err(error) => lost(error),
            },
        };
        if let Self::Open(socket) = std::mem::replace(self, Self::Dead) {
            // Our half of the Close is said by reading on.
            tokio::spawn(hangs_up(socket, std::iter::empty()));
        }
        Poll::Ready(Some(fact))
    }
}

fn poll_socket(
    socket: &mut WebSocket,
    unsaid: &mut VecDeque<Message>,
    listens: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Message, tungstenite::Error>> {
    while !unsaid.is_empty() && socket.poll_ready_unpin(cx)?.is_ready() {
        unsaid.pop_front().map_or(Ok(()), |message| socket.start_send_unpin(message))?;
    }
    let _ = socket.poll_flush_unpin(cx)?; // it goes on when there is room
    if !listens {
        return Poll::Pending;
    }
    let end = Err(tungstenite::Error::ConnectionClosed);
    socket.poll_next_unpin(cx).map(|message| message.unwrap_or(end))
}

fn lost(error: tungstenite::Error) -> Fact {
    if let tungstenite::Error::Http(answer) = &error {
        return Fact::NotUpgraded(answer.status().as_u16());
    }
    let is_silent = matches!(error, tungstenite::Error::ConnectionClosed);
    let reason = if is_silent { String::new() } else { error.to_string() };
    Fact::Lost { code: 1006, reason }
}

/// Says the last things, and reads to the end: a socket that is dropped with something unread in it may
/// take back what it has said.
async fn hangs_up(mut socket: Box<WebSocket>, last: impl Iterator<Item = Message>) {
    let goodbye = async {
        for message in last {
            if socket.feed(message).await.is_err() {
                return;
            }
        }
        let _ = socket.flush().await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ = timeout(GOODBYE_WITHIN, goodbye).await;
}

/// Now, by what is as good as dice: the standard library seeds its hashers from the system.
pub(crate) fn moment(now: Duration) -> Moment {
    let dice = RandomState::new().build_hasher().finish() >> 11;
    Moment { now, random: dice as f64 / (1_u64 << 53) as f64 }
}
