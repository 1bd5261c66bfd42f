//! The threads that carry connections. Everything of a room happens on one of them, so that its messages
//! wake no other thread.

use std::{
    future::pending,
    hash::{BuildHasher, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::runtime::{self, Handle};

/// The workers of a server; at least one. Clones are the same workers.
#[derive(Clone, Debug)]
pub struct Workers(Arc<WorkersShared>);

#[derive(Debug)]
struct WorkersShared {
    first: Handle,
    others: Vec<Handle>,
    turn: AtomicUsize,
    /// Keyed, so that nobody can choose rooms that all fall to one worker.
    hasher: RandomState,
}

impl Workers {
    /// The runtime that this is called in, and beside it as many threads as make `count` workers.
    /// The threads last as long as the process.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no handle left.
    pub fn start(count: usize) -> io::Result<Self> {
        let others = (1..count).map(|number| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn(move || runtime.block_on(pending::<()>()))?;
            Ok(handle)
        });
        let others = others.collect::<io::Result<_>>()?;
        let (turn, hasher) = (AtomicUsize::new(0), RandomState::new());
        Ok(Self(Arc::new(WorkersShared { first: Handle::current(), others, turn, hasher })))
    }

    /// Each in turn: for a connection of which nothing is known yet.
    pub fn next(&self) -> &Handle {
        self.number(self.0.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// The one that has this room.
    pub fn of(&self, room: &str) -> &Handle {
        self.number(self.0.hasher.hash_one(room) as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Handle> {
        std::iter::once(&self.0.first).chain(&self.0.others)
    }

    fn number(&self, number: usize) -> &Handle {
        let number = number % (self.0.others.len() + 1);
        number.checked_sub(1).and_then(|number| self.0.others.get(number)).unwrap_or(&self.0.first)
    }
}
