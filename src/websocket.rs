//! A WebSocket over a byte stream, for a session: nothing is buffered while nobody says anything.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytestring::ByteString;
use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use crate::{
    frames::{self, Decoded, FrameHeader, Message, MessageDecoder, ProtocolError},
    metrics::Metrics,
    outbox::{DirectWriter, WriteOutcome},
    session::{ConnectionLost, Socket, SocketEvent},
};

/// What is read or written at once. A thread has one of these, and a connection none: it owns bytes only
/// while a frame has arrived, or could be sent, in part.
const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    static THREAD_SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// The server's end of a WebSocket.
pub struct WebSocket<S> {
    reading: ReadHalf<S>,
    assembler: MessageDecoder,
    /// Arrived and not taken apart yet.
    unread: Vec<u8>,
    sending: Arc<SharedWriter<S>>,
    /// Nothing is read any more: the client has closed, or what it sent makes no sense.
    at_end: bool,
    is_shut: bool,
}

/// The half that writes, for the socket's own task and for its peers' on the shortcut.
struct SharedWriter<S> {
    outgoing: Mutex<WriteState<S>>,
    metrics: Arc<Metrics>,
}

struct WriteState<S> {
    stream: WriteHalf<S>,
    /// The rest of what was begun to be written.
    unsent: Vec<u8>,
    /// The socket's task has to write on, and waits until it can: nobody else may, or that one would
    /// not be woken.
    is_owing: bool,
    has_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Send> WebSocket<S> {
    /// A WebSocket on `stream`, from which `unread` has been read already. Messages of more than
    /// `longest` bytes are refused. What is written is counted in `metrics`.
    pub fn new(stream: S, unread: Vec<u8>, longest: usize, metrics: Arc<Metrics>) -> Self {
        let (reading, stream) = tokio::io::split(stream);
        let outgoing =
            WriteState { stream, unsent: Vec::new(), is_owing: false, has_closed: false };
        let sending = Arc::new(SharedWriter { outgoing: Mutex::new(outgoing), metrics });
        let assembler = MessageDecoder::new(longest);
        Self { reading, assembler, unread, sending, at_end: false, is_shut: false }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        loop {
            // What is owed goes out before more is read: whoever does not read is not heard.
            if ready!(self.sending.lock().poll_flush(context)).is_err() {
                return Poll::Ready(None);
            }
            if self.at_end {
                return self.poll_drain_to_eof(context);
            }
            let taken = if self.unread.is_empty() {
                ready!(self.poll_read(context))
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                let taken = self.assembler.decode(&mut unread);
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
                Ok(Ok(Decoded { arrival: None, .. })) => continue,
                Ok(Ok(Decoded { arrival: Some(arrival), .. })) => self.event_of(arrival),
                Ok(Err(fault)) => {
                    self.at_end = true;
                    match fault {
                        ProtocolError::Malformed => SocketEvent::Malformed,
                        ProtocolError::NotUtf8 => SocketEvent::NotUtf8,
                        ProtocolError::TooBig => SocketEvent::TooBig,
                    }
                }
            };
            return Poll::Ready(Some(received));
        }
    }

    fn event_of(&mut self, arrival: Message) -> SocketEvent {
        match arrival {
            Message::Text(text) => SocketEvent::Text(text),
            Message::Binary => {
                self.at_end = true;
                SocketEvent::Binary
            }
            Message::Ping(payload) => {
                self.sending.lock().queue_control(&frames::pong(&payload));
                SocketEvent::Heartbeat
            }
            Message::Pong => SocketEvent::Pong,
            Message::Close(payload) => {
                self.at_end = true;
                self.sending.lock().queue_close(&frames::close(&payload));
                SocketEvent::Close
            }
        }
    }

    /// Reads into the thread's scratch and takes that apart at once; what is left of it is kept.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Result<Decoded, ProtocolError>>> {
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.reading).poll_read(context, &mut buffer))?;
            let read = buffer.filled_mut();
            if read.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let taken = self.assembler.decode(read);
            if let Ok(Decoded { used, .. }) = taken
                && let Some(rest) = read.get(used..).filter(|rest| !rest.is_empty())
            {
                self.unread.extend_from_slice(rest);
            }
            Poll::Ready(Ok(taken))
        })
    }

    /// Adds to a frame that has arrived in part.
    fn poll_read_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.reading).poll_read(context, &mut buffer))?;
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
    fn poll_drain_to_eof(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        self.unread = Vec::new();
        if !self.is_shut {
            let shut = Pin::new(&mut self.sending.lock().stream).poll_shutdown(context);
            if ready!(shut).is_err() {
                return Poll::Ready(None);
            }
            self.is_shut = true;
        }
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut self.reading).poll_read(context, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    Ok(()) | Err(_) => return Poll::Ready(None),
                }
            }
        })
    }

    async fn flush(&mut self) -> Result<(), ConnectionLost> {
        poll_fn(|context| self.sending.lock().poll_flush(context)).await.map_err(|_| ConnectionLost)
    }
}

impl<S> SharedWriter<S> {
    fn lock(&self) -> MutexGuard<'_, WriteState<S>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite> WriteState<S> {
    /// Puts a control frame behind what is owed. After a Close nothing is sent any more (section 5.5.1).
    fn queue_control(&mut self, frame: &[u8]) {
        if !self.has_closed {
            self.unsent.extend_from_slice(frame);
        }
    }

