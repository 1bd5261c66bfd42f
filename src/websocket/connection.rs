//! A WebSocket on a byte stream, for the task that owns it. An idle connection owns no buffer.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf};

use super::{
    codec::{self, Decoded, Message, MessageDecoder, ProtocolError},
    direct_writer::{DirectWriter, FrameCounter, SharedWriter},
    scratch::THREAD_SCRATCH,
};
use crate::memory::{Charge, MemoryHolder, MemoryKind};

/// The most bytes that are read and discarded after the end of a connection: a client that goes on sending would cost
/// a core for as long as its Close frame is waited for.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;

/// A WebSocket as its owner uses it. The second implementation is the one of the session's tests, over channels.
pub trait Socket: Send {
    /// The next event; `None` when the connection is lost. Safe to cancel.
    fn receive(&mut self) -> impl Future<Output = Option<SocketEvent>> + Send;
    /// Writes text frames. After a cancel, later frames go out behind whole frames.
    fn send(
        &mut self,
        frames: &[ByteString],
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// Writes a Ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// Writes a Close. Nothing that arrives after it is an event.
    fn close(
        &mut self,
        code: u16,
        reason: &'static str,
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// Sets the longest message that is accepted, in bytes.
    fn set_max_message_bytes(&mut self, max_message_bytes: usize);
    /// Lets other tasks write text frames while this socket's own task sleeps, where the socket can.
    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }
}

/// The connection is lost.
#[derive(Debug)]
pub struct ConnectionLost;

/// What arrives on a WebSocket.
#[derive(Debug)]
pub enum SocketEvent {
    /// A text message.
    Text(ByteString),
    /// A short fragment of a text message, which completes none.
    ShortFragment,
    /// A binary message.
    Binary,
    /// A Ping, which was answered already.
    Ping,
    /// The answer to a Ping of the server.
    Pong,
    /// The client closes.
    Close,
    /// A text message over the size limit, which is discarded. More follows.
    Discarded {
        /// Its length as far as it is known, in bytes.
        length: usize,
    },
    /// A text message that is not UTF-8.
    NotUtf8,
    /// A message that is too long to be discarded.
    TooBig,
    /// Bytes that are no WebSocket frame.
    Malformed,
}

/// The server's end of a WebSocket on a stream `S`, whose text frames `C` counts.
pub struct WebSocket<S, C> {
    reader: ReadHalf<S>,
    decoder: MessageDecoder,
    /// Bytes that have arrived and are not decoded yet.
    unread: Vec<u8>,
    /// Counts what has arrived in part.
    partial: Charge,
    writer: Arc<SharedWriter<S, C>>,
    /// Nothing more is decoded: the client has closed, or sent bytes that violate the protocol.
    is_at_end: bool,
    is_shut_down: bool,
    /// How many bytes were read after the end.
    drained: usize,
}

impl<S: AsyncRead + AsyncWrite + Send, C> WebSocket<S, C> {
    /// A WebSocket on `stream`, from which `unread` was read already. Messages of more than `max_message_bytes` are
    /// discarded, and end the connection above four times that. `counter` counts the text frames that are written.
    pub fn new(stream: S, unread: Vec<u8>, max_message_bytes: usize, counter: C) -> Self {
        let (reader, stream) = tokio::io::split(stream);
        let writer = Arc::new(SharedWriter::new(stream, counter));
        let decoder = MessageDecoder::new(max_message_bytes);
        let (is_at_end, is_shut_down, drained) = (false, false, 0);
        let partial = Charge::uncounted(MemoryKind::PartialFrames);
        Self { reader, decoder, unread, partial, writer, is_at_end, is_shut_down, drained }
    }

    /// From now on what it holds counts for `holder`.
    #[must_use]
    pub fn with_memory_holder(mut self, holder: &Arc<MemoryHolder>) -> Self {
        self.partial.bill(holder);
        self.writer.lock().set_memory_holder(holder);
        self
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        loop {
            // Unsent bytes go out before more is read: nothing is read from a client that does not read.
            if ready!(self.writer.lock().poll_flush(context)).is_err() {
                return Poll::Ready(None);
            }
            // What is excessive here is shed by the guard: this task may hold a member's locks.
            let _ = self.partial.set(self.unread.capacity() + self.decoder.fragment_capacity());
            if self.is_at_end {
                return self.poll_drain_to_eof(context);
            }
            let decoded = if self.unread.is_empty() {
                ready!(self.poll_read(context))
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                let decoded = self.decoder.decode(&mut unread);
                let used = decoded.as_ref().map_or(unread.len(), |decoded| decoded.used);
                if used < unread.len() {
                    unread.drain(..used);
                    self.unread = unread;
                    if decoded.as_ref().is_ok_and(|decoded| decoded.message.is_none()) {
                        match ready!(self.poll_read_more(context)) {
                            Ok(()) => continue,
                            Err(_) => return Poll::Ready(None),
                        }
                    }
                }
                Ok(decoded)
            };
            let event = match decoded {
                Err(_lost) => return Poll::Ready(None),
                Ok(Ok(Decoded { message: None, .. })) => continue,
                Ok(Ok(Decoded { message: Some(message), .. })) => self.accept(message),
                Ok(Err(error)) => {
                    self.end_reading();
                    match error {
                        ProtocolError::Malformed => SocketEvent::Malformed,
                        ProtocolError::NotUtf8 => SocketEvent::NotUtf8,
                        ProtocolError::TooBig => SocketEvent::TooBig,
                        ProtocolError::UnmaskedClose => return Poll::Ready(None),
                    }
                }
            };
            return Poll::Ready(Some(event));
        }
    }

