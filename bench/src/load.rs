//! The clients: any number of connections on one thread, over epoll, with no buffer that is not needed.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use memchr::memmem;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::{self, CLOSE, PING, PONG, TEXT};

/// What a scenario does with what its clients hear.
pub trait Scenario {
    /// A client sits in its room.
    fn seated(&mut self, load: &mut Load, who: usize) -> io::Result<()>;
    /// A client that sits has heard a text message.
    fn heard(&mut self, load: &mut Load, who: usize, message: &[u8]) -> io::Result<()>;
    /// A client's connection has ended.
    fn gone(&mut self, _load: &mut Load, who: usize) -> io::Result<()> {
        Err(io::Error::other(format!("client {who} was let go")))
    }
}

/// Who a client says it is.
#[derive(Clone)]
pub struct Identity {
    /// The room, as it stands in the URL.
    pub room: String,
    /// The client id that it asks for.
    pub id: String,
}

/// Every client of this process.
pub struct Load {
    addresses: Vec<SocketAddr>,
    token: String,
    poll: Poll,
    events: Option<Events>,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    connected: u32,
    busy: Duration,
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    stage: Stage,
    identity: Identity,
}

#[derive(PartialEq)]
enum Stage {
    Connecting,
    Upgrading,
    Introducing,
    Seated,
}

impl Load {
    /// No clients yet; those to come connect to `address` with `token`.
    pub fn new(address: SocketAddr, token: String) -> io::Result<Self> {
        Self::over(vec![address], token)
    }

