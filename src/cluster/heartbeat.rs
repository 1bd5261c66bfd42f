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
        let (scripts, timings) = (&self.gateway.scripts, self.gateway.timings);
        let mut ticks = interval(timings.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut beat = call(&self.keys, &scripts.heartbeat);
            beat.arg(&*self.gateway.node).arg(self.position().clone().unwrap_or_default());
            let lost: String = beat.query_async(&mut writer).await?;
            match lost.as_str() {
                "" => {}
                "?" => return Err(lease_lost_error()),
                lost => {
                    tracing::warn!(node = lost, "node lost: its lease is over; its members leave");
                    let (rooms, webhooks) = (&self.rooms, &self.webhooks);
                    scripts.reap(&self.keys, writer.clone(), lost, false, rooms, webhooks).await?;
                }
            }
            let now = Instant::now();
            self.rooms.expire_unconfirmed(now, timings);
            self.gateway.expire_incoming(now);
        }
    }
}
