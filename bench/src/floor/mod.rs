//! The floor: the cost of a relay that does nothing else. One thread, epoll, no JSON, no tokens, no limits, and TLS only if it gets a
//! certificate.
//!
//! It implements the part of the protocol that the bench uses: an upgrade, three frames for a client that joins, and a
//! frame for each other member. It relays every text frame to the peer whose id is at its start (`{"to":"…"`), or else
//! to all other members of the room. With a [`Link`], frames for a peer that is not here go to another of its kind.

mod link;

use std::{collections::HashMap, io, net::SocketAddr, path::Path, sync::Arc};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use memchr::{memchr, memmem};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use rustls::ServerConfig;

use self::link::Link;
use crate::{
    frames::{self, CLOSE, PING, PONG, TEXT},
    tls::{self, Stream},
};

const LISTENER: Token = Token(usize::MAX);
const LINK: [Token; 2] = [Token(usize::MAX - 1), Token(usize::MAX - 2)];

const AUTH_REQUIRED: &str = r#"{"type":"auth_required","message":"Authentication required"}"#;
const AUTH_SUCCESS: &str = r#"{"type":"auth_success","user":"user","client_id":"0123456789","message":"Authentication successful"}"#;
const NO_USERS: &str = r#"{"type":"users_in_room","users":[]}"#;
const USER_JOINED: &str = r#"{"type":"user_joined","room_id":"room-000000","username":"user","client_id":"0123456789","connected_users":2}"#;
const USER_LEFT: &str = r#"{"type":"user_left","room_id":"room-000000","client_id":"0123456789","username":"user","connected_users":1}"#;

struct Member {
    stream: Stream,
    /// The start of an incomplete frame or upgrade request.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    room: Option<Vec<u8>>,
    id: Vec<u8>,
    /// The target of its last frame, where the floor is a leaner one and that member is still there.
    target: Option<usize>,
}

struct Floor {
    poll: Poll,
    /// Whether frames go to the target of the last one from where they were received: nothing is looked up or copied.
    is_lean: bool,
    tls: Option<Arc<ServerConfig>>,
    /// Where members are that are not here.
    link: Option<Link>,
    members: Vec<Option<Member>>,
    free: Vec<usize>,
    rooms: HashMap<Vec<u8>, Vec<usize>>,
    scratch: Vec<u8>,
    frame: Vec<u8>,
}

/// Serves until the process is killed; prints its address on standard output. The arguments are the address to listen on, and
/// nothing; or `lean`; or `tls` and the paths of a certificate and of its key; or `link`, the address of a Redis, the own inbox, and that of the
/// other one.
pub fn run(arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (address, tls, mut link) = match words[..] {
        [address] | [address, "lean"] => (address, None, None),
        [address, "tls", chain, key] => {
            (address, Some(tls::floor(Path::new(chain), Path::new(key))?), None)
        }
        [address, "link", redis, own, peer] => {
            (address, None, Some(Link::connect(parse(redis)?, own.to_owned(), peer.to_owned())?))
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut listener = TcpListener::bind(parse(address)?)?;
    println!("{}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    if let Some(link) = &mut link {
        link.register(poll.registry(), LINK)?;
    }
    let mut floor = Floor {
        poll,
        is_lean: words.contains(&"lean"),
        tls,
        link,
        members: Vec::new(),
        free: Vec::new(),
        rooms: HashMap::new(),
        scratch: vec![0; 64 * 1024],
        frame: Vec::new(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        floor.poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        floor.add(stream)?;
                    }
                }
                token if LINK.contains(&token) => floor.read_link(token)?,
                Token(index) => {
                    if event.is_writable() {
                        floor.flush(index);
                    }
                    // One event may tell of the last data and of the end.
                    let reads =
                        usize::from(event.is_readable()) + usize::from(event.is_read_closed());
                    if (0..reads).any(|_| floor.read(index).is_err()) {
                        floor.leave(index);
                    }
                }
            }
        }
        if let Some(link) = &mut floor.link {
            link.flush()?;
        }
    }
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(io::Error::other)
}

