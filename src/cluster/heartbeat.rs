//! Renews the lease of this node, and removes nodes whose lease is over.

use std::{convert::Infallible, sync::atomic::Ordering};

use redis::RedisError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{connection::RedisConnection, link::EngineLink, scripts::call};
use crate::rooms::ClusterCounts;

impl EngineLink {
    /// Renews the lease until an error.
    pub(super) async fn run_heartbeat(
        &self,
        mut writer: RedisConnection,
    ) -> Result<Infallible, RedisError> {
        let timings = self.gateway.timings;
        let mut ticks = interval(timings.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Sooner where much was read: it stays in Redis, and counts as unread where it was sent, until then.
            let is_early = tokio::select! {
                _ = ticks.tick() => false,
                () = self.has_read_much.notified() => true,
            };
            if is_early {
                self.gateway.confirm_signals(self.number);
            }
            self.beat(&mut writer).await?;
            let now = Instant::now();
            self.gateway.expire_unconfirmed(&self.rooms, now);
            self.gateway.expire_incoming(now);
        }
    }

    /// Renews the lease once, notes what there is in the cluster, and removes a node whose lease is over.
    pub(super) async fn beat(&self, writer: &mut RedisConnection) -> Result<(), RedisError> {
        let scripts = &self.gateway.scripts;
        self.read_bytes.store(0, Ordering::Relaxed);
        let mut beat = call(&self.keys, &scripts.heartbeat);
        beat.arg(&*self.gateway.node).arg(&self.identity.process).arg(self.identity.facts_json());
        beat.arg(self.position().clone().unwrap_or_default()).arg(&self.identity.fingerprint);
        beat.arg(self.gateway.highest_epoch.load(Ordering::Relaxed));
        let mut pipe = redis::pipe();
        pipe.add_command(beat).zcard(self.keys.key("nodes"));
        pipe.hlen(self.keys.key("rooms")).get(self.keys.key("members"));
        let ((fault, lost), nodes, rooms, members): (
            (String, String),
            usize,
            usize,
            Option<usize>,
        ) = pipe.query_async(writer).await?;
        if let Some(error) = self.heartbeat_fault(&fault) {
            return Err(error);
        }
        let members = members.unwrap_or(0);
        self.gateway.note_counts(self.number, ClusterCounts { nodes, rooms, members });
        if !lost.is_empty() {
            tracing::warn!(node = lost, "node lost: its lease is over; its members leave");
            let (rooms, webhooks) = (&self.rooms, &self.webhooks);
            scripts.reap(&self.keys, writer.clone(), &lost, false, rooms, webhooks).await?;
        }
        Ok(())
    }
}
