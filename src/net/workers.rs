//! The threads that serve connections. All members of a room are served by one of them, so that their messages wake no
//! other thread.

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

use super::turns::RequestTurns;

/// The workers of a server; at least one. Clones are the same workers.
#[derive(Clone, Debug)]
pub struct Workers(Arc<WorkersShared>);

#[derive(Debug)]
struct WorkersShared {
    first: Handle,
    others: Vec<Handle>,
    /// How the requests of each worker begin.
    turns: Vec<Arc<RequestTurns>>,
    next: AtomicUsize,
    /// Randomly keyed, so that no client can choose rooms that all belong to one worker.
    hasher: RandomState,
}

impl Workers {
    /// Makes `count` workers: the current runtime, and a thread for each of the others. The threads live as long as the
    /// process.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no file descriptor left.
    pub fn start(count: usize) -> io::Result<Self> {
        let others = (1..count).map(|number| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn(move || runtime.block_on(pending::<()>()))?;
            Ok(handle)
        });
        let others = others.collect::<io::Result<_>>()?;
        let turns = (0..count.max(1)).map(|_| Arc::default()).collect();
        let (first, next) = (Handle::current(), AtomicUsize::new(0));
        let hasher = RandomState::new();
        Ok(Self(Arc::new(WorkersShared { first, others, turns, next, hasher })))
    }

    /// The next worker in turn, and how its requests begin: for a connection whose room is not known yet.
    pub fn next(&self) -> (&Handle, Arc<RequestTurns>) {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let turns = self.0.turns.get(number % self.0.turns.len());
        (self.number(number), turns.cloned().unwrap_or_default())
    }

    /// The worker of a room.
    pub fn of(&self, room: &str) -> &Handle {
        self.number(self.0.hasher.hash_one(room) as usize)
    }

    /// All workers.
    pub fn iter(&self) -> impl Iterator<Item = &Handle> {
        std::iter::once(&self.0.first).chain(&self.0.others)
    }

    fn number(&self, number: usize) -> &Handle {
        let number = number % (self.0.others.len() + 1);
        number.checked_sub(1).and_then(|number| self.0.others.get(number)).unwrap_or(&self.0.first)
    }
}
