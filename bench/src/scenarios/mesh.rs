//! The signaling of a group call: every member sets up a connection to every other member.

use std::{io, time::Instant};

use super::{OFFER, TIMEOUT};
use crate::{
    frames::{self, TEXT},
    load::{Identity, Load, Scenario},
};

/// ICE candidates from each side of a link.
const CANDIDATES: usize = 20;

/// One room; all offers are sent at once, each is answered, and both sides send their candidates.
pub struct Mesh {
    size: usize,
    joined: usize,
    /// For each member and each peer: whether its offer was answered (1).
    answered: Vec<Vec<usize>>,
    /// How many messages are still to arrive.
    remaining: usize,
    /// The frames to each member, by client id.
    offers: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
}

impl Mesh {
    /// A room of `size` members, all joined. `number` distinguishes it from earlier rooms.
    pub fn join(load: &mut Load, size: usize, number: usize) -> io::Result<Self> {
        let frames_to = |kind: &str, to: usize| {
            let mut frames = Vec::new();
            let sdp = "v=0 ".repeat(OFFER / 4 - 40);
            let first = format!(
                r#"{{"to":"m{to}","type":"{kind}","{kind}":{{"type":"{kind}","sdp":"{sdp}"}}}}"#
            );
            frames::push_masked(&mut frames, TEXT, first.as_bytes());
            for port in 0..CANDIDATES {
                let candidate = format!(
                    r#"{{"to":"m{to}","type":"ice_candidate","candidate":{{"candidate":"candidate:842163049 1 udp 1677729535 192.0.2.1 {} typ srflx raddr 10.0.0.17 rport 46154 generation 0 ufrag EEtu network-cost 999","sdpMid":"0","sdpMLineIndex":0}}}}"#,
                    40_000 + port
                );
                frames::push_masked(&mut frames, TEXT, candidate.as_bytes());
            }
            frames
        };
        let mut mesh = Self {
            size,
            joined: 0,
            answered: vec![vec![0; size]; size],
            remaining: size * (size - 1) * (1 + CANDIDATES),
            offers: (0..size).map(|to| frames_to("offer", to)).collect(),
            answers: (0..size).map(|to| frames_to("answer", to)).collect(),
        };
        for member in 0..size {
            let id = format!("m{member}");
            let index = load.connect(Identity { room: format!("mesh-{number}"), id })?;
            if index != member {
                return Err(io::Error::other("the members of a mesh are the only clients"));
            }
            load.until(&mut mesh, TIMEOUT, |mesh| mesh.joined > member)?;
        }
        Ok(mesh)
    }

    /// Sets up all links; returns the duration in microseconds.
    pub fn set_up(&mut self, load: &mut Load) -> io::Result<f64> {
        let start = Instant::now();
        for caller in 0..self.size {
            for callee in caller + 1..self.size {
                let frames = self.offers[callee].clone();
                load.send(caller, &frames)?;
            }
        }
        load.until(self, TIMEOUT, |mesh| mesh.remaining == 0)?;
        Ok(start.elapsed().as_micros() as f64)
    }

    /// Disconnects all members.
    pub fn leave(self, load: &mut Load) {
        (0..self.size).rev().for_each(|index| load.hang_up(index));
    }
}

impl Scenario for Mesh {
    fn joined(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.joined += 1;
        Ok(())
    }

    fn received(&mut self, load: &mut Load, index: usize, message: &[u8]) -> io::Result<()> {
        let is = |kind: &[u8]| memchr::memmem::find(message, kind).is_some();
        if is(br#""type":"user_"#) {
            return Ok(());
        }
        self.remaining -= 1;
        if !is(br#""type":"offer""#) {
            return Ok(());
        }
        // A caller has a lower number than its callees, and offers once to each. The order of the offers does not matter:
        // each is answered to the first caller without an answer.
        let caller = (0..index).find(|&caller| self.answered[index][caller] == 0);
        let caller = caller.ok_or_else(|| io::Error::other("more offers than callers"))?;
        self.answered[index][caller] = 1;
        let frames = self.answers[caller].clone();
        load.send(index, &frames)
    }
}
