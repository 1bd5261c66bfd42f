//! The clients: any number of connections on one thread, over epoll, with no unnecessary buffers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use memchr::memmem;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    frames::{self, CLOSE, PING, PONG, TEXT},
    tls::Stream,
};

/// What a scenario does with the frames that its clients receive.
pub trait Scenario {
    /// A client has joined its room.
    fn joined(&mut self, load: &mut Load, index: usize) -> io::Result<()>;
    /// A joined client has received a text frame.
    fn received(&mut self, load: &mut Load, index: usize, message: &[u8]) -> io::Result<()>;
    /// The connection of a client has ended.
    fn disconnected(&mut self, _load: &mut Load, index: usize) -> io::Result<()> {
        Err(io::Error::other(format!("client {index} was disconnected")))
    }
}

/// The room and the client id of a client.
#[derive(Clone)]
pub struct Identity {
    /// The room, as in the URL.
    pub room: String,
    /// The client id that it requests.
    pub id: String,
}

/// All clients of this process.
pub struct Load {
    addresses: Vec<SocketAddr>,
    token: String,
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    events: Option<Events>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    connected: u32,
    busy: Duration,
}

struct Client {
    stream: Stream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    stage: Stage,
    identity: Identity,
}

#[derive(PartialEq)]
enum Stage {
    Connecting,
    Upgrading,
    Authenticating,
    Joined,
}

impl Load {
    /// No clients yet; they will connect to `address` with `token`.
    pub fn new(address: SocketAddr, token: String) -> io::Result<Self> {
        Self::over(vec![address], token)
    }

