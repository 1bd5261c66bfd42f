//! Detached members: those whose connection was lost, who came from another node, or were saved by the process before.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError},
};

use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::AppState;
use crate::{
    clock::unix_now,
    cluster::MigratedMembers,
    limits::{NoSlot, RefusalKind, ResumeSlot, log_refusal},
    metrics::LimitKind,
    net::workers::Workers,
    session::{AuthError, DetachedMember},
    storage::snapshot_file,
};

impl AppState {
    /// Accepts memberships that migrate from other nodes, for as long as it is polled.
    async fn accept_migrations(self, mut migrated: MigratedMembers, workers: Workers) {
        while let Some((member, _guard)) = migrated.recv().await {
            let detached = DetachedMember::from_migration(
                member,
                self.config.rooms.resume_window,
                |token, queue| self.authorize_detached(token, queue),
            );
            match detached {
                Some(member) if self.is_closing() => self.snapshot.push(member),
                Some(member) => {
                    let worker = workers.of(member.room());
                    self.spawn_resume_wait(member, None, worker);
                }
                None => {}
            }
        }
    }

    /// Keeps a member whose connection from `address` was lost until it resumes or its time is over, unless too many
    /// members of its account or from this address are detached already. `worker` is the one of its room.
    pub fn keep_detached(&self, member: DetachedMember, address: IpAddr, worker: &Handle) {
        let displaced = Arc::new(Notify::new());
        match self.resume_slots.acquire(address, member.account(), displaced.clone()) {
            Ok((slot, displaces)) => {
                if let Some(other) = displaces {
                    self.record_not_kept(address);
                    other.notify_one();
                }
                self.spawn_resume_wait(member, Some((slot, displaced)), worker);
            }
            Err(NoSlot) => self.record_not_kept(address),
        }
    }

    fn record_not_kept(&self, address: IpAddr) {
        self.metrics.record_limit(LimitKind::DetachedMembers);
        log_refusal(RefusalKind::DetachedMember, address, Instant::now());
    }

    fn spawn_resume_wait(
        &self,
        member: DetachedMember,
        slot: Option<(ResumeSlot<Arc<Notify>>, Arc<Notify>)>,
        worker: &Handle,
    ) {
        let app = self.clone();
        let wait = async move {
            let resumed = member.wait_for_resume(app.closing(), &app.snapshot, &app.metrics);
            match slot {
                None => resumed.await,
                // Where it is displaced it is dropped, which is leaving.
                Some((_slot, displaced)) => tokio::select! {
                    () = resumed => {}
                    () = displaced.notified() => {}
                },
            }
        };
        self.detached.spawn_on(wait, worker);
    }

    /// Restores the members that the process before this one saved or, in a cluster, starts to accept memberships from
    /// other nodes. Call it once, before any client connects; `workers` are those of the server.
    pub fn restore(&self, workers: &Workers) {
        let migrated = self.migrated.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(migrated) = migrated {
            tokio::spawn(self.clone().accept_migrations(migrated, workers.clone()));
            return;
        }
        let path = self.config.state_file();
        let saved = snapshot_file::take(&path).unwrap_or_else(|error| {
            tracing::error!(%error, file = %path.display(), "detached members cannot be saved or restored");
            Vec::new()
        });
        let (now, window) = (unix_now(), self.config.rooms.resume_window);
        let restored = saved.into_iter().filter_map(|member| {
            DetachedMember::restore(&self.rooms, member, now, window, |token, queue| {
                let is_allowed = self.check_room_open(&token.room).is_none();
                if is_allowed {
                    self.authorize_detached(token, queue)
                } else {
                    Err(AuthError::BadToken)
                }
            })
        });
        // All are restored first, so that those who stay are told of those who do not.
        let restored: Vec<_> = restored.collect();
        if !restored.is_empty() {
            tracing::info!(
                members = restored.len(),
                "detached members of the previous process restored"
            );
        }
        restored.iter().for_each(DetachedMember::announce_detached);
        for member in restored {
            let worker = workers.of(member.room());
            self.spawn_resume_wait(member, None, worker);
        }
    }
}
