//! A connection in memory: the end that the server gets, and the end of a simulated client.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The clients whose end has something to read.
pub struct Readable {
    clients: Mutex<Vec<usize>>,
    thread: Thread,
}

/// One connection. It holds no buffer while nothing is on the way.
pub struct Connection {
    client: usize,
    state: Mutex<State>,
    readable: Arc<Readable>,
}

#[derive(Default)]
struct State {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    server: Option<Waker>,
    is_closed_by_client: bool,
    is_closed_by_server: bool,
}

/// The server's end.
pub struct ServerEnd(pub Arc<Connection>);

impl Readable {
    /// The clients of this thread.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { clients: Mutex::default(), thread: thread::current() })
    }

    /// Waits until clients can read something, at the longest until `deadline`, and returns them.
    pub fn wait(&self, deadline: Instant) -> Vec<usize> {
        loop {
            let clients = std::mem::take(&mut *lock(&self.clients));
            let left = deadline.saturating_duration_since(Instant::now());
            if !clients.is_empty() || left == Duration::ZERO {
                return clients;
            }
            thread::park_timeout(left);
        }
    }

    fn push(&self, client: usize) {
        lock(&self.clients).push(client);
        self.thread.unpark();
    }
}

impl Connection {
    /// The connection of a client, by its number.
    pub fn new(client: usize, readable: &Arc<Readable>) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::default(), readable: readable.clone() })
    }

    /// Sends bytes to the server.
    pub fn send(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.to_server.extend_from_slice(bytes);
        let server = state.server.take();
        drop(state);
        if let Some(server) = server {
            server.wake();
        }
    }

    /// Ends what the client sends.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed_by_client = true;
        let server = state.server.take();
        drop(state);
        if let Some(server) = server {
            server.wake();
        }
    }

    /// What the server has sent, and whether it has closed the connection.
    pub fn take(&self) -> (Vec<u8>, bool) {
        let mut state = lock(&self.state);
        (std::mem::take(&mut state.to_client), state.is_closed_by_server)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl AsyncRead for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if state.to_server.is_empty() && state.is_closed_by_client {
            return Poll::Ready(Ok(()));
        }
        if state.to_server.is_empty() {
            state.server = Some(context.waker().clone());
            return Poll::Pending;
        }
        let length = state.to_server.len().min(buffer.remaining());
        buffer.put_slice(&state.to_server[..length]);
        if length == state.to_server.len() {
            state.to_server = Vec::new();
        } else {
            state.to_server.drain(..length);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        let was_empty = state.to_client.is_empty();
        state.to_client.extend_from_slice(bytes);
        drop(state);
        if was_empty {
            self.0.readable.push(self.0.client);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.state().is_closed_by_server = true;
        self.0.readable.push(self.0.client);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
