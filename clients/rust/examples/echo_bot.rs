//! A bot that answers every call in a room and echoes the messages on its data channels.
//!
//! ```text
//! cargo run -p signaling-client --example echo_bot -- --url http://127.0.0.1:8080 --room standup
//! ```
//!
//! It never sends an offer, so it never causes an offer collision. It has only host candidates over UDP: a peer that
//! cannot reach them needs a TURN server on its own side.

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    future::{pending, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    pin::pin,
    task::Poll,
    time::Duration,
};

use clap::Parser;
use serde_json::{Value, json};
use signaling_client::{
    Change, Event, IceTransportPolicy, Options, Session, SignalKind, State, start,
};
use str0m::{
    Candidate, Event as RtcEvent, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError,
    change::SdpOffer,
    channel::{ChannelData, ChannelId},
    net::{Protocol, Receive},
};
use tokio::{
    io::ReadBuf,
    net::UdpSocket,
    signal::{
        ctrl_c,
        unix::{SignalKind as SignalType, signal},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How long a call continues with a peer that is missing from the room.
const MISSING_PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// In bytes. WebRTC sends no larger datagrams.
const MAX_DATAGRAM: usize = 2000;

/// How many bytes of echoes may be queued for one peer; more ends the call.
const MAX_QUEUED: usize = 16 * 1024 * 1024;

/// The buffered amount, in bytes, below which a channel accepts more echoes.
const LOW_BUFFERED_AMOUNT: usize = 64 * 1024;

type BotError = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Answers every call in a room and echoes the messages on its data channels.")]
struct Arguments {
    /// URL of the server, such as https://example.com
    #[arg(long)]
    url: String,
    #[arg(long)]
    room: String,
    /// Without it the bot joins as a guest
    #[arg(long, requires = "password")]
    username: Option<String>,
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// An access token of your own, in place of a username and a password
    #[arg(long, conflicts_with = "username")]
    token: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BotError> {
    let Arguments { url, room, username, password, token } = Arguments::parse();
    let mut options = Options::new(url, room);
    if let (Some(username), Some(password)) = (username, password) {
        options = options.login(username, password);
    }
    if let Some(token) = token {
        options = options.token(token);
    }
    let (session, mut events) = start(options)?;
    let mut bot = Bot { session: session.clone(), calls: BTreeMap::new() };
    let mut stop = pin!(stop_signal());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => bot.handle_event(event)?,
                None => return Ok(()),
            },
            () = bot.end_missing_calls() => {}
            received = &mut stop => {
                received?;
                session.close().await;
                return Ok(());
            }
        }
    }
}

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() -> io::Result<()> {
    let mut terminate = signal(SignalType::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        result = ctrl_c() => result,
    }
}

/// The calls of the bot, by the client id of the peer.
struct Bot {
    session: Session,
    calls: BTreeMap<String, Call>,
}

/// A handle to the task that handles the calls with one peer. The task ends when the handle is dropped.
struct Call {
    signals: mpsc::UnboundedSender<(SignalKind, Value)>,
    /// When the call ends if the missing peer does not return.
    ends_at: Option<Instant>,
}

impl Bot {
    fn handle_event(&mut self, event: Event) -> Result<(), BotError> {
        match event {
            Event::PeerJoined(peer) => {
                println!("{} is in the room: {}", peer.username, peer.client_id);
                self.call(&peer.client_id).ends_at = None;
            }
            Event::PeerLeft { peer, is_missing: false } => {
                println!("{} has left: {}", peer.username, peer.client_id);
                self.calls.remove(&peer.client_id);
            }
            Event::PeerLeft { peer, is_missing: true } => {
                println!("{} is missing: {}", peer.username, peer.client_id);
                self.call(&peer.client_id).ends_at = Some(Instant::now() + MISSING_PEER_TIMEOUT);
            }
            Event::Signal { from, kind, payload, .. } => {
                let _ = self.call(&from).signals.send((kind, payload)); // the task outlives this handle
            }
            Event::State(Change { state: State::Closed, reason, .. }) => {
                return Err(format!("session ended: {}", reason.unwrap_or_default()).into());
            }
            Event::State(Change { state: State::Connected, .. }) => {
                if self.session.ice_transport_policy() == IceTransportPolicy::Relay {
                    let reason = "the token allows TURN servers only, and this bot uses none";
                    return Err(reason.into());
                }
                println!("joined as {}", self.session.id());
            }
            Event::State(Change { retry_in, reason, .. }) => {
                let reason = reason.filter(|reason| !reason.is_empty());
                let reason = reason.as_deref().unwrap_or("connection lost");
                println!("{reason}; next attempt in {:?}", retry_in.unwrap_or_default());
            }
            Event::Error(error) => println!("{error}"),
            Event::PeerState { .. }
            | Event::Message { .. }
            | Event::ServerMessage { .. }
            | Event::IceServers(_) => {}
        }
        Ok(())
    }

