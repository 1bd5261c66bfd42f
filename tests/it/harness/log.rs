//! What a process prints, kept from the first line to the last.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use super::TEST_TIMEOUT;

/// The output of a process, read as it comes.
#[derive(Default)]
pub struct ProcessLog {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    /// How many lines [`next_line_with`](Self::next_line_with) has passed.
    position: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    is_paused: AtomicBool,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    open_streams: usize,
}

impl ProcessLog {
    /// Keeps what comes from `output`.
    pub fn keep(&mut self, output: impl AsyncRead + Unpin + Send + 'static) {
        let shared = self.shared.clone();
        shared.state.lock().unwrap().open_streams += 1;
        self.readers.push(tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Some(line) = output.next_line().await.unwrap() {
                shared.state.lock().unwrap().lines.push(line);
                shared.changed.notify_waiters();
                if shared.is_paused.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            }
            shared.state.lock().unwrap().open_streams -= 1;
            shared.changed.notify_waiters();
        }));
    }

    /// Reads no more, for good: the process writes into a pipe that fills.
    pub fn pause(&self) {
        self.shared.is_paused.store(true, Ordering::Relaxed);
    }

    /// The first line that contains `text`, also one that has been printed already.
    pub async fn line_with(&self, text: &str) -> String {
        self.find(text, 0).await.1
    }

    /// The next line that contains `text` after the one that was returned last.
    pub async fn next_line_with(&mut self, text: &str) -> String {
        let (at, line) = self.find(text, self.position).await;
        self.position = at + 1;
        line
    }

    /// Waits until so many lines contain `text`.
    pub async fn lines_with(&self, text: &str, count: usize) {
        let enough = |state: &State| {
            let found = state.lines.iter().filter(|line| line.contains(text)).count() >= count;
            found.then_some(())
        };
        self.wait_for(&format!("{count} times {text:?}"), enough).await;
    }

    /// How many lines contain `text` so far.
    pub fn count(&self, text: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.lines.iter().filter(|line| line.contains(text)).count()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().lines.clone()
    }

    /// All lines, once the process has ended; those so far after a [`pause`](Self::pause).
    pub async fn read_to_end(&mut self) -> Vec<String> {
        if self.shared.is_paused.load(Ordering::Relaxed) {
            return self.lines();
        }
        for reader in self.readers.drain(..) {
            timeout(TEST_TIMEOUT, reader).await.expect("another process holds the output").unwrap();
        }
        self.lines()
    }

    async fn find(&self, text: &str, from: usize) -> (usize, String) {
        let find = |state: &State| {
            let mut lines = state.lines.iter().enumerate().skip(from);
            let found = lines.find(|(_, line)| line.contains(text));
            found.map(|(at, line)| (at, line.clone()))
        };
        self.wait_for(&format!("{text:?}"), find).await
    }

    /// Waits until `find` finds something; panics where the process has ended without that.
    async fn wait_for<T>(&self, what: &str, find: impl Fn(&State) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let state = self.shared.state.lock().unwrap();
                    if let Some(found) = find(&state) {
                        return Some(found);
                    }
                    if state.open_streams == 0 {
                        return None;
                    }
                }
                changed.await;
            }
        };
        match timeout(TEST_TIMEOUT, waiting).await {
            Ok(Some(found)) => found,
            _ => panic!("{what} is not in {:#?}", self.lines()),
        }
    }
}