    /// Nothing more is decoded, and what has arrived in part is freed.
    fn end_reading(&mut self) {
        self.is_at_end = true;
        self.unread = Vec::new();
        self.decoder.discard_fragments();
        let _ = self.partial.set(0);
    }

    /// Queues the answer to a Ping or a Close, and returns the event of the message.
    fn accept(&mut self, message: Message) -> SocketEvent {
        match message {
            Message::Text(text) => SocketEvent::Text(text),
            Message::Discarded { length } => SocketEvent::Discarded { length },
            Message::ShortFragment => SocketEvent::ShortFragment,
            Message::Binary => {
                self.end_reading();
                SocketEvent::Binary
            }
            Message::Ping(payload) => {
                self.writer.lock().queue_control(&codec::pong(&payload));
                SocketEvent::Ping
            }
            Message::Pong => SocketEvent::Pong,
            Message::Close(payload) => {
                self.end_reading();
                self.writer.lock().queue_close(&codec::close(&payload));
                SocketEvent::Close
            }
        }
    }

    /// Reads into the thread's scratch buffer and decodes it at once; the undecoded rest is kept.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Result<Decoded, ProtocolError>>> {
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.reader).poll_read(context, &mut buffer))?;
            let read = buffer.filled_mut();
            if read.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let decoded = self.decoder.decode(read);
            if let Ok(Decoded { used, .. }) = decoded
                && let Some(rest) = read.get(used..).filter(|rest| !rest.is_empty())
            {
                self.unread.extend_from_slice(rest);
            }
            Poll::Ready(Ok(decoded))
        })
    }

    /// Reads more of a frame that has arrived in part.
    fn poll_read_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.reader).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Shuts down the writing half, and reads until the client closes its half, or has sent [`MAX_DRAINED_BYTES`] of
    /// whatever else: closing a stream with unread data would reset the connection, and the Close frame would be lost
    /// with it (RFC 6455 section 7.1.1).
    fn poll_drain_to_eof(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        if !self.is_shut_down {
            let shutdown = Pin::new(&mut self.writer.lock().stream).poll_shutdown(context);
            if ready!(shutdown).is_err() {
                return Poll::Ready(None);
            }
            self.is_shut_down = true;
        }
        THREAD_SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut self.reader).poll_read(context, &mut buffer));
                self.drained += buffer.filled().len();
                let is_over = buffer.filled().is_empty() || self.drained > MAX_DRAINED_BYTES;
                if read.is_err() || is_over {
                    return Poll::Ready(None);
                }
            }
        })
    }

    async fn flush(&mut self) -> Result<(), ConnectionLost> {
        poll_fn(|context| self.writer.lock().poll_flush(context)).await.map_err(|_| ConnectionLost)
    }
}

impl<S, C> Socket for WebSocket<S, C>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    C: FrameCounter + 'static,
{
    async fn receive(&mut self) -> Option<SocketEvent> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    async fn send(&mut self, frames: &[ByteString]) -> Result<(), ConnectionLost> {
        let started = poll_fn(|context| self.writer.lock().poll_start_send(context, frames)).await;
        started.map_err(|_| ConnectionLost)?;
        for frame in frames {
            self.writer.counter.record_sent_frame(frame.len());
        }
        self.flush().await
    }

    async fn ping(&mut self) -> Result<(), ConnectionLost> {
        self.writer.lock().queue_control(&codec::ping());
        self.flush().await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), ConnectionLost> {
        self.end_reading();
        self.writer.lock().queue_close(&codec::close_with(code, reason));
        self.flush().await
    }

    fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.decoder.set_max_message_bytes(max_message_bytes);
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        Some(self.writer.clone())
    }
}
