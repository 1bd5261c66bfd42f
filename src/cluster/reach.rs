//! On how many nodes a moderation rule or an announcement has taken effect.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use redis::RedisResult;
use tokio::{sync::watch, time::timeout};

use super::{
    ClusterGateway,
    messages::{ClusterCommand, EffectReceipt},
};
use crate::{migration::random_key, rooms::Reach};

/// What nodes confirm, by number: how many have.
pub(super) type PendingReach = HashMap<u64, watch::Sender<usize>>;

impl ClusterGateway {
    /// Has `publish` write entries with a number, which returns how many other nodes get one, and waits until those have
    /// applied theirs, but not for long.
    pub(super) async fn publish_and_count(
        &self,
        publish: impl AsyncFnOnce(u64) -> RedisResult<usize>,
    ) -> Reach {
        let (number, (confirmed, mut confirmations)) = (random_key(), watch::channel(0));
        self.pending_reach().insert(number, confirmed);
        let within = self.timings.confirm_timeout();
        let reach = match timeout(within, publish(number)).await {
            Ok(Ok(others)) => {
                let all = confirmations.wait_for(|confirmed| *confirmed >= others);
                let _ = timeout(within, all).await;
                Reach { applied_on: 1 + *confirmations.borrow(), nodes: 1 + others }
            }
            Ok(Err(_)) | Err(_) => Reach { applied_on: 1, nodes: self.last_nodes().max(1) },
        };
        self.pending_reach().remove(&number);
        reach
    }

    /// An entry has been applied here: tells its node, where that wants to know.
    pub(super) fn confirm_effect(&self, receipt: Option<EffectReceipt>) {
        if let Some(receipt) = receipt.filter(|receipt| receipt.node != self.node)
            && let Some(engine) = self.engines.first()
        {
            let _ = engine.commands.send(ClusterCommand::ConfirmEffect(receipt));
        }
    }

    /// Another node has applied the entry with this number.
    pub(super) fn note_effect(&self, number: u64) {
        if let Some(confirmed) = self.pending_reach().get(&number) {
            confirmed.send_modify(|confirmed| *confirmed += 1);
        }
    }

    fn pending_reach(&self) -> MutexGuard<'_, PendingReach> {
        self.pending_reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
