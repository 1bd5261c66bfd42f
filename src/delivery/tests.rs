//! The bounds of a send queue, and the order of what bypasses it.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Waker},
};

use bytestring::ByteString;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::websocket::{DirectWriter, FrameCounter, Socket, WebSocket, WriteOutcome};

#[tokio::test]
async fn a_queue_that_holds_too_many_frames_ends_the_connection() {
    let (queue, reader) = channel();

    for _ in 0..=QUEUE_MAX_FRAMES {
        queue.push("x".into(), None);
    }

    assert_eq!(reader.disconnect_signal().disconnected().await, DisconnectReason::TooSlow);
}

#[tokio::test]
async fn a_queue_that_holds_too_many_bytes_ends_the_connection() {
    let (queue, reader) = channel();
    let megabyte = ByteString::from("x".repeat(1024 * 1024));

    for _ in 0..=QUEUE_MAX_BYTES / megabyte.len() {
        queue.push(megabyte.clone(), None);
    }

    assert_eq!(reader.disconnect_signal().disconnected().await, DisconnectReason::TooSlow);
}

/// A direct writer that accepts everything.
struct WritesAll;

impl DirectWriter for WritesAll {
    fn try_send(&self, _: &ByteString) -> WriteOutcome {
        WriteOutcome::Complete
    }
}

#[test]
fn no_frame_overtakes_one_that_is_queued_or_was_taken_and_may_not_be_written_yet() {
    let (queue, mut reader) = channel();
    let mut taken = Vec::new();
    let context = Context::from_waker(Waker::noop());

    assert!(!queue.push("before there is a writer".into(), None));
    reader.set_direct_writer(Some(Arc::new(WritesAll)));
    assert!(!queue.push("behind it".into(), None));
    assert!(reader.poll_recv_many(&context, &mut taken).is_ready());
    assert!(!queue.push("while those are being written".into(), None));
    assert!(reader.poll_recv_many(&context, &mut taken).is_ready());
    assert!(reader.poll_recv_many(&context, &mut taken).is_pending());
    assert!(queue.push("directly".into(), None));

    assert_eq!(
        taken,
        ["before there is a writer", "behind it", "while those are being written"]
            .map(ByteString::from)
    );
}

#[test]
fn debug_output_shows_how_much_is_queued_and_no_contents() {
    let (queue, reader) = channel();

    queue.push("v=0 the payload".into(), None);

    let shown = format!("{queue:?} {reader:?} {:?}", reader.disconnect_signal());
    assert!(shown.contains("frames: 1") && !shown.contains("payload"), "{shown}");
}

#[tokio::test]
async fn a_frame_that_was_read_no_longer_counts() {
    let (queue, mut reader) = channel();
    let megabyte = ByteString::from("x".repeat(1024 * 1024));

    for _ in 0..QUEUE_MAX_FRAMES * 2 {
        queue.push(megabyte.clone(), None);
        reader.try_recv().unwrap();
    }
    queue.disconnect(DisconnectReason::Replaced);

    assert_eq!(reader.disconnect_signal().disconnected().await, DisconnectReason::Replaced);
}

struct NotCounted;

impl FrameCounter for NotCounted {
    fn record_sent_frame(&self, _: usize) {}
}

/// The text frames on the wire, up to the one with the text `last`.
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

/// Everything at once on a pipe that is too narrow: frames that a peer writes directly, frames that are queued, and
/// the pings of the socket's own task.
#[tokio::test]
async fn a_direct_write_overtakes_no_frame_and_splits_none() {
    const COUNT: usize = 2_000;
    let (mut client, server) = tokio::io::duplex(1_500);
    let mut socket = WebSocket::new(server, Vec::new(), 1024, NotCounted);
    let (queue, mut reader) = channel();
    reader.set_direct_writer(socket.direct_writer());
    let sent: Vec<_> = (0..COUNT)
        .map(|number| format!("{number} {}", "x".repeat(number * 7919 % 3_000)))
        .chain(["last".to_owned()])
        .collect();

    let owner = tokio::spawn(async move {
        let mut frames = Vec::new();
        loop {
            tokio::select! {
                biased;
                event = socket.receive() => if event.is_none() { break },
                _ = poll_fn(|context| reader.poll_recv_many(context, &mut frames)) => {
                    socket.send(&frames).await.unwrap();
                    frames.clear();
                    socket.queue_ping();
                    socket.flush().await.unwrap();
                }
            }
        }
    });
    let (mut direct, all) = (0, sent.clone());
    let peer = async {
        for (number, text) in all.into_iter().enumerate() {
            if queue.push(text.into(), None) {
                direct += 1;
                continue;
            }
            // Sometimes long enough for the queue to become empty.
            for _ in 0..number % 30 {
                tokio::task::yield_now().await;
            }
        }
    };
    let (received, ()) = tokio::join!(texts(&mut client, "last"), peer);
    drop(client);

    assert_eq!(received, sent);
    assert!((COUNT / 10..=COUNT).contains(&direct), "{direct} bypassed the queue");
    owner.await.unwrap();
}