    /// As [`Self::new`], with `addresses` in turn.
    pub fn over(addresses: Vec<SocketAddr>, token: String) -> io::Result<Self> {
        Ok(Self {
            addresses,
            token,
            tls: None,
            poll: Poll::new()?,
            events: Some(Events::with_capacity(1024)),
            clients: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; 64 * 1024],
            connected: 0,
            busy: Duration::ZERO,
        })
    }

    /// The clients connect over TLS from now on.
    pub fn with_tls(self, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls, ..self }
    }

    /// Starts to connect; [`Scenario::joined`] is called when the client has joined.
    pub fn connect(&mut self, identity: Identity) -> io::Result<usize> {
        let address = self.addresses[self.connected as usize % self.addresses.len()];
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Each client has its own source address in 127.0.0.0/8, so that it reaches no limit for one address.
        self.connected += 1;
        let [_, high, middle, low] = (self.connected % 65_000).to_be_bytes();
        let source = Ipv4Addr::new(127, 1 + high, middle, low.max(1));
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(115) => return Err(error), // EINPROGRESS
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let index = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), both)?;
        let (unread, unsent) = (Vec::new(), Vec::new());
        let name = format!("{}-{}", identity.room, identity.id);
        let tls = self.tls.clone().map(|tls| (tls, name.as_str()));
        let stream = Stream::client(stream, tls)?;
        self.clients[index] =
            Some(Client { stream, unread, unsent, stage: Stage::Connecting, identity });
        Ok(index)
    }

    /// Writes encoded frames.
    pub fn send(&mut self, index: usize, frames: &[u8]) -> io::Result<()> {
        let Some(client) = &mut self.clients[index] else { return Ok(()) };
        if !client.unsent.is_empty() {
            client.unsent.extend_from_slice(frames);
            return Ok(());
        }
        let written = match client.stream.write(frames) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < frames.len() || client.stream.is_blocked() {
            client.unsent.extend_from_slice(&frames[written..]);
            client.stream.watch(self.poll.registry(), Token(index), !client.unsent.is_empty())?;
        }
        Ok(())
    }

    /// Closes the connection of a client, without further calls to the scenario.
    pub fn hang_up(&mut self, index: usize) {
        if let Some(mut client) = self.clients[index].take() {
            let _ = self.poll.registry().deregister(client.stream.socket());
            self.free.push(index);
        }
    }

    /// Handles all pending events; waits for at most `timeout` if there are none.
    pub fn turn(&mut self, scenario: &mut impl Scenario, timeout: Duration) -> io::Result<()> {
        let Some(mut events) = self.events.take() else { return Ok(()) };
        let start = Instant::now();
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let handled = events.iter().try_for_each(|event| {
            let index = event.token().0;
            if event.is_writable() {
                self.writable(index)?;
            }
            if event.is_readable() {
                self.readable(index, scenario)?;
                if event.is_read_closed() {
                    self.readable(index, scenario)?; // one event for the last data and the end
                }
                self.send_upgrade(index)?;
            }
            Ok(())
        });
        if !events.is_empty() {
            self.busy += start.elapsed();
        }
        self.events = Some(events);
        handled
    }

    /// How long the bench has had work so far. It never sleeps during a measurement, so its processor time is of no use.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Adds to [`Self::busy`].
    pub fn add_busy(&mut self, duration: Duration) {
        self.busy += duration;
    }

    /// Calls [`Self::turn`] without sleeping until `done`; an error after `timeout`.
    pub fn until<S: Scenario>(
        &mut self,
        scenario: &mut S,
        timeout: Duration,
        mut done: impl FnMut(&S) -> bool,
    ) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        while !done(scenario) {
            self.turn(scenario, Duration::ZERO)?;
            if Instant::now() > deadline {
                return Err(io::Error::other("the server did not respond in time"));
            }
        }
        Ok(())
    }

    fn writable(&mut self, index: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[index] else { return Ok(()) };
        if client.stage == Stage::Connecting {
            if let Some(error) = client.stream.socket().take_error()? {
                return Err(error);
            }
            let upgrade = format!(
                "GET /ws/{} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                client.identity.room,
                client.stream.socket().peer_addr()?
            );
            client.stage = Stage::Upgrading;
            client.unsent = upgrade.into_bytes();
        }
        let written = match client.stream.write(&client.unsent) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        client.unsent.drain(..written);
        if client.unsent.is_empty() {
            client.unsent = Vec::new();
            client.stream.watch(self.poll.registry(), Token(index), false)?;
        }
        Ok(())
    }

    /// The end of a TLS handshake lets go what has waited for it.
    fn send_upgrade(&mut self, index: usize) -> io::Result<()> {
        match &self.clients[index] {
            Some(client) if client.stage == Stage::Upgrading && !client.unsent.is_empty() => {
                self.writable(index)
            }
            _ => Ok(()),
        }
    }

    fn readable(&mut self, index: usize, scenario: &mut impl Scenario) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.read_with(index, scenario, &mut scratch);
        self.scratch = scratch;
        read
    }

    fn read_with(
        &mut self,
        index: usize,
        scenario: &mut impl Scenario,
        scratch: &mut [u8],
    ) -> io::Result<()> {
        loop {
            let Some(client) = &mut self.clients[index] else { return Ok(()) };
            let length = match client.stream.read(scratch) {
                Ok(0) => {
                    self.hang_up(index);
                    return scenario.disconnected(self, index);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_reset) => {
                    self.hang_up(index);
                    return scenario.disconnected(self, index);
                }
            };
            let fresh = &scratch[..length];
            if client.unread.is_empty() {
                let used = self.handle_bytes(index, scenario, fresh)?;
                if used < length
                    && let Some(client) = &mut self.clients[index]
                {
                    client.unread.extend_from_slice(&fresh[used..]);
                }
            } else {
                let mut whole = std::mem::take(&mut client.unread);
                whole.extend_from_slice(fresh);
                let used = self.handle_bytes(index, scenario, &whole)?;
                whole.drain(..used);
                if !whole.is_empty()
                    && let Some(client) = &mut self.clients[index]
                {
                    client.unread = whole;
                }
            }
            if self.clients[index]
                .as_ref()
                .is_none_or(|it| it.stream.is_drained(length, scratch.len()))
            {
                return Ok(()); // epoll reports further data
            }
        }
    }

    fn handle_bytes(
        &mut self,
        index: usize,
        scenario: &mut impl Scenario,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut used = 0;
        let Some(client) = &mut self.clients[index] else { return Ok(bytes.len()) };
        if client.stage == Stage::Upgrading {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let response = String::from_utf8_lossy(bytes).into_owned();
                return Err(io::Error::other(format!("no upgrade: {response}")));
            }
            client.stage = Stage::Authenticating;
            let auth = format!(
                r#"{{"clientId":"{}","type":"auth_token","token":"{}"}}"#,
                client.identity.id, self.token
            );
            let mut frame = Vec::new();
            frames::push_masked(&mut frame, TEXT, auth.as_bytes());
            self.send(index, &frame)?;
            used = end + 4;
        }
        while let Some(frame) = frames::first(&bytes[used..]) {
            let payload = &bytes[used + frame.start..used + frame.end];
            used += frame.end;
            match frame.opcode {
                TEXT => self.handle_text(index, scenario, payload)?,
                PING => {
                    let mut pong = Vec::new();
                    frames::push_masked(&mut pong, PONG, payload);
                    self.send(index, &pong)?;
                }
                CLOSE => {
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    eprintln!("client {index} was closed: {reason}");
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn handle_text(
        &mut self,
        index: usize,
        scenario: &mut impl Scenario,
        text: &[u8],
    ) -> io::Result<()> {
        let Some(client) = &mut self.clients[index] else { return Ok(()) };
        match client.stage {
            Stage::Joined => scenario.received(self, index, text),
            _ if memmem::find(text, br#""users_in_room""#).is_some() => {
                client.stage = Stage::Joined;
                scenario.joined(self, index)
            }
            _ => Ok(()),
        }
    }
}