    /// As well, to each of `addresses` in turn.
    pub fn over(addresses: Vec<SocketAddr>, token: String) -> io::Result<Self> {
        Ok(Self {
            addresses,
            token,
            poll: Poll::new()?,
            events: Some(Events::with_capacity(1024)),
            clients: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; 64 * 1024],
            connected: 0,
            busy: Duration::ZERO,
        })
    }

    /// Begins to connect; [`Scenario::seated`] tells when the client has sat down.
    pub fn connect(&mut self, identity: Identity) -> io::Result<usize> {
        let address = self.addresses[self.connected as usize % self.addresses.len()];
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // All of 127.0.0.0/8 is this machine: so that no limit on one address is met.
        self.connected += 1;
        let [_, high, middle, low] = (self.connected % 65_000).to_be_bytes();
        let source = Ipv4Addr::new(127, 1 + high, middle, low.max(1));
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(115) => return Err(error), // EINPROGRESS
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let who = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(who), both)?;
        let (unread, unsent) = (Vec::new(), Vec::new());
        self.clients[who] =
            Some(Client { stream, unread, unsent, stage: Stage::Connecting, identity });
        Ok(who)
    }

    /// Writes bytes that are frames already.
    pub fn send(&mut self, who: usize, frames: &[u8]) -> io::Result<()> {
        let Some(client) = &mut self.clients[who] else { return Ok(()) };
        if !client.unsent.is_empty() {
            client.unsent.extend_from_slice(frames);
            return Ok(());
        }
        let written = match client.stream.write(frames) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < frames.len() {
            client.unsent.extend_from_slice(&frames[written..]);
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().reregister(&mut client.stream, Token(who), both)?;
        }
        Ok(())
    }

    /// Hangs up; nothing is heard of this client any more.
    pub fn hang_up(&mut self, who: usize) {
        if let Some(mut client) = self.clients[who].take() {
            let _ = self.poll.registry().deregister(&mut client.stream);
            self.free.push(who);
        }
    }

    /// Handles what has happened, after waiting for `patience` at most where nothing has.
    pub fn turn(&mut self, scenario: &mut impl Scenario, patience: Duration) -> io::Result<()> {
        let Some(mut events) = self.events.take() else { return Ok(()) };
        let began = Instant::now();
        match self.poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let handled = events.iter().try_for_each(|event| {
            let who = event.token().0;
            if event.is_writable() {
                self.writable(who)?;
            }
            if event.is_readable() { self.readable(who, scenario) } else { Ok(()) }
        });
        if !events.is_empty() {
            self.busy += began.elapsed();
        }
        self.events = Some(events);
        handled
    }

    /// How long there has been something to do, so far. It never sleeps while it measures, so that its
    /// processor time says nothing.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Counts `took` among that.
    pub fn was_busy(&mut self, took: Duration) {
        self.busy += took;
    }

    /// Turns without ever sleeping until `done`; an error when that takes longer than `patience`.
    pub fn until<S: Scenario>(
        &mut self,
        scenario: &mut S,
        patience: Duration,
        mut done: impl FnMut(&S) -> bool,
    ) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while !done(scenario) {
            self.turn(scenario, Duration::ZERO)?;
            if Instant::now() > deadline {
                return Err(io::Error::other("the server did not do in time what was waited for"));
            }
        }
        Ok(())
    }

    fn writable(&mut self, who: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[who] else { return Ok(()) };
        if client.stage == Stage::Connecting {
            if let Some(error) = client.stream.take_error()? {
                return Err(error);
            }
            let upgrade = format!(
                "GET /ws/{} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                client.identity.room,
                client.stream.peer_addr()?
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
            let registry = self.poll.registry();
            registry.reregister(&mut client.stream, Token(who), Interest::READABLE)?;
        }
        Ok(())
    }

    fn readable(&mut self, who: usize, scenario: &mut impl Scenario) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.read_with(who, scenario, &mut scratch);
        self.scratch = scratch;
        read
    }

    fn read_with(
        &mut self,
        who: usize,
        scenario: &mut impl Scenario,
        scratch: &mut [u8],
    ) -> io::Result<()> {
        loop {
            let Some(client) = &mut self.clients[who] else { return Ok(()) };
            let length = match client.stream.read(scratch) {
                Ok(0) => {
                    self.hang_up(who);
                    return scenario.gone(self, who);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_reset) => {
                    self.hang_up(who);
                    return scenario.gone(self, who);
                }
            };
            let fresh = &scratch[..length];
            if client.unread.is_empty() {
                let used = self.take(who, scenario, fresh)?;
                if used < length
                    && let Some(client) = &mut self.clients[who]
                {
                    client.unread.extend_from_slice(&fresh[used..]);
                }
            } else {
                let mut whole = std::mem::take(&mut client.unread);
                whole.extend_from_slice(fresh);
                let used = self.take(who, scenario, &whole)?;
                whole.drain(..used);
                if !whole.is_empty()
                    && let Some(client) = &mut self.clients[who]
                {
                    client.unread = whole;
                }
            }
            if length < scratch.len() {
                return Ok(()); // epoll tells when there is more
            }
        }
    }

    fn take(
        &mut self,
        who: usize,
        scenario: &mut impl Scenario,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let mut used = 0;
        let Some(client) = &mut self.clients[who] else { return Ok(bytes.len()) };
        if client.stage == Stage::Upgrading {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let answer = String::from_utf8_lossy(bytes).into_owned();
                return Err(io::Error::other(format!("no upgrade: {answer}")));
            }
            client.stage = Stage::Introducing;
            let introduction = format!(
                r#"{{"clientId":"{}","type":"auth_token","token":"{}"}}"#,
                client.identity.id, self.token
            );
            let mut frame = Vec::new();
            frames::push_masked(&mut frame, TEXT, introduction.as_bytes());
            self.send(who, &frame)?;
            used = end + 4;
        }
        while let Some(frame) = frames::first(&bytes[used..]) {
            let payload = &bytes[used + frame.start..used + frame.end];
            used += frame.end;
            match frame.opcode {
                TEXT => self.text(who, scenario, payload)?,
                PING => {
                    let mut pong = Vec::new();
                    frames::push_masked(&mut pong, PONG, payload);
                    self.send(who, &pong)?;
                }
                CLOSE => {
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    eprintln!("client {who} was closed: {reason}");
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn text(&mut self, who: usize, scenario: &mut impl Scenario, text: &[u8]) -> io::Result<()> {
        let Some(client) = &mut self.clients[who] else { return Ok(()) };
        match client.stage {
            Stage::Seated => scenario.heard(self, who, text),
            _ if memmem::find(text, br#""users_in_room""#).is_some() => {
                client.stage = Stage::Seated;
                scenario.seated(self, who)
            }
            _ => Ok(()),
        }
    }
}
