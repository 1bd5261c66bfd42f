//! The stream that hyper reads requests from and writes answers to, a little at a time, and with the one head corrected that
//! hyper cannot be told to write.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

/// How every answer begins that ends HTTP on a connection.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";

/// What hyper writes in it where the request had `close` beside `Upgrade`, and what it should write.
const UPGRADE_AND_CLOSE: &[u8] = b"connection: Upgrade, close\r\n";
const UPGRADE: &[u8] = b"connection: Upgrade\r\n";

/// How much hyper reads at once, in bytes. With less than its first buffer holds, the buffer grows only for a head that is as
/// long, and what it has read ahead of the next request is little.
const MAX_READ_BYTES: u64 = 4 * 1024;

/// A connection for hyper. After a 101 the connection does not close, whatever the request said, and clients that compare
/// `Connection` as a whole (Tcl's websocket) do not take `Upgrade, close` for an upgrade.
pub(super) struct AnswerStream<S> {
    stream: Take<S>,
    /// The rest of a corrected head that the socket did not take yet.
    unsent: Vec<u8>,
}

impl<S: AsyncRead> AnswerStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream: stream.take(MAX_READ_BYTES), unsent: Vec::new() }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream.into_inner()
    }
}

/// The head of a 101 without the `close`, where it has one.
fn corrected(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(SWITCHING) {
        return None;
    }
    let at = bytes.windows(UPGRADE_AND_CLOSE.len()).position(|part| part == UPGRADE_AND_CLOSE)?;
    let (before, rest) = bytes.split_at_checked(at)?;
    Some([before, UPGRADE, rest.get(UPGRADE_AND_CLOSE.len()..)?].concat())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AnswerStream<S> {
    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(self.stream.get_mut()).poll_write(context, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.unsent.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnswerStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.set_limit(MAX_READ_BYTES);
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AnswerStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(context))?;
        if let Some(head) = corrected(bytes) {
            self.unsent = head;
            // A flush, which hyper waits for before it hands the connection over, writes what does not go out now.
            let _ = self.poll_unsent(context)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(self.stream.get_mut()).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices.iter().find(|slice| !slice.is_empty()) {
            Some(head) if head.starts_with(SWITCHING) => self.poll_write(context, head),
            Some(_) | None => {
                ready!(self.poll_unsent(context))?;
                Pin::new(self.stream.get_mut()).poll_write_vectored(context, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        Pin::new(self.stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        Pin::new(self.stream.get_mut()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_the_close_of_a_101_is_left_out_also_where_the_socket_takes_a_few_bytes_at_a_time()
    {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade, close\r\nupgrade: x\r\n\r\n";
        let other = "HTTP/1.1 200 OK\r\nconnection: Upgrade, close\r\n\r\n";
        for (written, expected) in [
            (head, head.replace(", close", "")),
            (other, other.to_owned()),
            (&head.replace(", close", ""), head.replace(", close", "")),
        ] {
            let (near, mut far) = tokio::io::duplex(3);
            let reading = tokio::spawn(async move {
                let mut text = String::new();
                far.read_to_string(&mut text).await.unwrap();
                text
            });
            let mut stream = AnswerStream::new(near);
            stream.write_all(written.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            stream.into_inner().write_all(b"after").await.unwrap();

            assert_eq!(reading.await.unwrap(), expected + "after");
        }
    }
}
