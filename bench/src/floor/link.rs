//! The way of the floor to another of its kind: an entry in the other's inbox in Redis for each message, and a connection that waits
//! for the entries in its own. No number, no receipt, no script.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::{Interest, Registry, Token, net::TcpStream};

/// The entries of an inbox that Redis keeps, about.
const MAX_ENTRIES: &str = "10000";

/// A message of the other program, as it lies in the received bytes.
pub struct Entry<'a> {
    /// The room.
    pub room: &'a [u8],
    /// The member that it is for.
    pub to: &'a [u8],
    /// The text of the frame.
    pub message: &'a [u8],
}

/// Two connections to one Redis, which never block.
pub struct Link {
    writer: TcpStream,
    reader: TcpStream,
    own: String,
    peer: String,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    scratch: Vec<u8>,
}

impl Link {
    /// Connects, and waits for entries in the inbox `own`; messages go to the inbox `peer`.
    pub fn connect(redis: SocketAddr, own: String, peer: String) -> io::Result<Self> {
        let connect = || {
            let stream = std::net::TcpStream::connect(redis)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            io::Result::Ok(TcpStream::from_std(stream))
        };
        let (writer, reader) = (connect()?, connect()?);
        let (unsent, unread, scratch) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
        let mut link = Self { writer, reader, own, peer, unsent, unread, scratch };
        link.wait_after(b"0-0")?;
        Ok(link)
    }

    /// Registers the connections under these tokens.
    pub fn register(
        &mut self,
        registry: &Registry,
        [writer, reader]: [Token; 2],
    ) -> io::Result<()> {
        registry.register(&mut self.writer, writer, Interest::READABLE)?;
        registry.register(&mut self.reader, reader, Interest::READABLE)
    }

    /// Adds a message for a member at the other program; [`Self::flush`] sends it.
    pub fn post(&mut self, room: &[u8], to: &[u8], message: &[u8]) {
        let (inbox, most) = (self.peer.as_bytes(), MAX_ENTRIES.as_bytes());
        let head = [&b"XADD"[..], inbox, b"MAXLEN", b"~", most, b"*"];
        let fields = [&b"r"[..], room, b"t", to, b"d", message];
        push_command(&mut self.unsent, head.into_iter().chain(fields));
    }

    /// Sends what was added, as far as the socket takes it; the rest goes with the next call, which an answer causes.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match self.writer.write(&self.unsent) {
            Ok(written) => drop(self.unsent.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads the answers to what was sent. None is a refusal; the number of each is of no use.
    pub fn discard_answers(&mut self) -> io::Result<()> {
        while let Some(bytes) = receive(&mut self.writer, &mut self.scratch)? {
            if bytes.first() == Some(&b'-') {
                return Err(io::Error::other("Redis refused a message"));
            }
        }
        Ok(())
    }

    /// Reads entries and calls `handle` with each.
    pub fn read(&mut self, mut handle: impl FnMut(Entry<'_>)) -> io::Result<()> {
        while let Some(bytes) = receive(&mut self.reader, &mut self.scratch)? {
            self.unread.extend_from_slice(bytes);
        }
        let unread = std::mem::take(&mut self.unread);
        // The inbox, and for each entry its id and its fields.
        let Some(strings) = strings(&unread)? else {
            self.unread = unread;
            return Ok(());
        };
        let mut last: &[u8] = b"0-0";
        for entry in strings.get(1..).unwrap_or_default().chunks_exact(7) {
            last = entry[0];
            handle(Entry { room: entry[2], to: entry[4], message: entry[6] });
        }
        self.wait_after(last)
    }

    fn wait_after(&mut self, last: &[u8]) -> io::Result<()> {
        let inbox = self.own.as_bytes();
        let mut command = Vec::new();
        let words = [b"XREAD", &b"COUNT"[..], b"512", b"BLOCK", b"0", b"STREAMS", inbox, last];
        push_command(&mut command, words.into_iter());
        self.reader.write_all(&command)
    }
}

/// What has come; `None` where nothing more has.
fn receive<'a>(stream: &mut TcpStream, scratch: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    match stream.read(scratch) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(length) => Ok(Some(&scratch[..length])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn push_command<'a>(out: &mut Vec<u8>, words: impl Iterator<Item = &'a [u8]> + Clone) {
    out.extend_from_slice(format!("*{}\r\n", words.clone().count()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// All strings of one answer in the protocol of Redis (RESP 2), in order and whatever array they are in; `None` while it is incomplete.
fn strings(bytes: &[u8]) -> io::Result<Option<Vec<&[u8]>>> {
    let (mut strings, mut at, mut due) = (Vec::new(), 0_usize, 1_usize);
    while due > 0 {
        let Some(end) = memchr::memmem::find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + end];
        at += end + 2;
        let number: Option<usize> =
            line.get(1..).and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        match (line.first(), number) {
            (Some(b'*'), Some(items)) => due += items,
            (Some(b'$'), Some(length)) => {
                let Some(string) =
                    bytes.get(at..at + length).filter(|_| bytes.len() > at + length + 1)
                else {
                    return Ok(None);
                };
                strings.push(string);
                at += length + 2;
            }
            _ => return Err(io::Error::other(String::from_utf8_lossy(line))),
        }
        due -= 1;
    }
    Ok(Some(strings))
}
