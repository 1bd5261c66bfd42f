//! The simulated clients: they join in rooms of 2 to 10, and one in each active room sends an offer each second.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;
use signaling::{http::serve_stream, net::workers::Workers, state::AppState};

use super::stream::{Connection, Readable, ServerEnd};
use crate::{
    frames::{self, CLOSE, PING, PONG, TEXT},
    scenarios::{Numbered, TIMEOUT, histogram, number_of},
    subject::token_of,
};

/// How many members rooms have, one after the other and again from the first; and their sum.
const ROOM_SIZES: [usize; 9] = [2, 3, 4, 5, 6, 7, 8, 9, 10];
const SIZES_TOTAL: usize = 54;

/// How many clients join at once.
const AT_ONCE: usize = 256;

/// Clients of one account, and of one address.
pub const CLIENTS_OF_ACCOUNT: usize = 10;
const CLIENTS_OF_ADDRESS: usize = 4;

/// All clients.
pub struct Members {
    app: AppState,
    workers: Workers,
    readable: Arc<Readable>,
    clients: Vec<Client>,
    joined: usize,
    /// When the offer on its way in an active room was sent.
    sent_at: Vec<Option<Instant>>,
    latency: Histogram<u64>,
    closed: usize,
    /// How many pings of clients were answered.
    answered: usize,
    pong: Vec<u8>,
}

struct Client {
    connection: Arc<Connection>,
    is_joined: bool,
    is_closed: bool,
    /// The sequence number of the last frame that it has received.
    last_seq: u64,
}

/// The first client of a room; the next one is in it, too.
fn first_client(room: usize) -> usize {
    let (cycle, place) = (room / ROOM_SIZES.len(), room % ROOM_SIZES.len());
    cycle * SIZES_TOTAL + ROOM_SIZES[..place].iter().sum::<usize>()
}

/// The room of a client.
fn room_of(client: usize) -> usize {
    let (cycle, mut place) = (client / SIZES_TOTAL, client % SIZES_TOTAL);
    let mut number = cycle * ROOM_SIZES.len();
    for size in ROOM_SIZES {
        if place < size {
            break;
        }
        place -= size;
        number += 1;
    }
    number
}

impl Members {
    /// `count` clients, which this thread drives; none has joined.
    pub fn new(app: AppState, workers: Workers, count: usize, active_rooms: usize) -> Self {
        let readable = Readable::new();
        let client = |number| Client {
            connection: Connection::new(number, &readable),
            is_joined: false,
            is_closed: false,
            last_seq: 0,
        };
        let clients = (0..count).map(client).collect();
        let mut pong = Vec::new();
        frames::push_masked(&mut pong, PONG, b"");
        let (sent_at, latency) = (vec![None; active_rooms], histogram());
        let (joined, closed, answered) = (0, 0, 0);
        Self { app, workers, readable, clients, joined, sent_at, latency, closed, answered, pong }
    }

