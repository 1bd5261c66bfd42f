//! Writes of one file that many wait for: one at a time, each for all who had changed something before it began.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Mutex, task::spawn_blocking};

use super::NotPersisted;

/// Has one file written, by at most one thread at a time, however many changes there are.
#[derive(Default)]
pub(super) struct CoalescedWrites {
    /// How many writes have begun.
    begun: Arc<AtomicU64>,
    /// Held by the write that runs.
    last: Arc<Mutex<LastWrite>>,
}

/// The write that began last.
struct LastWrite {
    number: u64,
    result: Result<(), NotPersisted>,
}

impl Default for LastWrite {
    fn default() -> Self {
        Self { number: 0, result: Ok(()) }
    }
}

impl CoalescedWrites {
    /// Runs `write`, which may block, or waits for that of another caller; either begins after this call, and so contains
    /// what had changed by then.
    ///
    /// # Errors
    ///
    /// That of the write.
    pub(super) async fn run(
        &self,
        write: impl FnOnce() -> Result<(), NotPersisted> + Send + 'static,
    ) -> Result<(), NotPersisted> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.clone().lock_owned().await;
        if last.number > begun_before {
            return last.result;
        }
        let begun = self.begun.clone();
        // The thread holds the lock, also where its caller is gone meanwhile.
        let writing = spawn_blocking(move || {
            let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
            // What a panic leaves.
            *last = LastWrite { number, result: Err(NotPersisted) };
            last.result = write();
            last.result
        });
        writing.await.unwrap_or(Err(NotPersisted))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        pin::Pin,
        sync::mpsc,
        task::Poll,
    };

    use super::*;

    async fn is_waiting(mut run: Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(run.as_mut().poll(context).is_pending())).await
    }

    /// A write that runs until it is told its result.
    struct HeldWrite {
        begun: mpsc::Receiver<()>,
        end: mpsc::Sender<Result<(), NotPersisted>>,
    }

    impl HeldWrite {
        fn new() -> (Self, impl FnOnce() -> Result<(), NotPersisted> + Send + 'static) {
            let ((begins, begun), (end, ends)) = (mpsc::channel(), mpsc::channel());
            let write = move || {
                begins.send(()).unwrap();
                ends.recv().unwrap()
            };
            (Self { begun, end }, write)
        }

        /// Waits until it runs, and returns what ends it.
        async fn begun(self) -> mpsc::Sender<Result<(), NotPersisted>> {
            let Self { begun, end } = self;
            spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
            end
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_that_arrive_while_a_write_runs_have_the_next_one_together() {
        let (writes, count) = (Arc::<CoalescedWrites>::default(), Arc::<AtomicU64>::default());
        let (held, first) = HeldWrite::new();
        let running = tokio::spawn({
            let writes = writes.clone();
            async move { writes.run(first).await }
        });
        let end = held.begun().await;

        let mut later: Vec<_> = (0..100)
            .map(|_| {
                let (writes, count) = (writes.clone(), count.clone());
                Box::pin(async move {
                    let counted = move || {
                        count.fetch_add(1, Ordering::SeqCst);
                        Err(NotPersisted)
                    };
                    writes.run(counted).await
                })
            })
            .collect();
        for waiting in &mut later {
            assert!(is_waiting(waiting.as_mut()).await);
        }
        end.send(Ok(())).unwrap();

        assert_eq!(running.await.unwrap(), Ok(()));
        for waiting in later {
            assert_eq!(waiting.await, Err(NotPersisted), "the result of the write for all");
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(writes.run(|| Ok(())).await, Ok(()), "a later change has a write of its own");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_goes_on_alone_when_its_caller_is_gone() {
        let writes = CoalescedWrites::default();
        let (held, first) = HeldWrite::new();
        let mut cancelled = Box::pin(writes.run(first));
        assert!(is_waiting(cancelled.as_mut()).await);
        drop(cancelled);
        let end = held.begun().await;

        let mut second = Box::pin(writes.run(|| Ok(())));
        assert!(is_waiting(second.as_mut()).await, "never two at once");
        end.send(Err(NotPersisted)).unwrap();

        assert_eq!(second.await, Ok(()));
    }

    #[tokio::test]
    async fn a_write_that_panics_is_no_success_and_no_end() {
        let writes = CoalescedWrites::default();

        let failed = writes.run(|| panic!("a fault")).await;

        assert_eq!(failed, Err(NotPersisted));
        assert_eq!(writes.run(|| Ok(())).await, Ok(()));
    }
}
