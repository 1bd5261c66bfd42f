//! The bare loop: the minimal work of the engine for a message. One connection adds it to a stream, another waits for it.
//!
//! The engine's cost of a message depends on the batch sizes of writes and reads, and on the load of the core that it
//! shares. So this loop is closed like the real one: a fixed number of messages is in flight, all that may be sent is
//! sent as one pipeline of at most the server's size, the thread that waits for the response blocks, and both threads
//! run on the cores of the nodes and keep them busy. An entry is one real message, where the server puts several into one.
//! The number of messages in flight determines the batch sizes: [`Window`] finds the number with which reads are as large
//! as in the real loop. Both averages are in the table; if they differ, the ratio has little meaning.

use std::{
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Connection, Pipeline, RedisResult};

use super::{
    Outcome, Plan,
    engine::{Engine, PREFIX, Work},
};
use crate::{
    load::Load,
    scenarios::{Steady, run_for},
    subject::pin,
};

/// Entries in one pipeline and in one read, as in the server.
const AT_ONCE: usize = 512;

/// Longer than a message is ever in flight.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The name and the value of a field.
type Field = (String, Vec<u8>);

/// The fields of an entry, in order.
type Fields = Vec<Field>;
type Entries = Vec<(String, Fields)>;

/// The field that holds the last message in the inbox of a node.
pub fn last_message(engine: &Engine, node: &str) -> Outcome<Field> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(format!("{PREFIX}inbox:{node}")).arg("+").arg("-").arg("COUNT").arg(10);
    let entries: Entries = last.query(&mut engine.connection()?)?;
    // As in `src/cluster/codec.rs`.
    let message = entries.into_iter().flat_map(|(_, fields)| fields).find(|(name, _)| name == "m");
    Ok(message.ok_or_else(|| format!("the inbox of {node} contains no message"))?)
}

fn is(fields: &Fields, kind: &str) -> bool {
    fields.iter().any(|(name, value)| name == "kind" && value == kind.as_bytes())
}

/// The number of messages in flight, adjusted after each round.
pub struct Window(f64);

impl Window {
    /// Initially as many as are in flight to each of two nodes that share `at_once`.
    pub fn new(at_once: usize) -> Self {
        Self(at_once as f64 / 2.0)
    }

    /// The current number.
    pub fn size(&self) -> usize {
        (self.0.round() as usize).clamp(1, AT_ONCE)
    }

    /// Approaches the number with which the bare loop reads as many entries at once as the real one.
    pub fn adjust(&mut self, real: &Work, bare: &Work) {
        let ratio = real.read_at_once() / bare.read_at_once();
        // Only half of the difference (the square root), because rounds differ.
        self.0 = (self.0 * ratio.clamp(0.25, 4.0).sqrt()).clamp(1.0, AT_ONCE as f64);
    }
}

/// The state that the two threads share.
struct Loop {
    /// How many messages may be sent.
    free: Mutex<usize>,
    freed: Condvar,
    is_stopped: AtomicBool,
    sent: AtomicU64,
    read: AtomicU64,
}

/// One round of the loop with one `message`, an entry each time, `window` of them in flight. Meanwhile the clients of `load`
/// are polled as in any other round: beside an idle core, the core of the engine would be faster.
pub fn round(
    engine: &Engine,
    (load, idle): (&mut Load, &mut impl Steady),
    message: &Field,
    window: usize,
    plan: &Plan,
) -> Outcome<Work> {
    let inbox = format!("{PREFIX}inbox:bare");
    let (mut writer, mut reader) = (engine.connection()?, engine.connection()?);
    // The stream exists, and has one entry, like the inbox of a node that has just sent a heartbeat.
    let _: u8 = redis::cmd("DEL").arg(&inbox).query(&mut writer)?;
    let hello: String =
        redis::cmd("XADD").arg(&inbox).arg("*").arg("kind").arg("hello").query(&mut writer)?;
    let shared = Loop {
        free: Mutex::new(window),
        freed: Condvar::new(),
        is_stopped: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        read: AtomicU64::new(0),
    };
    let shared = &shared;
    let work = std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            pin(&plan.node_cores)?;
            shared.write(&mut writer, &inbox, message).map_err(io::Error::other)
        });
        let reads = scope.spawn(|| {
            pin(&plan.node_cores)?;
            shared.read(&mut reader, &inbox, hello).map_err(io::Error::other)
        });
        let measured = measure(engine, load, idle, shared, plan.length);
        shared.is_stopped.store(true, Ordering::SeqCst);
        shared.freed.notify_all();
        for thread in [writes, reads] {
            thread.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        measured
    })?;
    let (sent, read) = (shared.sent.load(Ordering::SeqCst), shared.read.load(Ordering::SeqCst));
    if sent != read || read == 0 {
        return Err(format!("the bare loop sent {sent} messages, and read {read}").into());
    }
    let _: u8 = redis::cmd("DEL").arg(&inbox).query(&mut engine.connection()?)?;
    Ok(work)
}

