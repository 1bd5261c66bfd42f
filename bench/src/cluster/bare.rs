//! What the engine has to do for a message at least: one connection adds it to a stream, another waits for it.
//!
//! The engine's price of a message depends on how many it is given, and asked for, at once, and on how busy the core
//! is that it shares. So this loop is closed like the real one: so many messages are on the way, whatever may be sent
//! is sent as one pipeline of the size that the server allows itself, whoever waits for the answer blocks, and both
//! threads are on the cores of the nodes, which they keep busy; what is added is what a node has added. How many
//! messages are on the way is what makes batches larger or smaller: [`Window`] finds the number with which as many are
//! read at once as in the real loop. Both averages are in the table; where they differ, the ratio says little.

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

/// What goes in one pipeline, and what is read at once, as the server does.
const AT_ONCE: usize = 512;

/// Longer than a message is ever on the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of an entry, in its order.
type Fields = Vec<(String, Vec<u8>)>;
type Entries = Vec<(String, Fields)>;

/// The fields of the last message that a node has heard, as they are in its inbox.
pub fn last_said(engine: &Engine, node: &str) -> Outcome<Fields> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(format!("{PREFIX}inbox:{node}")).arg("+").arg("-").arg("COUNT").arg(10);
    let entries: Entries = last.query(&mut engine.connection()?)?;
    let said = entries.into_iter().map(|(_, fields)| fields);
    let said = said.into_iter().find(|fields| is(fields, "relay"));
    Ok(said.ok_or_else(|| format!("the inbox of {node} shows no message"))?)
}

fn is(fields: &Fields, kind: &str) -> bool {
    fields.iter().any(|(name, value)| name == "kind" && value == kind.as_bytes())
}

/// How many messages the loop keeps on the way, found while it is measured.
pub struct Window(f64);

impl Window {
    /// At first, as many as are on the way to each of two nodes that share `at_once`.
    pub fn new(at_once: usize) -> Self {
        Self(at_once as f64 / 2.0)
    }

    /// How many it is now.
    pub fn size(&self) -> usize {
        (self.0.round() as usize).clamp(1, AT_ONCE)
    }

    /// Comes nearer to the number with which the bare loop reads as many at once as the real one.
    pub fn learn(&mut self, real: &Work, bare: &Work) {
        let missed = real.read_at_once() / bare.read_at_once();
        // By half the way, since one round is not like the next.
        self.0 = (self.0 * missed.clamp(0.25, 4.0).sqrt()).clamp(1.0, AT_ONCE as f64);
    }
}

/// What the two threads share.
struct Loop {
    /// How many may be sent.
    free: Mutex<usize>,
    freed: Condvar,
    over: AtomicBool,
    sent: AtomicU64,
    read: AtomicU64,
}

/// One round of the loop with messages of these `fields`, `window` of them on the way. Meanwhile the clients of `load`
/// are polled as in any other round: an idle core beside it would make the engine's a faster one.
pub fn round(
    engine: &Engine,
    (load, idle): (&mut Load, &mut impl Steady),
    fields: &Fields,
    window: usize,
    plan: &Plan,
) -> Outcome<Work> {
    let inbox = format!("{PREFIX}inbox:bare");
    let (mut writer, mut reader) = (engine.connection()?, engine.connection()?);
    // It is there and empty, as that of a node that beats.
    let _: u8 = redis::cmd("DEL").arg(&inbox).query(&mut writer)?;
    let hello: String =
        redis::cmd("XADD").arg(&inbox).arg("*").arg("kind").arg("hello").query(&mut writer)?;
    let shared = Loop {
        free: Mutex::new(window),
        freed: Condvar::new(),
        over: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        read: AtomicU64::new(0),
    };
    let shared = &shared;
    let work = std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            pin(&plan.node_cores)?;
            shared.write(&mut writer, &inbox, fields).map_err(io::Error::other)
        });
        let reads = scope.spawn(|| {
            pin(&plan.node_cores)?;
            shared.take(&mut reader, &inbox, hello).map_err(io::Error::other)
        });
        let measured = measure(engine, load, idle, shared, plan.length);
        shared.over.store(true, Ordering::SeqCst);
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
    let (began, before, read) =
        (Instant::now(), engine.figures()?, shared.read.load(Ordering::SeqCst));
    run_for(load, idle, length)?;
    Ok(Work {
        messages: shared.read.load(Ordering::SeqCst) - read,
        seconds: began.elapsed().as_secs_f64(),
        looks: [before, engine.figures()?],
    })
}

impl Loop {
    fn write(&self, writer: &mut Connection, inbox: &str, fields: &Fields) -> RedisResult<()> {
        while let Some(some) = self.allowed()? {
            let mut pipe = Pipeline::with_capacity(some);
            for _ in 0..some {
                // As `post` in `src/cluster/commands.rs`.
                let add = pipe.cmd("XADD").arg(inbox).arg("NOMKSTREAM").arg("MAXLEN").arg("~");
                add.arg(100_000).arg("*");
                for (name, value) in fields {
                    add.arg(name).arg(value);
                }
            }
            let ids: Vec<String> = pipe.query(writer)?;
            self.sent.fetch_add(ids.len() as u64, Ordering::SeqCst);
        }
        let _: String =
            redis::cmd("XADD").arg(inbox).arg("*").arg("kind").arg("end").query(writer)?;
        Ok(())
    }

    /// Waits until something may be sent, and says how much; `None` when nothing is to be sent any more.
    fn allowed(&self) -> io::Result<Option<usize>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |free: &mut usize| *free == 0 && !self.over.load(Ordering::SeqCst);
        let (mut free, waited) = self
            .freed
            .wait_timeout_while(free, PATIENCE, waits)
            .unwrap_or_else(PoisonError::into_inner);
        if self.over.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if waited.timed_out() {
            return Err(io::Error::other("the bare loop reads nothing"));
        }
        let some = (*free).min(AT_ONCE);
        *free -= some;
        Ok(Some(some))
    }

    /// Reads until the end is read.
    fn take(&self, reader: &mut Connection, inbox: &str, mut last: String) -> RedisResult<()> {
        let mut heard = Instant::now();
        while heard.elapsed() < PATIENCE {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(1000).arg("STREAMS");
            let read: Option<Vec<(String, Entries)>> = read.arg(inbox).arg(&last).query(reader)?;
            let mut entries: Entries = read.into_iter().flatten().flat_map(|it| it.1).collect();
            let Some((id, fields)) = entries.last() else { continue };
            heard = Instant::now();
            last.clone_from(id);
            let is_over = is(fields, "end");
            if is_over {
                entries.pop();
            }
            self.read.fetch_add(entries.len() as u64, Ordering::SeqCst);
            *self.free.lock().unwrap_or_else(PoisonError::into_inner) += entries.len();
            self.freed.notify_one();
            if is_over {
                return Ok(());
            }
        }
        Err(io::Error::other("the bare loop has no end").into())
    }
}
