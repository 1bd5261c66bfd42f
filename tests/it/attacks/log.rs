//! What a server process prints, kept from the first line to the last.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use crate::harness::SOON;

#[derive(Default)]
pub struct Log {
    lines: Arc<(Mutex<Vec<String>>, Notify)>,
    readers: Vec<JoinHandle<()>>,
}

impl Log {
    /// Keeps what comes from `output`.
    pub fn keep(&mut self, output: impl AsyncRead + Unpin + Send + 'static) {
        let lines = self.lines.clone();
        self.readers.push(tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Some(line) = output.next_line().await.unwrap() {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_waiters();
            }
        }));
    }

    /// The first line with these words, also when it has been printed already.
    pub async fn line(&self, words: &str) -> String {
        let find = || {
            let lines = self.lines.0.lock().unwrap();
            lines.iter().find(|line| line.contains(words)).cloned()
        };
        let found = async {
            loop {
                let news = self.lines.1.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(line) = find() {
                    return line;
                }
                news.await;
            }
        };
        match timeout(SOON, found).await {
            Ok(line) => line,
            Err(_) => panic!("{words:?} is not in {:#?}", self.lines.0.lock().unwrap()),
        }
    }

    /// Everything, once the process has ended.
    pub async fn to_the_end(self) -> Vec<String> {
        for reader in self.readers {
            timeout(SOON, reader).await.expect("somebody still holds the output").unwrap();
        }
        std::mem::take(&mut *self.lines.0.lock().unwrap())
    }
}
