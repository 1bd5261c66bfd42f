//! Calls during a password-guessing attack.

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use crate::subject::{HASH, Subject, pin};

/// Guesses in flight at once. The server queues as many logins for one hashing thread.
const AT_ONCE: usize = 24;

/// The threads that guess.
pub struct Guessers<'a> {
    over: &'a AtomicBool,
    threads: Vec<ScopedJoinHandle<'a, ()>>,
}

/// The outcomes of the guesses.
#[derive(Default)]
pub struct Guesses {
    /// Checked and refused with 401.
    pub checked: AtomicU64,
    /// Any other response, or an error.
    pub other: AtomicU64,
}

impl<'a> Guessers<'a> {
    /// Starts to guess, with a different client address each time, as a proxy would report it.
    pub fn start(
        scope: &'a std::thread::Scope<'a, '_>,
        subject: &'a Subject,
        over: &'a AtomicBool,
        guesses: &'a Guesses,
    ) -> Self {
        let guess = move |thread: usize| {
            let mut number = 0_usize;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let address = format!("198.{}.{}.{}", 18 + thread % 2, thread, number % 250);
                let count = match log_in(subject, &address) {
                    Ok(401) => &guesses.checked,
                    Ok(_) | Err(_) => &guesses.other,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let threads = (0..AT_ONCE).map(|thread| scope.spawn(move || guess(thread))).collect();
        Self { over, threads }
    }

    /// Stops, and waits for the last responses.
    pub fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| _ = thread.join());
    }
}

/// How many passwords one thread checks per second on an otherwise idle core.
pub fn bcrypt_alone(core: usize, length: Duration) -> io::Result<f64> {
    let checking = std::thread::spawn(move || {
        pin(&[core])?;
        let start = Instant::now();
        let mut checked = 0_u32;
        while start.elapsed() < length {
            bcrypt::verify("not the password", HASH).map_err(io::Error::other)?;
            checked += 1;
        }
        Ok(f64::from(checked) / start.elapsed().as_secs_f64())
    });
    checking.join().map_err(|_| io::Error::other("the checking thread panicked"))?
}

fn log_in(subject: &Subject, address: &str) -> io::Result<u16> {
    let body = r#"{"username":"bench","password":"not the password"}"#;
    let mut stream = subject.http()?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
