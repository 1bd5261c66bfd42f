//! Shutdown: ends the sessions, and hands members that may resume to other nodes or to the next process.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::AppState;
use crate::{
    clock::unix_now,
    session::{DetachedMember, SavedMember},
    storage::snapshot_file,
};

/// How long a stopping node waits to learn which memberships have moved to it.
const STOP_ACCEPTING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a stopping node waits until its memberships have moved to other nodes.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

impl AppState {
    /// Tells every session that the server stops, and waits until all have ended.
    pub async fn close(&self) {
        let _ = timeout(STOP_ACCEPTING_TIMEOUT, self.rooms.backend().stop_accepting()).await;
        self.rooms.begin_shutdown();
        // A client that reconnects within this time must find its membership.
        let reconnect_within = match self.config.rooms.resume_window {
            Duration::ZERO => self.config.process.shutdown_grace,
            window => self.config.process.shutdown_grace.min(window / 2),
        };
        self.closing.send_replace(Some(reconnect_within));
        self.rooms.wake_members();
        self.sessions.close();
        self.sessions.wait().await;
        self.detached.close();
        self.detached.wait().await;
    }

    /// Moves detached members to other nodes, and deregisters this node. Call it last.
    pub async fn hand_over_members(&self) {
        let backend = self.rooms.backend();
        if backend.node().is_none() {
            return;
        }
        let (mut other_nodes, deadline) = (None, Instant::now() + HAND_OVER_TIMEOUT);
        loop {
            // Includes memberships that clients resumed elsewhere meanwhile, or that arrived last.
            if timeout_at(deadline, backend.wait_for_migrations()).await.is_err() {
                tracing::warn!("not all members were handed over in time");
                break;
            }
            let mut members = self.snapshot.take();
            if members.is_empty() {
                break;
            }
            snapshot_file::retain_fitting(&mut members, DetachedMember::bytes);
            tracing::info!(members = members.len(), "handing members over to other servers");
            if other_nodes.is_none() {
                other_nodes = Some(backend.other_nodes().await);
            }
            for (number, member) in members.into_iter().enumerate() {
                let nodes = other_nodes.iter().flatten().nth(backend.shard_of(member.room()));
                // Without another node the membership is dropped, which is to leave.
                if let Some(node) = nodes.and_then(|nodes| nodes.get(number % nodes.len().max(1))) {
                    member.migrate_to(node.clone());
                }
            }
        }
        backend.deregister(&self.rooms).await;
    }

    /// Saves detached members to `STATE_FILE` for the next process. Call it once, when every session has ended or is no
    /// longer waited for. Blocks while the disk works. Members that do not fit leave, as many as do until `deadline`.
    pub fn save_snapshot(&self, deadline: Instant) {
        let (mut members, now) = (self.snapshot.take(), unix_now());
        // Members that may not resume leave first: what the others were sent is saved with them.
        members.retain(DetachedMember::can_resume);
        let total = members.len();
        let mut excess = snapshot_file::retain_fitting(&mut members, DetachedMember::bytes);
        while Instant::now() < deadline && excess.pop().is_some() {}
        std::mem::forget(excess);
        let records: Vec<_> = members.iter().filter_map(|member| member.to_saved(now)).collect();
        if records.is_empty() {
            return;
        }
        let path = self.config.state_file();
        match snapshot_file::save(&path, records, SavedMember::bytes) {
            Ok(saved) => {
                // Not dropped, which would be to leave.
                std::mem::forget(members);
                tracing::info!(members = saved, all = total, file = %path.display(), "detached members saved for the next process");
            }
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "detached members cannot be saved or restored")
            }
        }
    }
}
