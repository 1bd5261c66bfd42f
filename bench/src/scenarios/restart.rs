//! All members come back at once after a crash of the server.

use std::{
    io,
    time::{Duration, Instant},
};

use super::TIMEOUT;
use crate::{
    load::{Identity, Load, Scenario},
    subject::Subject,
};

/// Connections that are on their way into a room at once: fewer than a kernel queues for a listening socket.
const AT_ONCE: usize = 1000;

/// What the return of all members took.
pub struct Return {
    /// Seconds from the first connection until the last member had joined.
    pub seconds: f64,
    /// Processor time of the server for each member, in microseconds.
    pub cpu: f64,
}

struct Members {
    /// The member of each connection.
    by_connection: Vec<usize>,
    is_joined: Vec<bool>,
    joined: usize,
    lost: Vec<usize>,
}

impl Members {
    fn all_join(&mut self, load: &mut Load) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while self.joined < self.is_joined.len() {
            while self.is_joined.len() - self.lost.len() - self.joined < AT_ONCE
                && let Some(member) = self.lost.pop()
            {
                let id = if member.is_multiple_of(2) { "first" } else { "second" };
                let room = format!("restart-{}", member / 2);
                let index = load.connect(Identity { room, id: id.to_owned() })?;
                self.by_connection.resize(self.by_connection.len().max(index + 1), 0);
                self.by_connection[index] = member;
            }
            load.turn(self, Duration::ZERO)?;
            if Instant::now() > deadline {
                return Err(io::Error::other("not all members have joined in time"));
            }
        }
        Ok(())
    }
}

impl Scenario for Members {
    fn joined(&mut self, _load: &mut Load, index: usize) -> io::Result<()> {
        self.is_joined[self.by_connection[index]] = true;
        self.joined += 1;
        Ok(())
    }

    fn received(&mut self, _load: &mut Load, _who: usize, _message: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn disconnected(&mut self, _load: &mut Load, index: usize) -> io::Result<()> {
        let member = self.by_connection[index];
        self.joined -= usize::from(std::mem::take(&mut self.is_joined[member]));
        self.lost.push(member);
        Ok(())
    }
}

/// Lets `members` join in rooms of two, crashes the server, and lets them join again.
pub fn measure(
    subject: Subject,
    restart: impl FnOnce(Subject) -> io::Result<Subject>,
    load: &mut Load,
    members: usize,
) -> io::Result<Return> {
    let mut all = Members {
        by_connection: Vec::new(),
        is_joined: vec![false; members],
        joined: 0,
        lost: (0..members).rev().collect(),
    };
    all.all_join(load)?;
    let subject = restart(subject)?;
    load.until(&mut all, TIMEOUT, |all| all.joined == 0)?;
    let (start, cpu) = (Instant::now(), subject.cpu()?);
    all.all_join(load)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Return { seconds, cpu: (subject.cpu()? - cpu).as_micros() as f64 / members as f64 })
}
