//! Answers everyone in a room, and says back what comes on their data channels.
//!
//! ```text
//! cargo run -p signaling-client --example echo_bot -- --url http://127.0.0.1:8080 --room standup
//! ```
//!
//! It never offers, so it never collides with an offer of somebody else's. It has UDP candidates on
//! this machine alone: whoever cannot reach those needs a TURN relay, and uses it from its own side.

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
use signaling_client::{Change, Event, Options, Session, SignalKind, State, start};
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

/// How long a call with somebody goes on whom the server has forgotten.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// Larger datagrams are none of WebRTC's.
const LARGEST_DATAGRAM: usize = 2000;

/// What may wait to be said back to somebody, in bytes; more ends the call.
const MOST_UNSAID: usize = 16 * 1024 * 1024;

/// What is left of that where saying it back goes on.
const LITTLE_UNSAID: usize = 64 * 1024;

type Fault = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Answers everyone in a room, and says back what comes on their data channels.")]
struct Arguments {
    /// Where the server is, such as https://example.com
    #[arg(long)]
    url: String,
    #[arg(long)]
    room: String,
    /// A guest comes without
    #[arg(long, requires = "password")]
    username: Option<String>,
    #[arg(long, requires = "username")]
    password: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let Arguments { url, room, username, password } = Arguments::parse();
    let mut options = Options::new(url, room);
    if let (Some(username), Some(password)) = (username, password) {
        options = options.login(username, password);
    }
    let (session, mut events) = start(options)?;
    let mut desk = Desk { session: session.clone(), calls: BTreeMap::new() };
    let mut stop = pin!(asked_to_stop());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => desk.hears(event)?,
                None => return Ok(()),
            },
            () = desk.misses_somebody() => {}
            asked = &mut stop => {
                asked?;
                session.close().await;
                return Ok(());
            }
        }
    }
}

/// Ctrl-C, or what an init system sends.
async fn asked_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalType::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        asked = ctrl_c() => asked,
    }
}

/// Who calls, by client id.
struct Desk {
    session: Session,
    calls: BTreeMap<String, Call>,
}

/// What reaches the task that talks to one peer; it ends when this is dropped.
struct Call {
    tell: mpsc::UnboundedSender<(SignalKind, Value)>,
    /// When it is over if its peer does not come back.
    over_at: Option<Instant>,
}

impl Desk {
    fn hears(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::PeerJoined(peer) => {
                println!("{} is there: {}", peer.username, peer.client_id);
                self.call(&peer.client_id).over_at = None;
            }
            Event::PeerLeft { peer, is_missing: false } => {
                println!("{} has left: {}", peer.username, peer.client_id);
                self.calls.remove(&peer.client_id);
            }
            Event::PeerLeft { peer, is_missing: true } => {
                println!("{} is missing: {}", peer.username, peer.client_id);
                self.call(&peer.client_id).over_at = Some(Instant::now() + MISSING_FOR);
            }
            Event::Signal { from, kind, payload, .. } => {
                let _ = self.call(&from).tell.send((kind, payload)); // its task outlives it
            }
            Event::State(Change { state: State::Closed, reason, .. }) => {
                return Err(format!("out: {}", reason.unwrap_or_default()).into());
            }
            Event::State(Change { state: State::Connected, .. }) => {
                println!("in, as {}", self.session.id());
            }
            Event::State(Change { retry_in, reason, .. }) => {
                let reason = reason.filter(|reason| !reason.is_empty());
                let reason = reason.as_deref().unwrap_or("the connection is lost");
                println!("{reason}; again in {:?}", retry_in.unwrap_or_default());
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
            let (tell, told) = mpsc::unbounded_channel();
            tokio::spawn(talk(session.clone(), peer.to_owned(), told));
            Call { tell, over_at: None }
        })
    }

    /// Ends the calls of those who are missing for too long.
    async fn misses_somebody(&mut self) {
        let Some(next) = self.calls.values().filter_map(|call| call.over_at).min() else {
            return pending().await;
        };
        sleep_until(next).await;
        self.calls.retain(|_, call| call.over_at.is_none_or(|at| at > next));
    }
}

/// Everything with one peer, on one connection after the other.
async fn talk(
    session: Session,
    peer: String,
    mut told: mpsc::UnboundedReceiver<(SignalKind, Value)>,
) {
    let mut connection: Option<Connection> = None;
    // Candidates may be faster than their description.
    let mut early = Vec::new();
    loop {
        let goes_on = async {
            match &mut connection {
                Some(connection) => connection.goes_on().await,
                None => pending().await,
            }
        };
        let news = tokio::select! {
            news = told.recv() => news,
            ended = goes_on => {
                println!("{peer}: the connection is over{}", ended.err().map_or(String::new(), |why| format!(": {why}")));
                connection = None;
                continue;
            }
        };
        match news {
            Some((SignalKind::Offer, offer)) => {
                let answered = answer(&mut connection, &offer).await;
                match answered {
                    Ok(answer) => session.signal(SignalKind::Answer, answer, Some(&peer)),
                    Err(why) => {
                        println!("{peer}: an offer that is none: {why}");
                        continue;
                    }
                }
                if let Some(connection) = &mut connection {
                    early.drain(..).for_each(|candidate| connection.hears_of(candidate));
                }
                // All of ours are in the answer.
                session.signal(SignalKind::IceCandidate, Value::Null, Some(&peer));
            }
            Some((SignalKind::IceCandidate, candidate)) => match &mut connection {
                Some(connection) => connection.hears_of(candidate),
                None => early.push(candidate),
            },
            Some((SignalKind::Answer, _)) => {} // to nothing that we said
            None => return,
        }
    }
}

