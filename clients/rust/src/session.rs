//! The public handle of a session, and the receiver of its events.

use std::{fmt, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::{
    driver::Driver,
    endpoint::Endpoint,
    events::{Change, Error, Event, IceServer, IceTransportPolicy, Member, SignalKind, State},
    membership::{Frame, Input, Membership, object},
    options::Options,
    shared::SharedMembership,
};

/// How many events may be queued for the program. While the queue is full, the driver does not read from the socket.
const MAX_QUEUED_EVENTS: usize = 256;

/// Joins a room, and returns once the client is a member. While the server cannot be reached, this keeps trying.
///
/// The first events are those of the members that are already in the room. Dropping the future ends the session.
///
/// # Errors
///
/// [`Error::Url`] for an invalid URL, and [`Error::Closed`] if the server refuses the client.
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
    Err(Error::Closed { code: "closed".to_owned(), message: "The session has ended".to_owned() })
}

/// As [`connect`], but returns at once and reports every attempt as an event. Frames that are sent before the client
/// has joined are queued.
///
/// # Errors
///
/// [`Error::Url`]; every other error is an event.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub fn start(options: Options) -> Result<(Session, Events), Error> {
    let endpoint = Endpoint::parse(&options.url)?;
    let tokens = options.tokens.at(&endpoint);
    let membership = Membership::new(options.client_id, tokens.can_renew());
    let shared = Arc::new(SharedMembership::new(membership));
    let (event_sender, events) = mpsc::channel(MAX_QUEUED_EVENTS);
    let (closing, closed) = watch::channel(());
    let driver = Driver::new(shared.clone(), endpoint, options.room, tokens, event_sender);
    tokio::spawn(driver.run(closing));
    Ok((Session { membership: Arc::new(LeaveOnDrop(shared)), closed }, Events(events)))
}

/// The events of a session, in order.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the session has ended.
    ///
    /// Cancel safe: no event is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// A handle to one membership of one room. When the last clone is dropped, the client leaves the room.
#[derive(Clone)]
pub struct Session {
    membership: Arc<LeaveOnDrop>,
    closed: watch::Receiver<()>,
}

impl Session {
    /// Sends `data` to the peer with this client id, or to every peer. Never blocks. While the connection is lost, the
    /// last 200 frames are queued.
    ///
    /// # Errors
    ///
    /// [`Error::TooBig`] for a message that the server would discard. Before the client has joined it does not know
    /// the limit: the error is then an event.
    pub fn send(&self, data: impl Into<Value>, to: Option<&str>) -> Result<(), Error> {
        self.send_frame(object(json!({"type":"message","data":data.into()})), to)
    }

    /// Sends a description or a candidate to the peer with this client id, or to every peer. As [`Session::send`].
    ///
    /// # Errors
    ///
    /// As [`Session::send`].
    pub fn signal(
        &self,
        kind: SignalKind,
        payload: impl Into<Value>,
        to: Option<&str>,
    ) -> Result<(), Error> {
        let (name, field) = kind.names();
        let mut frame = object(json!({"type":name}));
        frame.insert(field.to_owned(), payload.into());
        self.send_frame(frame, to)
    }

    fn send_frame(&self, mut frame: Frame, to: Option<&str>) -> Result<(), Error> {
        frame.extend(to.map(|to| ("to".to_owned(), to.into())));
        self.membership.0.send(frame)
    }

    /// The other members at the moment. Events that were not read yet may be about changes that are included here.
    pub fn peers(&self) -> Vec<Member> {
        self.membership.0.lock().peers().cloned().collect()
    }

    /// The client id of this client; empty until it has joined, if the server assigns it.
    pub fn id(&self) -> String {
        self.membership.0.lock().client_id().unwrap_or_default().to_owned()
    }

    /// The username of this client; empty until it has joined.
    pub fn username(&self) -> String {
        self.membership.0.lock().username().unwrap_or_default().to_owned()
    }

    /// The state of the session.
    pub fn state(&self) -> State {
        self.membership.0.lock().state()
    }

    /// The ICE servers to use from now on.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.membership.0.lock().ice_servers().to_vec()
    }

    /// Which candidates connections may use from now on: it is [`IceTransportPolicy::Relay`] if the token demands that.
    pub fn ice_transport_policy(&self) -> IceTransportPolicy {
        self.membership.0.lock().ice_transport_policy()
    }

    /// Leaves the room, and waits until the Close frame is sent and answered: at most two seconds.
    pub async fn close(&self) {
        self.membership.0.handle(Input::Leave);
        // An error means that the driver has ended and dropped the sender.
        let _ = self.closed.clone().changed().await;
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut output = f.debug_struct("Session");
        output.field("id", &self.id()).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// What all clones of a session share. The client leaves the room when it is dropped.
struct LeaveOnDrop(Arc<SharedMembership>);

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        self.0.handle(Input::Leave);
    }
}
