//! The memberships of one room that leave this node, until the frames that they are owed have followed them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{Epoch, Migration, MigrationGuard, MigrationState};
use crate::delivery::{ClientQueue, ClientQueueReader};

/// A membership that is to be on another node, or is, and whose frames are still here.
pub struct OutgoingMigration {
    /// Which one, and where it goes.
    pub migration: Migration,
    /// What the other node wants back with it.
    pub context: ByteString,
    /// Holds its frames meanwhile.
    pub queue: ClientQueue,
    /// The reading end of `queue`.
    pub reader: ClientQueueReader,
    /// When it began.
    pub since: Instant,
    /// Counts it as on its way.
    pub guard: MigrationGuard,
    completed: Option<CompletedMove>,
}

/// The record of the membership is on the other node.
struct CompletedMove {
    epoch: Epoch,
    /// Nodes that may have sent it a frame before they read of the move.
    unconfirmed: BTreeSet<Arc<str>>,
    /// The other members at that moment: client ids and usernames.
    others: Vec<(String, String)>,
}

/// What goes to the other node last: every frame that was sent to the membership here.
#[derive(Debug)]
pub struct HandOver {
    /// Which membership.
    pub migration: Migration,
    /// What came with the claim for it.
    pub context: ByteString,
    /// The frames and what belongs to them.
    pub state: Box<MigrationState>,
    /// The membership is on its way until this is dropped.
    pub guard: MigrationGuard,
}

impl OutgoingMigration {
    /// A move that begins at `since`.
    pub fn new(
        migration: Migration,
        context: ByteString,
        queue: ClientQueue,
        reader: ClientQueueReader,
        since: Instant,
        guard: MigrationGuard,
    ) -> Self {
        Self { migration, context, queue, reader, since, guard, completed: None }
    }

    /// Whether a frame that was sent in `epoch` belongs here, and not to the new node.
    pub fn receives_epoch(&self, epoch: Epoch) -> bool {
        self.completed.as_ref().is_some_and(|completed| epoch < completed.epoch)
    }

    fn into_hand_over(self) -> Option<HandOver> {
        let Self { migration, context, queue, reader, guard, completed, .. } = self;
        let is_detached_reported = queue.is_detached_reported();
        let ((replay, features), completed) = (reader.take_replay()?, completed?);
        let known_members = completed.others;
        let state = MigrationState { replay, features, is_detached_reported, known_members };
        Some(HandOver { migration, context, state: Box::new(state), guard })
    }
}

/// The memberships of one room that leave this node.
#[derive(Default)]
pub struct OutgoingMigrations(Vec<OutgoingMigration>);

impl OutgoingMigrations {
    /// Whether none leaves.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the membership with this key has been released.
    pub fn contains(&self, key: u64) -> bool {
        self.0.iter().any(|outgoing| outgoing.migration.from.key == key)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &OutgoingMigration> {
        self.0.iter()
    }

    /// Sends a membership that has been released already to where `migration` says; whether it has been.
    pub fn retarget(&mut self, migration: &Migration, context: &ByteString, now: Instant) -> bool {
        let outgoing = self.0.iter_mut().find(|outgoing| outgoing.migration.from == migration.from);
        let Some(outgoing) = outgoing else { return false };
        (outgoing.migration, outgoing.context, outgoing.since) =
            (migration.clone(), context.clone(), now);
        true
    }

    /// Adds one.
    pub fn push(&mut self, outgoing: OutgoingMigration) {
        self.0.push(outgoing);
    }

    /// The record has moved in `epoch`; `nodes` have to confirm that, and `others` were there then. Whether the membership
    /// had been released here.
    pub fn complete(
        &mut self,
        migration: Migration,
        epoch: Epoch,
        nodes: Vec<Arc<str>>,
        others: Vec<(String, String)>,
    ) -> bool {
        let outgoing = self.0.iter_mut().find(|outgoing| outgoing.migration.from == migration.from);
        let Some(outgoing) = outgoing else { return false };
        let unconfirmed = nodes.into_iter().collect();
        outgoing.completed = Some(CompletedMove { epoch, unconfirmed, others });
        outgoing.migration = migration;
        true
    }

    /// Takes back one whose record has not moved.
    pub fn cancel(&mut self, migration: &Migration) -> Option<OutgoingMigration> {
        let is_it = |outgoing: &mut OutgoingMigration| {
            outgoing.migration == *migration && outgoing.completed.is_none()
        };
        self.0.extract_if(.., is_it).next()
    }

    /// Drops one whose membership has ended here before its record has moved: its frames no longer add up.
    pub fn abandon(&mut self, key: u64) {
        let is_it = |outgoing: &OutgoingMigration| {
            outgoing.migration.from.key == key && outgoing.completed.is_none()
        };
        self.0.retain(|outgoing| !is_it(outgoing));
    }

    /// What `node` sends to the member from now on goes to its new node.
    pub fn confirm_barrier(&mut self, migration: &Migration, node: &str) {
        let outgoing = self.0.iter_mut().find(|outgoing| outgoing.migration == *migration);
        if let Some(completed) = outgoing.and_then(|outgoing| outgoing.completed.as_mut()) {
            completed.unconfirmed.remove(node);
        }
    }

    /// Takes those whose frames are complete.
    pub fn take_ready(&mut self) -> Vec<HandOver> {
        let is_ready = |outgoing: &mut OutgoingMigration| {
            outgoing.completed.as_ref().is_some_and(|completed| completed.unconfirmed.is_empty())
        };
        let ready = self.0.extract_if(.., is_ready);
        ready.filter_map(OutgoingMigration::into_hand_over).collect()
    }

    /// Takes those that were released `timeout` ago or longer and that no node took. Of those that have moved by then, no
    /// further confirmation is waited for: a node that has not confirmed is gone, and sends nothing more.
    pub fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<Migration> {
        let is_late =
            |outgoing: &mut OutgoingMigration| now.duration_since(outgoing.since) >= timeout;
        let late: Vec<_> = self.0.extract_if(.., is_late).collect();
        let mut lost = Vec::new();
        for mut outgoing in late {
            match &mut outgoing.completed {
                Some(completed) => {
                    completed.unconfirmed.clear();
                    self.0.push(outgoing);
                }
                None => lost.push(outgoing.migration),
            }
        }
        lost
    }
}
