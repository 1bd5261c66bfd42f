//! What a program holds of its membership: a handle to speak, and what it hears.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    Change, Error, Event, IceServer, Member, Options, SignalKind, State,
    dial::Server,
    driver::{Driver, moment},
    membership::{Fact, Frame, Membership, object},
};

/// Events that may wait for the program. While more do, the server is not listened to.
const MOST_UNREAD: usize = 256;

/// Enters a room; answers when we are in. While the server cannot be reached, this goes on trying.
///
/// The first events are those who are there already. Dropping what is awaited here gives it up.
///
/// # Errors
///
/// [`Error::Url`] for an address that is none, and [`Error::Closed`] where we may not come in.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub async fn connect(options: Options) -> Result<(Session, Events), Error> {
    let (session, mut events) = start(options)?;
    while let Some(event) = events.next().await {
        match event {
            Event::State(Change { state: State::Connected, .. }) => return Ok((session, events)),
            Event::Error(error @ Error::Closed { .. }) => return Err(error),
            Event::State(_)
            | Event::Error(_)
            | Event::PeerJoined(_)
            | Event::PeerLeft { .. }
            | Event::PeerState { .. }
            | Event::Signal { .. }
            | Event::Message { .. }
            | Event::ServerMessage { .. }
            | Event::IceServers(_) => {}
        }
    }
    Err(Error::Closed { code: "closed".to_owned(), message: "The session is over".to_owned() })
}

/// As [`connect`], for those who want to hear of every attempt: it does not wait, and what is said before
/// we are in is said then.
///
/// # Errors
///
/// [`Error::Url`]; everything else is an event.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub fn start(options: Options) -> Result<(Session, Events), Error> {
    let server = Server::parse(&options.url)?;
    let tokens = options.tokens.at(&server);
    let membership = Membership::new(options.client_id, tokens.can_renew());
    let shared = Arc::new(Shared { membership: Mutex::new(membership), news: Notify::new() });
    let (tell, events) = mpsc::channel(MOST_UNREAD);
    let (end, over) = watch::channel(());
    let driver = Driver::new(shared.clone(), server, options.room, tokens, tell);
    tokio::spawn(driver.run(end));
    Ok((Session { seat: Arc::new(Seat(shared)), over }, Events(events)))
}

/// What happens, in order.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; nothing once the session is over.
    ///
    /// May be given up at any time without losing one.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// A handle to one membership of one room. When the last clone is dropped, we leave.
#[derive(Clone)]
pub struct Session {
    seat: Arc<Seat>,
    over: watch::Receiver<()>,
}

impl Session {
    /// Says `data` to the peer with this client id, or to everyone. Never waits; what is said while the
    /// connection is away is said when it is back, the last 200 of it.
    pub fn send(&self, data: impl Into<Value>, to: Option<&str>) {
        self.say(object(json!({"type":"message","data":data.into()})), to);
    }

    /// Negotiates with the peer with this client id, or with everyone. As [`Session::send`].
    pub fn signal(&self, kind: SignalKind, payload: impl Into<Value>, to: Option<&str>) {
        let (name, field) = kind.names();
        let mut frame = object(json!({"type":name}));
        frame.insert(field.to_owned(), payload.into());
        self.say(frame, to);
    }

    fn say(&self, mut frame: Frame, to: Option<&str>) {
        frame.extend(to.map(|to| ("to".to_owned(), to.into())));
        self.seat.0.learns(Fact::Said(frame));
    }

    /// The others, as of now; events that were not read yet may tell of what is in here already.
    pub fn peers(&self) -> Vec<Member> {
        self.seat.0.membership().peers().cloned().collect()
    }

    /// Our own client id; empty until we are in, where the server chooses it.
    pub fn id(&self) -> String {
        self.seat.0.membership().client_id().unwrap_or_default().to_owned()
    }

    /// Our own name; empty until we are in.
    pub fn username(&self) -> String {
        self.seat.0.membership().username().unwrap_or_default().to_owned()
    }

    /// Where we are.
    pub fn state(&self) -> State {
        self.seat.0.membership().state()
    }

    /// The ICE servers to use from now on.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.seat.0.membership().ice_servers().to_vec()
    }

    /// Leaves, and waits until that is said: for two seconds at the longest.
    pub async fn close(&self) {
        self.seat.0.learns(Fact::Left);
        // An error says that the other end has been dropped.
        let _ = self.over.clone().changed().await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Session");
        told.field("id", &self.id()).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// What all clones of a session hold.
struct Seat(Arc<Shared>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.learns(Fact::Left);
    }
}

/// The membership, between whoever speaks and the task that does what it decides.
pub(crate) struct Shared {
    membership: Mutex<Membership>,
    /// There may be something to do.
    pub news: Notify,
}

impl Shared {
    pub fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For facts that have no time.
    fn learns(&self, fact: Fact) {
        self.membership().learns(fact, moment(std::time::Duration::ZERO));
        self.news.notify_one();
    }
}