    fn queue_close(&mut self, frame: &[u8]) {
        self.queue_control(frame);
        self.has_closed = true;
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_owing && self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.is_owing = true;
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
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_owing = false;
        Poll::Ready(Ok(()))
    }

    /// Begins to write text messages, once nothing is owed any more, and keeps what did not fit.
    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        texts: &[ByteString],
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        self.is_owing = true;
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            // To copy them together costs less than a write for each, or one of several parts.
            let (mut used, mut left) = (0, texts);
            while let [text, others @ ..] = left
                && let Some(place) = scratch.get_mut(used..)
                && let Some(length) =
                    FrameHeader::text(text.len()).copy_with_payload(text.as_bytes(), place)
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
                self.unsent.extend_from_slice(FrameHeader::text(text.len()).bytes());
                self.unsent.extend_from_slice(text.as_bytes());
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes one text message in a foreign task, if nothing is owed.
    fn try_send(&mut self, text: &ByteString) -> WriteOutcome {
        if self.has_closed || self.is_owing || !self.unsent.is_empty() {
            return WriteOutcome::NotSent;
        }
        // Whoever waits for this socket is its own task, which is told of it by its mailbox.
        let mut context = Context::from_waker(Waker::noop());
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let head = FrameHeader::text(text.len());
            let length = head.copy_with_payload(text.as_bytes(), scratch).unwrap_or(0);
            let frame = scratch.get(..length).unwrap_or_default();
            if frame.is_empty() {
                return WriteOutcome::NotSent; // too long for that
            }
            let Poll::Ready(Ok(written @ 1..)) =
                Pin::new(&mut self.stream).poll_write(&mut context, frame)
            else {
                return WriteOutcome::NotSent;
            };
            self.unsent.extend_from_slice(frame.get(written..).unwrap_or_default());
            if self.unsent.is_empty()
                && Pin::new(&mut self.stream).poll_flush(&mut context).is_ready()
            {
                return WriteOutcome::Complete; // what went wrong after that, the next to read or write hears
            }
            self.is_owing = true;
            WriteOutcome::Partial
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Send> DirectWriter for SharedWriter<S> {
    fn try_send(&self, frame: &ByteString) -> WriteOutcome {
        let sent = self.lock().try_send(frame);
        if sent != WriteOutcome::NotSent {
            self.metrics.record_sent_frame(frame.len());
        }
        sent
    }
}

impl<S: AsyncRead + AsyncWrite + Send + 'static> Socket for WebSocket<S> {
    async fn receive(&mut self) -> Option<SocketEvent> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    async fn send(&mut self, frames: &[ByteString]) -> Result<(), ConnectionLost> {
        let begun = poll_fn(|context| self.sending.lock().poll_begin(context, frames)).await;
        begun.map_err(|_| ConnectionLost)?;
        for frame in frames {
            self.sending.metrics.record_sent_frame(frame.len());
        }
        self.flush().await
    }

    async fn ping(&mut self) -> Result<(), ConnectionLost> {
        self.sending.lock().queue_control(&frames::ping());
        self.flush().await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), ConnectionLost> {
        self.sending.lock().queue_close(&frames::close_with(code, reason));
        self.flush().await
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        Some(self.sending.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::outbox;

    /// The text frames on the wire, up to the one that says `last`.
    async fn texts(wire: &mut DuplexStream, last: &str) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let [first, short] = [wire.read_u8().await.unwrap(), wire.read_u8().await.unwrap()];
            let length = match short {
                126 => wire.read_u16().await.unwrap().into(),
                127 => wire.read_u64().await.unwrap(),
                short => short.into(),
            };
            let mut payload = vec![0; length as usize];
            wire.read_exact(&mut payload).await.unwrap();
            if first == 0x81 {
                texts.push(String::from_utf8(payload).unwrap());
            }
        }
        texts
    }

    /// Everything at once on a pipe that is too narrow: what a peer sends past the queue, what waits in
    /// it, and the pings of the socket's own task.
    #[tokio::test]
    async fn the_shortcut_overtakes_nothing_and_tears_no_frame() {
        const COUNT: usize = 2_000;
        let (mut client, server) = tokio::io::duplex(1_500);
        let metrics: Arc<Metrics> = Arc::default();
        let mut socket = WebSocket::new(server, Vec::new(), 1024, metrics);
        let (outbox, mut mailbox) = outbox::channel();
        mailbox.set_direct_writer(socket.direct_writer());
        let said: Vec<_> = (0..COUNT)
            .map(|number| format!("{number} {}", "x".repeat(number * 7919 % 3_000)))
            .chain(["last".to_owned()])
            .collect();

        let owner = tokio::spawn(async move {
            let mut frames = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    received = socket.receive() => if received.is_none() { break },
                    _ = mailbox.recv_many(&mut frames) => {
                        socket.send(&frames).await.unwrap();
                        frames.clear();
                        socket.ping().await.unwrap();
                    }
                }
            }
        });
        let (mut at_once, all) = (0, said.clone());
        let peer = async {
            for (number, text) in all.into_iter().enumerate() {
                if outbox.push(text.into(), None) {
                    at_once += 1;
                    continue;
                }
                // Now and then long enough for the queue to run empty.
                for _ in 0..number % 30 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (heard, ()) = tokio::join!(texts(&mut client, "last"), peer);
        drop(client);

        assert_eq!(heard, said);
        assert!((COUNT / 10..=COUNT).contains(&at_once), "{at_once} went past the queue");
        owner.await.unwrap();
    }
}
