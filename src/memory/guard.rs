//! The thread that sheds: the task that finds that too much is held has locks of its own, and workers may be busy.

use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    thread::{self, park, sleep},
    time::Duration,
};

use tokio::time::Instant;

use super::budget::MemoryBudget;

/// How often the guard looks again while too much is held, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(320);

/// How often the log reports that holders are shed.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Starts to keep `budget`, on a thread that lasts as long as the process.
///
/// # Errors
///
/// The system has no thread left.
pub fn start_guard(budget: &MemoryBudget) -> io::Result<()> {
    let guarded = budget.clone();
    let thread = thread::Builder::new().name("memory-guard".into());
    let thread = thread.spawn(move || {
        let mut log = ShedLog::default();
        loop {
            while !guarded.state.is_exceeded.swap(false, Relaxed) {
                park();
            }
            let mut pause = FIRST_PAUSE;
            loop {
                let shed = guarded.shed_excess();
                log.record(&guarded, shed);
                if !guarded.has_excess() {
                    break;
                }
                // Connections that were shed are closing, or what is held cannot be shed.
                pause = if shed > 0 { FIRST_PAUSE } else { (pause * 2).min(LAST_PAUSE) };
                sleep(pause);
            }
        }
    })?;
    let _ = budget.state.guard.set(thread.thread().clone());
    // What was held before.
    thread.thread().unpark();
    Ok(())
}

/// Logs what was shed, at most once in each [`LOG_INTERVAL`].
#[derive(Default)]
struct ShedLog {
    logged_at: Option<Instant>,
    since: usize,
}

impl ShedLog {
    fn record(&mut self, budget: &MemoryBudget, shed: usize) {
        self.since += shed;
        if self.since == 0 || self.logged_at.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        let clients = std::mem::take(&mut self.since);
        let (held_kib, budget_kib) = (budget.held() >> 10, budget.limit() >> 10);
        tracing::warn!(
            clients,
            held_kib,
            budget_kib,
            "too much memory held; clients that hold the most are disconnected"
        );
        self.logged_at = Some(Instant::now());
    }
}
