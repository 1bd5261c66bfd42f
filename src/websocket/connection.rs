//! A WebSocket on a byte stream, for the task that owns it. An idle connection owns no buffer.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    codec::{self, Decoded, Message, MessageDecoder, ProtocolError},
    direct_writer::{DirectWriter, FrameCounter, SharedStream},
    scratch::THREAD_SCRATCH,
};
use crate::memory::{Charge, MemoryHolder, MemoryKind};

/// The most bytes that are read and discarded after the end of a connection: a client that goes on sending would cost
/// a core for as long as its Close frame is waited for.
const MAX_DRAINED_BYTES: u32 = 1024 * 1024;

/// A WebSocket as its owner uses it. The second implementation is the one of the session's tests, over channels.
///
/// What waits is a `poll_` function: a member's task would otherwise hold the future of each wait for as long as it lives.
pub trait Socket: Send {
    /// The next event; `None` when the connection is lost.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>>;
    /// Takes text frames to write, all or none: `Pending` means that earlier bytes are not sent yet, and that it is to be called
    /// again. They are sent once [`Self::poll_flush`] is ready.
    fn poll_start_send(
        &mut self,
        context: &mut Context<'_>,
        frames: &[ByteString],
    ) -> Poll<Result<(), ConnectionLost>>;
    /// Sends everything that was started or queued.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>>;
    /// Queues a Ping.
    fn queue_ping(&mut self);
    /// Queues a Close. Nothing that arrives after it is an event.
    fn queue_close(&mut self, code: u16, reason: &'static str);
    /// Sets the longest message that is accepted, in bytes.
    fn set_max_message_bytes(&mut self, max_message_bytes: usize);
    /// Lets other tasks write text frames while this socket's own task sleeps, where the socket can.
    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }

    /// The next event; `None` when the connection is lost. Safe to cancel.
    fn receive(&mut self) -> impl Future<Output = Option<SocketEvent>> + Send {
        poll_fn(|context| self.poll_receive(context))
    }