fn measure(
    engine: &Engine,
    load: &mut Load,
    idle: &mut impl Steady,
    shared: &Loop,
    length: Duration,
) -> io::Result<Work> {
    run_for(load, idle, length / 5)?;
    let (start, before, read) =
        (Instant::now(), engine.stats()?, shared.read.load(Ordering::SeqCst));
    run_for(load, idle, length)?;
    Ok(Work {
        messages: shared.read.load(Ordering::SeqCst) - read,
        seconds: start.elapsed().as_secs_f64(),
        samples: [before, engine.stats()?],
    })
}

impl Loop {
    fn write(
        &self,
        writer: &mut Connection,
        inbox: &str,
        (name, value): &Field,
    ) -> RedisResult<()> {
        while let Some(some) = self.wait_for_window()? {
            let mut pipe = Pipeline::with_capacity(some);
            for _ in 0..some {
                // As in `src/cluster/commands.rs`, but for the limit: no heartbeat drops what was read here.
                let add = pipe.cmd("XADD").arg(inbox).arg("NOMKSTREAM").arg("MAXLEN").arg("~");
                add.arg(100_000).arg("*").arg(name).arg(value);
            }
            let ids: Vec<String> = pipe.query(writer)?;
            self.sent.fetch_add(ids.len() as u64, Ordering::SeqCst);
        }
        let _: String =
            redis::cmd("XADD").arg(inbox).arg("*").arg("kind").arg("end").query(writer)?;
        Ok(())
    }

    /// Waits until messages may be sent; returns how many, or `None` when the loop is stopped.
    fn wait_for_window(&self) -> io::Result<Option<usize>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let must_wait = |free: &mut usize| *free == 0 && !self.is_stopped.load(Ordering::SeqCst);
        let (mut free, waited) = self
            .freed
            .wait_timeout_while(free, TIMEOUT, must_wait)
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if waited.timed_out() {
            return Err(io::Error::other("the bare loop has read nothing"));
        }
        let some = (*free).min(AT_ONCE);
        *free -= some;
        Ok(Some(some))
    }

    /// Reads until the entry that marks the end.
    fn read(&self, reader: &mut Connection, inbox: &str, mut last: String) -> RedisResult<()> {
        let mut last_read = Instant::now();
        while last_read.elapsed() < TIMEOUT {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(1000).arg("STREAMS");
            let read: Option<Vec<(String, Entries)>> = read.arg(inbox).arg(&last).query(reader)?;
            let mut entries: Entries = read.into_iter().flatten().flat_map(|it| it.1).collect();
            let Some((id, fields)) = entries.last() else { continue };
            last_read = Instant::now();
            last.clone_from(id);
            let is_end = is(fields, "end");
            if is_end {
                entries.pop();
            }
            self.read.fetch_add(entries.len() as u64, Ordering::SeqCst);
            *self.free.lock().unwrap_or_else(PoisonError::into_inner) += entries.len();
            self.freed.notify_one();
            if is_end {
                return Ok(());
            }
        }
        Err(io::Error::other("the end of the bare loop was not read").into())
    }
}