/// Answers on the connection that there is, or on a new one where the peer has begun anew.
async fn answer(connection: &mut Option<Connection>, offer: &Value) -> Result<Value, Fault> {
    let text = |name: &str| offer.get(name).and_then(Value::as_str).unwrap_or_default();
    let (sdp, their_key) = (SdpOffer::from_sdp_string(text("sdp"))?, text("pc"));
    let current = connection.take().filter(|current| current.their_key == their_key);
    let mut current = match current {
        Some(current) => current,
        None => Connection::begin(their_key).await?,
    };
    let answer = current.rtc.sdp_api().accept_offer(sdp);
    let key = current.key.clone();
    *connection = Some(current);
    Ok(json!({"type":"answer","sdp":answer?.to_sdp_string(),"pc":key}))
}

/// What a browser calls an RTCPeerConnection.
struct Connection {
    rtc: Rtc,
    /// Tells it from the one before, and theirs from theirs.
    key: String,
    their_key: String,
    sockets: Vec<UdpSocket>,
    unsaid: VecDeque<(ChannelId, bool, Vec<u8>)>,
}

impl Connection {
    async fn begin(their_key: &str) -> Result<Self, Fault> {
        let mut rtc = RtcConfig::new().build(Instant::now().into_std());
        let mut sockets = Vec::new();
        for address in addresses() {
            let Ok(socket) = UdpSocket::bind((address, 0)).await else { continue };
            let Ok(candidate) = Candidate::host(socket.local_addr()?, "udp") else { continue };
            rtc.add_local_candidate(candidate);
            sockets.push(socket);
        }
        // A port that was free a moment ago tells connections apart as well as dice.
        let ports = sockets.iter().filter_map(|socket| Some(socket.local_addr().ok()?.port()));
        let key = ports.map(|port| format!("{port:x}")).collect::<Vec<_>>().join("-");
        let their_key = their_key.to_owned();
        Ok(Self { rtc, key, their_key, sockets, unsaid: VecDeque::new() })
    }

    fn hears_of(&mut self, candidate: Value) {
        // Names that only their browser knows (`.local`) do not parse, and need not: its checks come
        // from where it is. The end of candidates is nothing to us, for we never give up before it.
        let candidate = candidate.get("candidate").and_then(Value::as_str).unwrap_or_default();
        if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    /// Until it is over. May be given up at any time, and taken up again.
    async fn goes_on(&mut self) -> Result<(), RtcError> {
        let mut datagram = [0; LARGEST_DATAGRAM];
        while self.rtc.is_alive() {
            let next = match self.rtc.poll_output()? {
                Output::Timeout(at) => Instant::from_std(at),
                Output::Transmit(packet) => {
                    let from = |socket: &&UdpSocket| {
                        socket.local_addr().is_ok_and(|address| address == packet.source)
                    };
                    if let Some(socket) = self.sockets.iter().find(from) {
                        // What a full buffer or a dead route loses is sent again, or was in vain.
                        let _ = socket.try_send_to(&packet.contents, packet.destination);
                    }
                    continue;
                }
                Output::Event(event) => {
                    self.happens(event)?;
                    continue;
                }
            };
            if self.says_back()? {
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

    #[expect(clippy::wildcard_enum_match_arm, reason = "media is not listened to")]
    fn happens(&mut self, event: RtcEvent) -> Result<(), RtcError> {
        match event {
            RtcEvent::ChannelOpen(id, label) => {
                println!("channel {label:?} is open");
                if let Some(mut channel) = self.rtc.channel(id) {
                    channel.set_buffered_amount_low_threshold(LITTLE_UNSAID);
                }
            }
            RtcEvent::ChannelData(ChannelData { id, binary, data }) => {
                self.unsaid.push_back((id, binary, data));
                if self.unsaid.iter().map(|(.., data)| data.len()).sum::<usize>() > MOST_UNSAID {
                    self.rtc.close()?;
                }
            }
            RtcEvent::IceConnectionStateChange(state) => {
                let name = match state {
                    IceConnectionState::Disconnected => "lost, for now",
                    IceConnectionState::Connected | IceConnectionState::Completed => "reached",
                    IceConnectionState::New | IceConnectionState::Checking => "looked for",
                };
                println!("a peer is {name}");
            }
            _ => {}
        }
        Ok(())
    }

    /// Says back what there is room for; whether that was anything.
    fn says_back(&mut self) -> Result<bool, RtcError> {
        let mut has_spoken = false;
        while let Some((id, binary, data)) = self.unsaid.front() {
            // A channel that was closed meanwhile takes everything.
            let taken = match self.rtc.channel(*id) {
                Some(mut channel) => channel.write(*binary, data)?,
                None => true,
            };
            if !taken {
                break;
            }
            self.unsaid.pop_front();
            has_spoken = true;
        }
        Ok(has_spoken)
    }
}

/// The next datagram on any of the sockets: from where, to where, how long.
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
                return Poll::Ready(arrived.map(|(source, here)| (source, here, length)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Where this machine can be reached: on itself, and from where it reaches the world.
fn addresses() -> Vec<IpAddr> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    // Nothing is sent: the system only says which of its addresses it would send from. These two are
    // for documentation (RFC 5737, RFC 3849) and nobody's.
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let found = StdUdpSocket::bind(from).and_then(|socket| {
            socket.connect(to)?;
            socket.local_addr()
        });
        addresses.extend(found.map(|address| address.ip()));
    }
    addresses
}