    fn call(&mut self, peer: &str) -> &mut Call {
        let session = &self.session;
        self.calls.entry(peer.to_owned()).or_insert_with(|| {
            let (signals, receiver) = mpsc::unbounded_channel();
            tokio::spawn(run_calls(session.clone(), peer.to_owned(), receiver));
            Call { signals, ends_at: None }
        })
    }

    /// Waits until a peer has been missing for too long, and ends its call.
    async fn end_missing_calls(&mut self) {
        let Some(next) = self.calls.values().filter_map(|call| call.ends_at).min() else {
            return pending().await;
        };
        sleep_until(next).await;
        self.calls.retain(|_, call| call.ends_at.is_none_or(|at| at > next));
    }
}

/// Handles the calls with one peer, on one connection after the other.
async fn run_calls(
    session: Session,
    peer: String,
    mut signals: mpsc::UnboundedReceiver<(SignalKind, Value)>,
) {
    let mut connection: Option<Connection> = None;
    // Candidates that arrived before the offer.
    let mut early_candidates = Vec::new();
    loop {
        let running = async {
            match &mut connection {
                Some(connection) => connection.run().await,
                None => pending().await,
            }
        };
        let signal = tokio::select! {
            signal = signals.recv() => signal,
            ended = running => {
                println!("{peer}: the connection has ended{}", ended.err().map_or(String::new(), |error| format!(": {error}")));
                connection = None;
                continue;
            }
        };
        match signal {
            Some((SignalKind::Offer, offer)) => {
                let answered = answer(&mut connection, &offer).await;
                let sent = answered.and_then(|answer| {
                    Ok(session.signal(SignalKind::Answer, answer, Some(&peer))?)
                });
                if let Err(error) = sent {
                    println!("{peer}: cannot answer the offer: {error}");
                    continue;
                }
                if let Some(connection) = &mut connection {
                    early_candidates
                        .drain(..)
                        .for_each(|candidate| connection.add_candidate(candidate));
                }
                // The answer contains all local candidates.
                let _ = session.signal(SignalKind::IceCandidate, Value::Null, Some(&peer)); // it is short
            }
            Some((SignalKind::IceCandidate, candidate)) => match &mut connection {
                Some(connection) => connection.add_candidate(candidate),
                None => early_candidates.push(candidate),
            },
            Some((SignalKind::Answer, _)) => {} // the bot never offers
            None => return,
        }
    }
}

/// Answers an offer on the current connection, or on a new one if the peer has replaced its own.
async fn answer(connection: &mut Option<Connection>, offer: &Value) -> Result<Value, BotError> {
    let text = |name: &str| offer.get(name).and_then(Value::as_str).unwrap_or_default();
    let (sdp, remote_key) = (SdpOffer::from_sdp_string(text("sdp"))?, text("pc"));
    let current = connection.take().filter(|current| current.remote_key == remote_key);
    let mut current = match current {
        Some(current) => current,
        None => Connection::new(remote_key).await?,
    };
    let answer = current.rtc.sdp_api().accept_offer(sdp);
    let local_key = current.local_key.clone();
    *connection = Some(current);
    Ok(json!({"type":"answer","sdp":answer?.to_sdp_string(),"pc":local_key}))
}

/// The counterpart of an RTCPeerConnection.
struct Connection {
    rtc: Rtc,
    /// `pc` in a description identifies one of the successive connections of a peer.
    local_key: String,
    remote_key: String,
    sockets: Vec<UdpSocket>,
    echo_queue: VecDeque<(ChannelId, bool, Vec<u8>)>,
}

impl Connection {
    async fn new(remote_key: &str) -> Result<Self, BotError> {
        let mut rtc = RtcConfig::new().build(Instant::now().into_std());
        let mut sockets = Vec::new();
        for address in addresses() {
            let Ok(socket) = UdpSocket::bind((address, 0)).await else { continue };
            let Ok(candidate) = Candidate::host(socket.local_addr()?, "udp") else { continue };
            rtc.add_local_candidate(candidate);
            sockets.push(socket);
        }
        // The ports are unique while the connection exists, so they serve as its key.
        let ports = sockets.iter().filter_map(|socket| Some(socket.local_addr().ok()?.port()));
        let local_key = ports.map(|port| format!("{port:x}")).collect::<Vec<_>>().join("-");
        let remote_key = remote_key.to_owned();
        Ok(Self { rtc, local_key, remote_key, sockets, echo_queue: VecDeque::new() })
    }

