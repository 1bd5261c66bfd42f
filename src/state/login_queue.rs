//! The threads that check passwords, and the logins that wait for one of them.

use std::{
    io,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::oneshot;

use crate::{
    limits::FairQueue,
    metrics::{LoginOutcome, Metrics},
};

/// Logins that may wait for each thread: about eight seconds of work.
const PLACES_PER_THREAD: usize = 32;

/// How much lower the priority of these threads is (nice(2)): beside a busy thread of normal priority they get a quarter
/// of a core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Checks passwords on threads of its own, and lets addresses and accounts take turns.
///
/// A check takes a quarter of a second of one core. There is a thread for each core but one, so that a flood of logins never
/// takes the core that serves calls.
pub(super) struct LoginQueue {
    logins: Arc<Logins>,
    metrics: Arc<Metrics>,
}

/// More logins wait than can be checked within seconds, and this one gave up its place.
#[derive(Debug)]
pub(super) struct Displaced;

/// What a login does when its turn has come. Dropped instead where it is displaced.
type Check = Box<dyn FnOnce() + Send>;

/// What the queue and its threads share.
struct Logins {
    state: Mutex<LoginState>,
    /// Notified when a login comes, and when the queue is closed.
    changed: Condvar,
}

struct LoginState {
    waiting: FairQueue<Check>,
    /// How many are checked now.
    running: usize,
    is_closed: bool,
}

/// A login that waits: it leaves the queue when its request is dropped.
struct WaitingLogin<'a> {
    queue: &'a LoginQueue,
    number: u64,
}

impl LoginQueue {
    /// Starts the threads: one for each of `cores` but one, and at least one.
    ///
    /// # Errors
    ///
    /// The system has no thread.
    pub(super) fn start(cores: usize, metrics: Arc<Metrics>) -> io::Result<Self> {
        let threads = cores.saturating_sub(1).max(1);
        let waiting = FairQueue::new(PLACES_PER_THREAD * threads);
        let state = Mutex::new(LoginState { waiting, running: 0, is_closed: false });
        // Where a thread cannot be started, the drop ends those before.
        let queue = Self { logins: Arc::new(Logins { state, changed: Condvar::new() }), metrics };
        for _ in 0..threads {
            let logins = queue.logins.clone();
            thread::Builder::new().name("password".into()).spawn(move || {
                lower_priority();
                logins.run();
            })?;
        }
        Ok(queue)
    }

    /// How many logins are checked now or wait.
    pub(super) fn pending(&self) -> usize {
        let state = self.logins.lock();
        state.waiting.len() + state.running
    }

    /// Runs `check` on one of the threads, when it is the turn of `address` and `account`. Runs it to its end once it has begun,
    /// also where the caller is dropped; where that happens before, never.
    ///
    /// # Errors
    ///
    /// [`Displaced`]
    pub(super) async fn run<R: Send + 'static>(
        &self,
        address: IpAddr,
        account: Arc<str>,
        check: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Displaced> {
        let (answer, answered) = oneshot::channel();
        let logins = self.logins.clone();
        let check: Check = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(check));
            logins.lock().running -= 1;
            let _ = answer.send(result);
        });
        let pushed = self.logins.lock().waiting.push(address, account, check);
        drop(pushed.displaced);
        self.logins.changed.notify_one();
        let _waiting = WaitingLogin { queue: self, number: pushed.number };
        match answered.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_dropped) => Err(Displaced),
        }
    }
}

impl Drop for LoginQueue {
    fn drop(&mut self) {
        self.logins.lock().is_closed = true;
        self.logins.changed.notify_all();
    }
}

impl Drop for WaitingLogin<'_> {
    fn drop(&mut self) {
        let removed = self.queue.logins.lock().waiting.remove(self.number);
        if removed.is_some() {
            self.queue.metrics.record_login(LoginOutcome::Abandoned);
        }
    }
}

impl Logins {
    /// Checks one after the other, until the queue is closed.
    fn run(&self) {
        while let Some(check) = self.next() {
            check();
        }
    }

    /// Waits for the next login.
    fn next(&self) -> Option<Check> {
        let mut state = self.lock();
        while !state.is_closed {
            if let Some(check) = state.waiting.take() {
                state.running += 1;
                return Some(check);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, LoginState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the threads that serve calls go first wherever they wait for the same core: a check is long, and a message is short.
/// Where the system refuses this, the thread stays as it is.
fn lower_priority() {
    // Elsewhere the niceness is that of the whole process; on Linux each thread has its own (sched(7)).
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::mpsc};

    use futures_util::FutureExt;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn queue() -> Arc<LoginQueue> {
        Arc::new(LoginQueue::start(1, Arc::default()).unwrap())
    }

    /// Begins a check that lasts until the returned sender sends or is dropped, and waits until it runs.
    async fn occupy(queue: &Arc<LoginQueue>) -> mpsc::Sender<()> {
        let (end, ended) = mpsc::channel();
        let (begin, begun) = oneshot::channel();
        let queue = queue.clone();
        tokio::spawn(async move {
            let check = move || {
                let _ = begin.send(());
                let _ = ended.recv();
            };
            queue.run(ADDRESS, "first".into(), check).await.unwrap();
        });
        begun.await.unwrap();
        end
    }

    #[tokio::test]
    async fn a_check_that_has_begun_runs_to_its_end_and_one_that_waits_is_left_out() {
        let queue = queue();
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let (result, results) = mpsc::channel();
        let first = {
            let (queue, result) = (queue.clone(), result.clone());
            let check = move || {
                let _ = begin.send(());
                let _ = ended.recv();
                result.send("first").unwrap();
            };
            tokio::spawn(async move { queue.run(ADDRESS, "first".into(), check).await })
        };
        begun.await.unwrap();
        let mut second =
            Box::pin(queue.run(ADDRESS, "second".into(), move || result.send("second").unwrap()));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(queue.pending(), 2);

        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        drop(second);

        assert_eq!(queue.pending(), 1);
        drop(end);
        assert_eq!(results.iter().collect::<Vec<_>>(), ["first"]);
    }

    #[tokio::test]
    async fn one_that_gives_up_its_place_is_told() {
        let queue = queue();
        let end = occupy(&queue).await;

        let flood = (0..PLACES_PER_THREAD).map(|_| queue.run(ADDRESS, "flood".into(), || ()));
        let mut flood: Vec<_> = flood.map(Box::pin).collect();
        for login in &mut flood {
            assert!(login.as_mut().now_or_never().is_none());
        }
        let mut other = Box::pin(queue.run(Ipv4Addr::BROADCAST.into(), "other".into(), || ()));
        assert!(other.as_mut().now_or_never().is_none());
        let displaced = flood.pop().unwrap().await;

        assert!(displaced.is_err());
        drop(end);
        assert!(other.await.is_ok());
        assert!(futures_util::future::join_all(flood).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_login_only() {
        let queue = queue();

        let login = {
            let queue = queue.clone();
            let check = || panic!("expected");
            tokio::spawn(async move { queue.run::<()>(ADDRESS, "first".into(), check).await })
        };
        assert!(login.await.unwrap_err().is_panic());

        assert_eq!(queue.run(ADDRESS, "second".into(), || 2).await.unwrap(), 2);
        assert_eq!(queue.pending(), 0);
    }
}
