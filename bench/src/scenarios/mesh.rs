//! What a group call asks of signaling: everybody sets up a connection to everybody.

use std::{io, time::Instant};

use super::{OFFER, PATIENCE};
use crate::{
    frames::{self, TEXT},
    load::{Identity, Load, Scenario},
};

/// ICE candidates from each side of a link.
const CANDIDATES: usize = 20;

/// One room; all offers go out at once, each is answered, and both sides send their candidates.
pub struct Mesh {
    size: usize,
    seated: usize,
    /// For each member and each peer: what has been heard from there.
    heard: Vec<Vec<usize>>,
    left: usize,
    /// The frames to each member, by client id.
    offers: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
}

impl Mesh {
    /// A room of `size`, all seated. `number` tells it from the rooms before.
    pub fn seat(load: &mut Load, size: usize, number: usize) -> io::Result<Self> {
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
            seated: 0,
            heard: vec![vec![0; size]; size],
            left: size * (size - 1) * (1 + CANDIDATES),
            offers: (0..size).map(|to| frames_to("offer", to)).collect(),
            answers: (0..size).map(|to| frames_to("answer", to)).collect(),
        };
        for member in 0..size {
            let id = format!("m{member}");
            let who = load.connect(Identity { room: format!("mesh-{number}"), id })?;
            if who != member {
                return Err(io::Error::other("the members of a mesh are the only clients"));
            }
            load.until(&mut mesh, PATIENCE, |mesh| mesh.seated > member)?;
        }
        Ok(mesh)
    }

    /// Sets all links up; returns how long that took, in microseconds.
    pub fn set_up(&mut self, load: &mut Load) -> io::Result<f64> {
        let began = Instant::now();
        for caller in 0..self.size {
            for callee in caller + 1..self.size {
                let frames = self.offers[callee].clone();
                load.send(caller, &frames)?;
            }
        }
        load.until(self, PATIENCE, |mesh| mesh.left == 0)?;
        Ok(began.elapsed().as_micros() as f64)
    }

    /// Everybody hangs up.
    pub fn leave(self, load: &mut Load) {
        (0..self.size).rev().for_each(|who| load.hang_up(who));
    }
}

impl Scenario for Mesh {
    fn seated(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.seated += 1;
        Ok(())
    }

    fn heard(&mut self, load: &mut Load, who: usize, message: &[u8]) -> io::Result<()> {
        let is = |kind: &[u8]| memchr::memmem::find(message, kind).is_some();
        if is(br#""type":"user_"#) {
            return Ok(());
        }
        self.left -= 1;
        if !is(br#""type":"offer""#) {
            return Ok(());
        }
        // Whoever offers has a lower number than all whom it offers to, and offers once: the n-th
        // offer that is heard is answered to the n-th caller that has not been answered yet.
        let caller = (0..who).find(|&caller| self.heard[who][caller] == 0);
        let caller = caller.ok_or_else(|| io::Error::other("more offers than callers"))?;
        self.heard[who][caller] = 1;
        let frames = self.answers[caller].clone();
        load.send(who, &frames)
    }
}
