//! A WebSocket over a byte stream, for a session: nothing is buffered while nobody says anything.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytestring::ByteString;
use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    frames::{self, Arrival, Assembler, Fault, ServerHead, Taken},
    session::{Broken, Received, Socket},
};

/// What is read or written at once. A thread has one of these, and a connection none: it owns bytes only
/// while a frame has arrived, or could be sent, in part.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    static SCRATCH_OF_THREAD: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// The server's end of a WebSocket.
pub struct WebSocket<S> {
    stream: S,
    assembler: Assembler,
    /// Arrived and not taken apart yet.
    unread: Vec<u8>,
    /// The rest of what was begun to be written.
    unsent: Vec<u8>,
    /// Nothing is read any more: the client has closed, or what it sent makes no sense.
    at_end: bool,
    has_closed: bool,
    is_shut: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> WebSocket<S> {
    /// A WebSocket on `stream`, from which `unread` has been read already. Messages of more than
    /// `longest` bytes are refused.
    pub fn new(stream: S, unread: Vec<u8>, longest: usize) -> Self {
        let assembler = Assembler::new(longest);
        let (at_end, has_closed, is_shut) = (false, false, false);
        Self { stream, assembler, unread, unsent: Vec::new(), at_end, has_closed, is_shut }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            // What is owed goes out before more is read: whoever does not read is not heard.
            if ready!(self.poll_flush(context)).is_err() {
                return Poll::Ready(None);
            }
            if self.at_end {
                return self.poll_gone(context);
            }
            let taken = if self.unread.is_empty() {
                ready!(self.poll_read(context))
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                let taken = self.assembler.take(&mut unread);
                let used = taken.as_ref().map_or(unread.len(), |taken| taken.used);
                if used < unread.len() {
                    unread.drain(..used);
                    self.unread = unread;
                    if taken.as_ref().is_ok_and(|taken| taken.arrival.is_none()) {
                        match ready!(self.poll_read_more(context)) {
                            Ok(()) => continue,
                            Err(_) => return Poll::Ready(None),
                        }
                    }
                }
                Ok(taken)
            };
            let received = match taken {
                Err(_gone) => return Poll::Ready(None),
                Ok(Ok(Taken { arrival: None, .. })) => continue,
                Ok(Ok(Taken { arrival: Some(arrival), .. })) => self.received(arrival),
                Ok(Err(fault)) => {
                    self.at_end = true;
                    match fault {
                        Fault::Malformed => Received::Malformed,
                        Fault::NotUtf8 => Received::NotUtf8,
                        Fault::TooBig => Received::TooBig,
                    }
                }
            };
            return Poll::Ready(Some(received));
        }
    }

    fn received(&mut self, arrival: Arrival) -> Received {
        match arrival {
            Arrival::Text(text) => Received::Text(text),
            Arrival::Binary => {
                self.at_end = true;
                Received::Binary
            }
            Arrival::Ping(payload) => {
                // After a Close nothing is sent any more (section 5.5.1).
                if !self.has_closed {
                    self.unsent.extend(frames::pong(&payload));
                }
                Received::Heartbeat
            }
            Arrival::Pong => Received::Heartbeat,
            Arrival::Close(payload) => {
                self.at_end = true;
                if !self.has_closed {
                    self.has_closed = true;
                    self.unsent.extend(frames::close(&payload));
                }
                Received::Close
            }
        }
    }

    /// Reads into the thread's scratch and takes that apart at once; what is left of it is kept.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Result<Taken, Fault>>> {
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled_mut();
            if read.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let taken = self.assembler.take(read);
            if let Ok(Taken { used, .. }) = taken
                && let Some(rest) = read.get(used..).filter(|rest| !rest.is_empty())
            {
                self.unread.extend_from_slice(rest);
            }
            Poll::Ready(Ok(taken))
        })
    }

    /// Adds to a frame that has arrived in part.
    fn poll_read_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Says that nothing more comes, and waits until the client has hung up, whatever else it sends:
    /// closing on unread data would reset the connection, and our last words with it (RFC 6455
    /// section 7.1.1).
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.unread = Vec::new();
        if !self.is_shut {
            if ready!(Pin::new(&mut self.stream).poll_shutdown(context)).is_err() {
                return Poll::Ready(None);
            }
            self.is_shut = true;
        }
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    Ok(()) | Err(_) => return Poll::Ready(None),
                }
            }
        })
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..written);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Begins to write text messages, once nothing is owed any more, and keeps what did not fit.
    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        texts: &[ByteString],
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
            // To copy them together costs less than a write for each, or one of several parts.
            let (mut used, mut left) = (0, texts);
            while let [text, others @ ..] = left
                && let Some(place) = scratch.get_mut(used..)
                && let Some(length) =
                    ServerHead::text(text.len()).put_before(text.as_bytes(), place)
            {
                used += length;
                left = others;
            }
            let filled = scratch.get(..used).unwrap_or_default();
            let written = if filled.is_empty() {
                0 // the first is too long for that
            } else {
                match Pin::new(&mut self.stream).poll_write(context, filled) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                }
            };
            self.unsent.extend_from_slice(filled.get(written..).unwrap_or_default());
            for text in left {
                self.unsent.extend_from_slice(ServerHead::text(text.len()).bytes());
                self.unsent.extend_from_slice(text.as_bytes());
            }
            Poll::Ready(Ok(()))
        })
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        poll_fn(|context| self.poll_flush(context)).await.map_err(|_| Broken)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for WebSocket<S> {
    async fn receive(&mut self) -> Option<Received> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    async fn send(&mut self, frames: &[ByteString]) -> Result<(), Broken> {
        poll_fn(|context| self.poll_begin(context, frames)).await.map_err(|_| Broken)?;
        self.flush().await
    }

    async fn ping(&mut self) -> Result<(), Broken> {
        self.unsent.extend(frames::ping());
        self.flush().await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Broken> {
        if !self.has_closed {
            self.has_closed = true;
            self.unsent.extend(frames::close_with(code, reason));
        }
        self.flush().await
    }
}