    /// Writes text frames. After a cancel, later frames go out behind whole frames.
    fn send(
        &mut self,
        frames: &[ByteString],
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send {
        async {
            poll_fn(|context| self.poll_start_send(context, frames)).await?;
            self.flush().await
        }
    }

    /// Writes a Close. Nothing that arrives after it is an event.
    fn close(
        &mut self,
        code: u16,
        reason: &'static str,
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send {
        self.queue_close(code, reason);
        self.flush()
    }

    /// Waits until everything is sent. Safe to cancel.
    fn flush(&mut self) -> impl Future<Output = Result<(), ConnectionLost>> + Send {
        poll_fn(|context| self.poll_flush(context))
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
    shared: Arc<SharedStream<S, C>>,
    decoder: MessageDecoder,
    /// Bytes that have arrived and are not decoded yet.
    unread: Vec<u8>,
    /// Counts what has arrived in part.
    partial: Charge,
    /// Nothing more is decoded: the client has closed, or sent bytes that violate the protocol.
    is_at_end: bool,
    is_shut_down: bool,
    /// How many bytes were read after the end.
    drained: u32,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin, C> WebSocket<S, C> {
    /// A WebSocket on `stream`, from which `unread` was read already. Messages of more than `max_message_bytes` are
    /// discarded, and end the connection above four times that. `counter` counts the text frames that are written.
    pub fn new(stream: S, unread: Vec<u8>, max_message_bytes: usize, counter: C) -> Self {
        let shared = Arc::new(SharedStream::new(stream, counter));
        let decoder = MessageDecoder::new(max_message_bytes);
        let (is_at_end, is_shut_down, drained) = (false, false, 0);
        let partial = Charge::uncounted(MemoryKind::PartialFrames);
        Self { shared, decoder, unread, partial, is_at_end, is_shut_down, drained }
    }

    /// From now on what it holds counts for `holder`.
    #[must_use]
    pub fn with_memory_holder(mut self, holder: &Arc<MemoryHolder>) -> Self {
        self.partial.bill(holder);
        self.shared.lock().set_memory_holder(holder);
        self
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        loop {
            let mut shared = self.shared.lock();
            // Unsent bytes go out before more is read: nothing is read from a client that does not read.
            if ready!(shared.poll_flush(context)).is_err() {
                return Poll::Ready(None);
            }
            // What is excessive here is shed by the guard: this task may hold a member's locks.
            let _ = self.partial.set(self.unread.capacity() + self.decoder.fragment_capacity());
            if self.is_at_end {
                drop(shared);
                return self.poll_drain_to_eof(context);
            }
            let stream = Pin::new(&mut shared.stream);
            let decoded = if self.unread.is_empty() {
                // Decoded at once; the undecoded rest is kept.
                let read = poll_read(stream, context, |read| {
                    let decoded = self.decoder.decode(read);
                    if let Ok(Decoded { used, .. }) = decoded
                        && let Some(rest) = read.get(used..).filter(|rest| !rest.is_empty())
                    {
                        self.unread.extend_from_slice(rest);
                    }
                    decoded
                });
                match ready!(read) {
                    Ok(decoded) => decoded,
                    Err(_lost) => return Poll::Ready(None),
                }
            } else {
                let mut unread = std::mem::take(&mut self.unread);
                let decoded = self.decoder.decode(&mut unread);
                let used = decoded.as_ref().map_or(unread.len(), |decoded| decoded.used);
                if used < unread.len() {
                    unread.drain(..used);
                    self.unread = unread;
                    if decoded.as_ref().is_ok_and(|decoded| decoded.message.is_none()) {
                        let unread = &mut self.unread;
                        let read =
                            poll_read(stream, context, |read| unread.extend_from_slice(read));
                        match ready!(read) {
                            Ok(()) => continue,
                            Err(_lost) => return Poll::Ready(None),
                        }
                    }
                }
                decoded
            };
            drop(shared);
            let event = match decoded {
                Ok(Decoded { message: None, .. }) => continue,
                Ok(Decoded { message: Some(message), .. }) => self.accept(message),
                Err(error) => {
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
                self.shared.lock().queue_control(&codec::pong(&payload));
                SocketEvent::Ping
            }
            Message::Pong => SocketEvent::Pong,
            Message::Close(payload) => {
                self.end_reading();
                self.shared.lock().queue_close(&codec::close(&payload));
                SocketEvent::Close
            }
        }
    }

    /// Shuts down the writing half, and reads until the client closes its half, or has sent [`MAX_DRAINED_BYTES`] of
    /// whatever else: closing a stream with unread data would reset the connection, and the Close frame would be lost
    /// with it (RFC 6455 section 7.1.1).
    fn poll_drain_to_eof(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        let mut shared = self.shared.lock();
        if !self.is_shut_down {
            if ready!(Pin::new(&mut shared.stream).poll_shutdown(context)).is_err() {
                return Poll::Ready(None);
            }
            self.is_shut_down = true;
        }
        loop {
            let read = poll_read(Pin::new(&mut shared.stream), context, |read| read.len());
            let length = ready!(read).ok().and_then(|length| u32::try_from(length).ok());
            match length.map(|length| self.drained.saturating_add(length)) {
                Some(drained @ ..=MAX_DRAINED_BYTES) => self.drained = drained,
                Some(_) | None => return Poll::Ready(None),
            }
        }
    }
}

/// Reads into the thread's scratch buffer; `used` gets what has arrived. The end of the stream is an error.
fn poll_read<T>(
    stream: Pin<&mut impl AsyncRead>,
    context: &mut Context<'_>,
    used: impl FnOnce(&mut [u8]) -> T,
) -> Poll<io::Result<T>> {
    THREAD_SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(stream.poll_read(context, &mut buffer))?;
        match buffer.filled_mut() {
            [] => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            read => Poll::Ready(Ok(used(read))),
        }
    })
}

impl<S, C> Socket for WebSocket<S, C>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C: FrameCounter + 'static,
{
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        self.poll_event(context)
    }

    fn poll_start_send(
        &mut self,
        context: &mut Context<'_>,
        frames: &[ByteString],
    ) -> Poll<Result<(), ConnectionLost>> {
        let started = ready!(self.shared.lock().poll_start_send(context, frames));
        started.map_err(|_| ConnectionLost)?;
        for frame in frames {
            self.shared.counter.record_sent_frame(frame.len());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        self.shared.lock().poll_flush(context).map_err(|_| ConnectionLost)
    }

    fn queue_ping(&mut self) {
        self.shared.lock().queue_control(&codec::ping());
    }

    fn queue_close(&mut self, code: u16, reason: &'static str) {
        self.end_reading();
        self.shared.lock().queue_close(&codec::close_with(code, reason));
    }

    fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.decoder.set_max_message_bytes(max_message_bytes);
    }

    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        Some(self.shared.clone())
    }
}
