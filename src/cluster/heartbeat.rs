//! Renews the lease of this node, and removes nodes whose lease is over.

use std::convert::Infallible;

use redis::{RedisError, aio::MultiplexedConnection};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    link::{EngineLink, lease_lost_error},
    scripts::call,
};

impl EngineLink {
    /// Renews the lease until an error.
    pub(super) async fn run_heartbeat(
        &self,
        mut writer: MultiplexedConnection,
    ) -> Result<Infallible, RedisError> {
        let timings = self.gateway.timings;
        let mut ticks = interval(timings.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.beat(&mut writer).await?;
            let now = Instant::now();
            self.rooms.expire_unconfirmed(now, timings);
            self.gateway.expire_incoming(now);
        }
    }

    /// Renews the lease once, notes how many nodes there are, and removes a node whose lease is over.
    pub(super) async fn beat(&self, writer: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let scripts = &self.gateway.scripts;
        let mut beat = call(&self.keys, &scripts.heartbeat);
        beat.arg(&*self.gateway.node).arg(self.position().clone().unwrap_or_default());
        let mut pipe = redis::pipe();
        pipe.add_command(beat).zcard(self.keys.key("nodes"));
        let (lost, nodes): (String, usize) = pipe.query_async(writer).await?;
        self.gateway.note_nodes(self.number, nodes);
        match lost.as_str() {
            "" => {}
            "?" => return Err(lease_lost_error()),
            lost => {
                tracing::warn!(node = lost, "node lost: its lease is over; its members leave");
                let (rooms, webhooks) = (&self.rooms, &self.webhooks);
                scripts.reap(&self.keys, writer.clone(), lost, false, rooms, webhooks).await?;
            }
        }
        Ok(())
    }
}