impl Floor {
    fn add(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        let (unread, unsent, room, id) = (Vec::new(), Vec::new(), None, Vec::new());
        let stream = Stream::server(stream, self.tls.clone())?;
        self.members[index] = Some(Member { stream, unread, unsent, room, id, target: None });
        Ok(())
    }

    /// Reads all available data. An error means that the connection has ended.
    fn read(&mut self, index: usize) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.read_with(index, &mut scratch);
        self.scratch = scratch;
        done
    }

    fn read_with(&mut self, index: usize, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let Some(member) = &mut self.members[index] else { return Ok(()) };
            let length = match member.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let fresh = &mut scratch[..length];
            if member.unread.is_empty() {
                let used = self.handle_bytes(index, fresh)?;
                if used < length
                    && let Some(member) = &mut self.members[index]
                {
                    member.unread.extend_from_slice(&fresh[used..]);
                }
            } else {
                let mut whole = std::mem::take(&mut member.unread);
                whole.extend_from_slice(fresh);
                let used = self.handle_bytes(index, &mut whole)?;
                whole.drain(..used);
                if !whole.is_empty()
                    && let Some(member) = &mut self.members[index]
                {
                    member.unread = whole;
                }
            }
            if self.members[index]
                .as_ref()
                .is_none_or(|it| it.stream.is_drained(length, scratch.len()))
            {
                return Ok(()); // epoll reports further data
            }
        }
    }

    /// Handles all complete frames; returns how many bytes they had.
    fn handle_bytes(&mut self, index: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        if self.members[index].as_ref().is_some_and(|member| member.room.is_none()) {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            self.upgrade(index, &bytes[..end + 2])?;
            used = end + 4;
        }
        while let Some(frame) = frames::first(&bytes[used..]) {
            let payload = &mut bytes[used + frame.start..used + frame.end];
            if let Some(mask) = frame.mask.filter(|mask| *mask != [0; 4]) {
                payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
            }
            let target = self.members[index].as_ref().and_then(|member| member.target);
            match (frame.opcode, target) {
                (TEXT, Some(target)) => {
                    // The head of a frame without a mask is shorter.
                    let head = frames::plain_head(TEXT, payload.len());
                    let start = used + frame.start - head.len();
                    bytes[start..start + head.len()].copy_from_slice(&head);
                    self.write(target, &bytes[start..used + frame.end]);
                }
                (TEXT, None) => self.handle_text(index, payload),
                (PING, _) => self.send(index, PONG, payload),
                (CLOSE, _) => {
                    self.send(index, CLOSE, payload);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                _ => {}
            }
            used += frame.end;
        }
        Ok(used)
    }

    fn upgrade(&mut self, index: usize, head: &[u8]) -> io::Result<()> {
        let between = |start: &[u8], end: u8| {
            let from = memmem::find(head, start)? + start.len();
            Some(&head[from..from + memchr(end, &head[from..])?])
        };
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let room = between(b"/ws/", b' ').ok_or_else(broken)?.to_vec();
        let key = between(b"Sec-WebSocket-Key: ", b'\r').ok_or_else(broken)?;
        let accepted = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        let accepted = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &accepted));
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accepted}\r\n\r\n"
        );
        self.write(index, answer.as_bytes());
        self.send(index, TEXT, AUTH_REQUIRED.as_bytes());
        if let Some(member) = &mut self.members[index] {
            member.room = Some(room);
        }
        Ok(())
    }

    fn handle_text(&mut self, index: usize, message: &[u8]) {
        let Some(member) = &mut self.members[index] else { return };
        let Some(room) = &member.room else { return };
        if member.id.is_empty() {
            // The first frame of the bench starts with this field: {"clientId":"…",
            member.id = quoted_after(message, br#"{"clientId":""#).unwrap_or(b"?").to_vec();
            let room = room.clone();
            self.send(index, TEXT, AUTH_SUCCESS.as_bytes());
            self.send(index, TEXT, NO_USERS.as_bytes());
            self.rooms.entry(room).or_default().push(index);
            return self.send_to_others(index, USER_JOINED.as_bytes());
        }
        let to = quoted_after(message, br#"{"to":""#);
        let Some(to) = to else { return self.send_to_others(index, message) };
        let Some(Member { room: Some(room), .. }) = &self.members[index] else { return };
        if let Some(target) = self.find(room, to) {
            self.send(target, TEXT, message);
            if let Some(member) = self.members[index].as_mut().filter(|_| self.is_lean) {
                member.target = Some(target);
            }
        } else if let Some(link) = &mut self.link {
            link.post(room, to, message);
        }
    }

    /// The member of a room with this id.
    fn find(&self, room: &[u8], id: &[u8]) -> Option<usize> {
        let is_named = |index: &usize| self.members[*index].as_ref().is_some_and(|it| it.id == id);
        self.rooms.get(room)?.iter().copied().find(is_named)
    }

    fn read_link(&mut self, token: Token) -> io::Result<()> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        if token == LINK[0] {
            link.discard_answers()?;
        } else {
            link.read(|entry| {
                if let Some(target) = self.find(entry.room, entry.to) {
                    self.send(target, TEXT, entry.message);
                }
            })?;
        }
        self.link = Some(link);
        Ok(())
    }

    fn send_to_others(&mut self, index: usize, message: &[u8]) {
        let room = self.members[index].as_ref().and_then(|member| member.room.as_ref());
        let Some(members) = room.and_then(|room| self.rooms.get_mut(room)) else { return };
        let members = std::mem::take(members);
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frames::push_plain(&mut frame, TEXT, message);
        members
            .iter()
            .filter(|&&other| other != index)
            .for_each(|&other| self.write(other, &frame));
        self.frame = frame;
        let room = self.members[index].as_ref().and_then(|member| member.room.as_ref());
        if let Some(slot) = room.and_then(|room| self.rooms.get_mut(room)) {
            *slot = members;
        }
    }

    fn send(&mut self, index: usize, opcode: u8, payload: &[u8]) {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frames::push_plain(&mut frame, opcode, payload);
        self.write(index, &frame);
        self.frame = frame;
    }

    fn write(&mut self, index: usize, bytes: &[u8]) {
        let Some(member) = &mut self.members[index] else { return };
        if !member.unsent.is_empty() {
            return member.unsent.extend_from_slice(bytes);
        }
        let written = member.stream.write(bytes).unwrap_or_default();
        if written < bytes.len() || member.stream.is_blocked() {
            member.unsent.extend_from_slice(&bytes[written..]);
            let _ =
                member.stream.watch(self.poll.registry(), Token(index), !member.unsent.is_empty());
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(member) = &mut self.members[index] else { return };
        let written = member.stream.write(&member.unsent).unwrap_or_default();
        member.unsent.drain(..written);
        if member.unsent.is_empty() {
            member.unsent = Vec::new();
            let _ = member.stream.watch(self.poll.registry(), Token(index), false);
        }
    }

    fn leave(&mut self, index: usize) {
        let Some(mut member) = self.members[index].take() else { return };
        let _ = self.poll.registry().deregister(member.stream.socket());
        self.free.push(index);
        let Some(room) = member.room.filter(|_| !member.id.is_empty()) else { return };
        let Some(members) = self.rooms.get_mut(&room) else { return };
        members.retain(|&other| other != index);
        for &other in &*members {
            if let Some(other) = &mut self.members[other] {
                other.target = None;
            }
        }
        if members.is_empty() {
            self.rooms.remove(&room);
            return;
        }
        let members = members.clone();
        members.iter().for_each(|&other| self.send(other, TEXT, USER_LEFT.as_bytes()));
    }
}

fn quoted_after<'a>(message: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let rest = message.strip_prefix(start)?;
    rest.get(..memchr(b'"', rest)?)
}
