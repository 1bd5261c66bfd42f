//! Lets the requests of a worker begin one at a time.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake},
};

use tokio::{sync::oneshot, task::yield_now};

/// Lets the requests of a worker begin one at a time, in the order in which they came. Between two of them the worker looks for
/// what has arrived on all connections: so a member's message waits for one request, and not for each of some hundred that
/// came, or whose bodies ended, at the same instant.
#[derive(Debug, Default)]
pub struct RequestTurns {
    /// The requests that wait. None where none has begun since the worker last looked.
    waiting: Mutex<Option<VecDeque<oneshot::Sender<Turn>>>>,
}

impl RequestTurns {
    /// Waits until the next request may begin. Cancel safe.
    pub async fn take(self: &Arc<Self>) {
        let taken = match &mut *self.lock() {
            Some(waiting) => {
                let (turn, taken) = oneshot::channel();
                waiting.push_back(turn);
                Some(taken)
            }
            first @ None => {
                *first = Some(VecDeque::new());
                None
            }
        };
        match taken {
            // The sender is dropped only with the worker.
            Some(taken) => drop(taken.await),
            None => drop(Turn(Some(self.clone()))),
        }
    }

    /// Gives the turn to the first request that still waits for it, if there is one.
    fn give(self: Arc<Self>) {
        let mut waiting = self.lock();
        let mut turn = Turn(Some(self.clone()));
        while let Some(next) = waiting.as_mut().and_then(VecDeque::pop_front) {
            match next.send(turn) {
                Ok(()) => return,
                Err(passed_over) => turn = passed_over,
            }
        }
        *waiting = None;
        turn.0 = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<oneshot::Sender<Turn>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for RequestTurns {
    fn wake(self: Arc<Self>) {
        self.give();
    }
}

/// The turn of a request that may begin, or of one that was dropped before it did. The next turn is given after the worker's
/// next look. `None` where no request waits.
#[derive(Debug)]
struct Turn(Option<Arc<RequestTurns>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            // Tokio wakes those that yield after it has polled its sockets, and what they woke. This needs no task.
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&turns.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        task::JoinSet,
    };

    use super::*;

    #[tokio::test]
    async fn a_message_that_arrives_waits_for_few_of_many_requests() {
        const REQUESTS: usize = 50;
        let (turns, begun) = (Arc::new(RequestTurns::default()), Arc::new(Mutex::new(0)));
        let (mut sender, mut receiver) = UnixStream::pair().unwrap();
        let seen = begun.clone();
        let member = tokio::spawn(async move {
            receiver.read_u8().await.unwrap();
            *seen.lock().unwrap()
        });
        // The member waits for its socket.
        yield_now().await;

        let mut requests = JoinSet::new();
        for _ in 0..REQUESTS {
            let (turns, begun) = (turns.clone(), begun.clone());
            requests.spawn(async move {
                turns.take().await;
                *begun.lock().unwrap() += 1;
            });
        }
        sender.write_u8(1).await.unwrap();
        requests.join_all().await;

        let before = member.await.unwrap();
        assert!(before <= 5, "{before} requests began before");
        assert_eq!(*begun.lock().unwrap(), REQUESTS);
    }

    #[tokio::test]
    async fn a_request_that_was_dropped_is_passed_over() {
        let turns = Arc::new(RequestTurns::default());
        turns.take().await;
        let mut dropped = Box::pin(turns.take());
        assert!(dropped.as_mut().now_or_never().is_none(), "the first has not ended its turn");
        drop(dropped);

        turns.take().await;

        yield_now().await;
        yield_now().await;
        assert!(turns.lock().is_none(), "the next request need not wait");
    }
}
