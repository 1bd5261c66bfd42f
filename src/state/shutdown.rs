//! Shutdown: ends the sessions, and hands members that may resume to other nodes or to the next process.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::AppState;
use crate::{clock::unix_now, session::DetachedMember, state_file};

/// How long a server that stops waits until it knows which seats have come to it, and until all have come to others.
const STOP_ACCEPTING_TIMEOUT: Duration = Duration::from_secs(1);
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

impl AppState {
    /// Tells every open socket that the server stops, and waits until all are gone.
    pub async fn close(&self) {
        if let Some(cluster) = &self.cluster {
            let _ = timeout(STOP_ACCEPTING_TIMEOUT, cluster.stop_accepting()).await;
        }
        self.rooms.begin_shutdown();
        // Whoever comes back in time is to find its seat.
        let within = match self.config.resume_window {
            Duration::ZERO => self.config.shutdown_grace,
            window => self.config.shutdown_grace.min(window / 2),
        };
        self.closing.send_replace(Some(within));
        self.sessions.close();
        self.sessions.wait().await;
        self.detached.close();
        self.detached.wait().await;
    }

    /// Gives the seats of those who may come back to other servers, and says to them that this one is gone. Call
    /// it last.
    pub async fn hand_over_members(&self) {
        let Some(cluster) = &self.cluster else { return };
        let (others, until) = (cluster.other_nodes().await, Instant::now() + HAND_OVER_TIMEOUT);
        loop {
            // First also those that clients have fetched meanwhile, or that have come here last.
            if timeout_at(until, cluster.wait_for_migrations()).await.is_err() {
                tracing::warn!("not all seats have come to another server in time");
                break;
            }
            let mut survivors = self.snapshot.take();
            if survivors.is_empty() {
                break;
            }
            state_file::keep_fitting(&mut survivors, DetachedMember::bytes);
            tracing::info!(members = survivors.len(), "their seats go to other servers");
            for (number, parked) in survivors.into_iter().enumerate() {
                let nodes = others.get(cluster.engine_of(parked.room()));
                // Without another one its seat is dropped, which is to leave.
                if let Some(node) = nodes.and_then(|nodes| nodes.get(number % nodes.len().max(1))) {
                    parked.migrate_to(node.clone());
                }
            }
        }
        cluster.deregister().await;
    }

    /// Writes down who may go on where it was, for the process after this one. Call it once, when every
    /// session has ended, or is not waited for any more. Blocks while the disk works.
    pub fn save_snapshot(&self) {
        let (mut survivors, now) = (self.snapshot.take(), unix_now());
        // First those leave who may not come back: of the others it is written down what was told before.
        survivors.retain(DetachedMember::can_resume);
        let all = survivors.len();
        state_file::keep_fitting(&mut survivors, DetachedMember::bytes);
        let records: Vec<_> = survivors.iter().filter_map(|parked| parked.to_saved(now)).collect();
        if records.is_empty() {
            return;
        }
        let path = self.config.state_file();
        match state_file::save(&path, records) {
            Ok(members) => {
                // To let go of their seats is not to leave.
                self.webhooks.falls_silent();
                tracing::info!(members, all, file = %path.display(), "kept for the next process")
            }
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "nobody may go on where it was")
            }
        }
    }
}
