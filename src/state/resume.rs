//! Detached members: those whose connection was lost, who came from another node, or were saved by the process before.

use std::{net::IpAddr, sync::PoisonError};

use tokio::runtime::Handle;

use super::AppState;
use crate::{
    clock::unix_now,
    limits::Permit,
    metrics::Limit,
    net::workers::Workers,
    rooms::far::MigratedMembers,
    session::{AuthError, DetachedMember},
    state_file,
};

impl AppState {
    /// Takes in the seats that come from other servers, for as long as it is polled.
    async fn accept_migrations(self, mut arrivals: MigratedMembers, workers: Workers) {
        while let Some((arrival, _on_its_way)) = arrivals.recv().await {
            let parked = DetachedMember::from_migration(
                arrival,
                self.config.resume_window,
                |ticket, outbox| self.authorize_resume(ticket, outbox),
            );
            match parked {
                Some(parked) if self.is_closing() => self.snapshot.push(parked),
                Some(parked) => {
                    let worker = workers.of(parked.room());
                    self.spawn_resume_wait(parked, None, worker);
                }
                None => {}
            }
        }
    }

    /// Keeps the seat of a member whose connection, from `address`, is gone, for as long as it may come back;
    /// or not, where that many from this address are away already. `worker` is its room's.
    pub fn keep_detached(&self, parked: DetachedMember, address: IpAddr, worker: &Handle) {
        let Some(place) = self.detached_permits.acquire(address) else {
            self.metrics.limited(Limit::Seats);
            return tracing::warn!(%address, "a seat not kept: too many from this address are away");
        };
        self.spawn_resume_wait(parked, Some(place), worker);
    }

    fn spawn_resume_wait(&self, parked: DetachedMember, place: Option<Permit>, worker: &Handle) {
        let app = self.clone();
        let lingering = async move {
            parked.wait_for_resume(app.closing(), &app.snapshot, &app.metrics).await;
            drop(place);
        };
        self.detached.spawn_on(lingering, worker);
    }

    /// Lets those sit down again who were here when the process before this one stopped, or, in a cluster, whose
    /// seats come from other servers. Call it once, before anybody else comes in; `workers` are those of the server.
    pub fn restore(&self, workers: &Workers) {
        let arrivals = self.migrated.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(arrivals) = arrivals {
            tokio::spawn(self.clone().accept_migrations(arrivals, workers.clone()));
            return;
        }
        let path = self.config.state_file();
        let records = state_file::take(&path).unwrap_or_else(|error| {
            tracing::error!(%error, file = %path.display(), "nobody may go on where it was");
            Vec::new()
        });
        let (now, window) = (unix_now(), self.config.resume_window);
        let restored = records.into_iter().filter_map(|record| {
            DetachedMember::restore(&self.rooms, record, now, window, |ticket, outbox| {
                let is_allowed = self.check_room_open(&ticket.room).is_none();
                if is_allowed {
                    self.authorize_resume(ticket, outbox)
                } else {
                    Err(AuthError::BadToken)
                }
            })
        });
        // First all of them, so that those who stay hear of those who do not.
        let restored: Vec<_> = restored.collect();
        if !restored.is_empty() {
            tracing::info!(members = restored.len(), "seats of the process before are kept");
        }
        restored.iter().for_each(DetachedMember::announce_detached);
        for parked in restored {
            let worker = workers.of(parked.room());
            self.spawn_resume_wait(parked, None, worker);
        }
    }
}