    /// Lets clients join until `wanted` have.
    pub fn join(&mut self, wanted: usize) -> Result<(), Box<dyn Error>> {
        let mut next = self.joined;
        let mut progress = (self.joined, Instant::now());
        while self.joined < wanted {
            while next < wanted && next < self.joined + AT_ONCE {
                self.connect(next)?;
                next += 1;
            }
            self.receive(Instant::now() + Duration::from_millis(100));
            if self.joined > progress.0 {
                progress = (self.joined, Instant::now());
            } else if progress.1.elapsed() > TIMEOUT {
                return Err(format!("{} of {wanted} have joined, and no more", self.joined).into());
            }
            if self.closed > 0 {
                return Err(format!("{} clients were closed", self.closed).into());
            }
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> Result<(), Box<dyn Error>> {
        let connection = &self.clients[number].connection;
        let token = token_of(&account(number / CLIENTS_OF_ACCOUNT));
        let first = format!(
            r#"{{"type":"auth_token","token":"{token}","clientId":"client-{number}","features":["resume"]}}"#
        );
        let mut frame = Vec::new();
        frames::push_masked(&mut frame, TEXT, first.as_bytes());
        connection.send(&frame);
        let address = u32::try_from(number / CLIENTS_OF_ADDRESS)?;
        let address = IpAddr::V4(Ipv4Addr::from_bits((10 << 24) | address));
        let room = format!("room-{}", room_of(number));
        let stream = ServerEnd(connection.clone());
        if serve_stream(&self.app, &self.workers, &room, address, stream) {
            return Ok(());
        }
        Err("there is no place for another unauthenticated connection".into())
    }

    /// Each client sends a ping that acknowledges what it has received, as clients do when nothing else happens.
    pub fn acknowledge(&mut self) -> Result<(), Box<dyn Error>> {
        self.answered = 0;
        let (mut next, deadline) = (0, Instant::now() + 10 * TIMEOUT);
        while self.answered < self.clients.len() {
            while next < self.clients.len() && next < self.answered + AT_ONCE {
                let Client { connection, last_seq, .. } = &self.clients[next];
                let mut frame = Vec::new();
                let ping = format!(r#"{{"type":"ping","ack":{last_seq}}}"#);
                frames::push_masked(&mut frame, TEXT, ping.as_bytes());
                connection.send(&frame);
                next += 1;
            }
            self.receive(Instant::now() + Duration::from_millis(100));
            if Instant::now() > deadline {
                return Err(format!("{} pings were answered, and no more", self.answered).into());
            }
        }
        Ok(())
    }

    /// One offer a second in each active room, until `is_over`. Returns how long they took, in microseconds.
    pub fn talk(&mut self, is_over: &AtomicBool) -> Result<Histogram<u64>, Box<dyn Error>> {
        let rooms = self.sent_at.len();
        let every = Duration::from_secs(1) / u32::try_from(rooms)?;
        let (mut due, mut next) = (Instant::now(), 0);
        while !is_over.load(Ordering::Relaxed) {
            while due <= Instant::now() {
                self.offer(next % rooms, due);
                (due, next) = (due + every, next + 1);
            }
            self.receive(due);
        }
        let deadline = Instant::now() + TIMEOUT;
        while self.sent_at.iter().any(Option::is_some) {
            if Instant::now() > deadline {
                return Err("offers are lost".into());
            }
            self.receive(Instant::now() + Duration::from_millis(10));
        }
        Ok(std::mem::replace(&mut self.latency, histogram()))
    }

    /// The first client of a room sends an offer to the second. `due` is when it had to.
    fn offer(&mut self, number: usize, due: Instant) {
        if self.sent_at[number].is_some() {
            return; // the last one is still on its way, and its time counts
        }
        self.sent_at[number] = Some(due);
        let first = first_client(number);
        let mut offer = Numbered::offer(Some(&format!("client-{}", first + 1)));
        self.clients[first].connection.send(offer.with(number as u64));
    }

    /// Closes each connection that the server closes, until `is_over`.
    pub fn leave(&mut self, is_over: &AtomicBool) -> usize {
        while !is_over.load(Ordering::Relaxed) {
            self.receive(Instant::now() + Duration::from_millis(10));
        }
        self.closed
    }

    /// Waits for frames until `deadline` at the longest, and handles them.
    fn receive(&mut self, deadline: Instant) {
        for number in self.readable.wait(deadline) {
            let (bytes, is_closed) = self.clients[number].connection.take();
            let mut rest = &bytes[..];
            while let Some(frame) = frames::first(rest) {
                self.handle(number, frame.opcode, &rest[frame.start..frame.end]);
                rest = &rest[frame.end..];
            }
            if is_closed {
                self.end(number);
            }
        }
    }

    fn handle(&mut self, number: usize, opcode: u8, payload: &[u8]) {
        if let Some(seq) = seq_of(payload) {
            self.clients[number].last_seq = seq;
        }
        match opcode {
            TEXT if memmem::find(payload, br#""users_in_room""#).is_some() => {
                self.clients[number].is_joined = true;
                self.joined += 1;
            }
            TEXT if memmem::find(payload, br#""pong""#).is_some() => self.answered += 1,
            TEXT => {
                let room = number_of(payload).and_then(|number| usize::try_from(number).ok());
                if let Some(sent_at) = room.and_then(|room| self.sent_at.get_mut(room)?.take()) {
                    self.latency.saturating_record(sent_at.elapsed().as_micros() as u64);
                }
            }
            PING => self.clients[number].connection.send(&self.pong),
            CLOSE => {
                if !self.clients[number].is_joined {
                    eprintln!("client {number}: {}", String::from_utf8_lossy(payload));
                }
                self.end(number);
            }
            _ => {}
        }
    }

    fn end(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.connection.close();
        if !std::mem::replace(&mut client.is_closed, true) {
            self.closed += 1;
        }
    }
}

/// The sequence number of a frame, where it has one.
fn seq_of(payload: &[u8]) -> Option<u64> {
    let at = memmem::find(payload, br#""seq":"#)? + 6;
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| 10 * number + u64::from(digit - b'0')))
}

/// The name of an account.
pub fn account(number: usize) -> String {
    format!("user-{number}")
}