    fn add_candidate(&mut self, candidate: Value) {
        // mDNS names (`.local`) do not parse and are not needed: the checks of the peer reveal its address. The end of
        // candidates is not needed either, because this side never gives up before it.
        let candidate = candidate.get("candidate").and_then(Value::as_str).unwrap_or_default();
        if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// Runs until the connection has ended. Cancel safe.
    async fn run(&mut self) -> Result<(), RtcError> {
        let mut datagram = [0; MAX_DATAGRAM];
        while self.rtc.is_alive() {
            let next = match self.rtc.poll_output()? {
                Output::Timeout(at) => Instant::from_std(at),
                Output::Transmit(packet) => {
                    let from = |socket: &&UdpSocket| {
                        socket.local_addr().is_ok_and(|address| address == packet.source)
                    };
                    if let Some(socket) = self.sockets.iter().find(from) {
                        // A datagram that is lost here is retransmitted where that matters.
                        let _ = socket.try_send_to(&packet.contents, packet.destination);
                    }
                    continue;
                }
                Output::Event(event) => {
                    self.handle_event(event)?;
                    continue;
                }
            };
            if self.send_echoes()? {
                continue;
            }
            let arrived = tokio::select! {
                arrived = receive(&self.sockets, &mut datagram) => arrived,
                () = sleep_until(next) => None,
            };
            let now = Instant::now().into_std();
            self.rtc.handle_input(Input::Timeout(now))?;
            if let Some((source, destination, length)) = arrived
                && let Some(datagram) = datagram.get(..length)
                && let Ok(packet) = Receive::new(Protocol::Udp, source, destination, datagram)
            {
                self.rtc.handle_input(Input::Receive(now, packet))?;
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the bot does not use media")]
    fn handle_event(&mut self, event: RtcEvent) -> Result<(), RtcError> {
        match event {
            RtcEvent::ChannelOpen(id, label) => {
                println!("channel {label:?} is open");
                if let Some(mut channel) = self.rtc.channel(id) {
                    channel.set_buffered_amount_low_threshold(LOW_BUFFERED_AMOUNT);
                }
            }
            RtcEvent::ChannelData(ChannelData { id, binary, data }) => {
                self.echo_queue.push_back((id, binary, data));
                if self.echo_queue.iter().map(|(.., data)| data.len()).sum::<usize>() > MAX_QUEUED {
                    self.rtc.close()?;
                }
            }
            RtcEvent::IceConnectionStateChange(state) => {
                let name = match state {
                    IceConnectionState::Disconnected => "disconnected",
                    IceConnectionState::Connected | IceConnectionState::Completed => "connected",
                    IceConnectionState::New | IceConnectionState::Checking => "checking",
                };
                println!("ICE is {name}");
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends the queued echoes that the channels accept; returns whether there were any.
    fn send_echoes(&mut self) -> Result<bool, RtcError> {
        let mut has_sent = false;
        while let Some((id, binary, data)) = self.echo_queue.front() {
            // The echoes of a closed channel are discarded.
            let accepted = match self.rtc.channel(*id) {
                Some(mut channel) => channel.write(*binary, data)?,
                None => true,
            };
            if !accepted {
                break;
            }
            self.echo_queue.pop_front();
            has_sent = true;
        }
        Ok(has_sent)
    }
}

/// The next datagram on any of the sockets: its source, its destination and its length.
async fn receive(
    sockets: &[UdpSocket],
    datagram: &mut [u8],
) -> Option<(SocketAddr, SocketAddr, usize)> {
    poll_fn(|cx| {
        for socket in sockets {
            let mut buffer = ReadBuf::new(datagram);
            if let Poll::Ready(source) = socket.poll_recv_from(cx, &mut buffer) {
                let arrived = source.ok().zip(socket.local_addr().ok());
                let length = buffer.filled().len();
                return Poll::Ready(arrived.map(|(source, local)| (source, local, length)));
            }
        }
        Poll::Pending
    })
    .await
}

/// The loopback addresses, and the addresses of the default routes.
fn addresses() -> Vec<IpAddr> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    // Connecting a UDP socket sends nothing; it only selects the local address of the route. The destinations are
    // reserved for documentation (RFC 5737, RFC 3849).
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let found = StdUdpSocket::bind(from).and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        });
        addresses.extend(found.map(|address| address.ip()));
    }
    addresses
}
