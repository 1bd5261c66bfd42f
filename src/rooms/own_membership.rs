//! The end of a dead membership for a new one of the same user, where a room is full.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    RoomRegistry,
    registry::RoomHandle,
    room::{Location, Room, RoomMember},
};
use crate::delivery::ClientQueue;

/// How long the client of a membership has to answer a Ping before a new connection of its own user takes its place.
pub const PONG_WAIT: Duration = Duration::from_secs(3);

/// A membership on this node that may be dead.
pub(super) struct SuspectedMembership {
    client_id: Arc<str>,
    generation: u64,
    queue: ClientQueue,
}

impl RoomRegistry {
    /// Ends the membership that `username` has had for longest in `room` on this node, where no client is behind it: it is
    /// detached, or its client answers no Ping within [`PONG_WAIT`]. It ends as if its user had replaced it: its connection is
    /// disconnected, and the others see it leave. Whether there was one, and it has ended.
    pub async fn evict_oldest_if_dead(&self, room: &str, username: &str) -> bool {
        let Some(room) = self.find(room) else { return false };
        let oldest = room.lock().oldest_of(username);
        match oldest {
            Some(oldest) => self.evict_suspected(&room, oldest).await,
            None => false,
        }
    }

    /// The same for the membership with this key; also true where there is none any more.
    pub async fn evict_if_dead(&self, room: &str, client_id: &str, key: u64) -> bool {
        let Some(room) = self.find(room) else { return true };
        let suspected = room.lock().suspect(client_id, key);
        match suspected {
            Some(suspected) => self.evict_suspected(&room, suspected).await,
            None => true,
        }
    }

    async fn evict_suspected(
        &self,
        room: &Arc<RoomHandle>,
        suspected: SuspectedMembership,
    ) -> bool {
        let SuspectedMembership { client_id, generation, queue } = suspected;
        if !queue.is_detached()
            && let Ok(Ok(())) = timeout(PONG_WAIT, queue.request_pong()).await
        {
            return false;
        }
        self.evict(room, &client_id, generation);
        true
    }
}

impl Room {
    fn oldest_of(&self, username: &str) -> Option<SuspectedMembership> {
        let own = self.members.iter().filter(|member| *member.peer.username == *username);
        let suspects = own.filter_map(|member| Some((member.join_order, self.as_suspect(member)?)));
        suspects.min_by_key(|(join_order, _)| *join_order).map(|(_, suspect)| suspect)
    }

    fn suspect(&self, client_id: &str, key: u64) -> Option<SuspectedMembership> {
        self.find(client_id)
            .filter(|member| member.key == key)
            .and_then(|member| self.as_suspect(member))
    }

    /// A member on this node that stays here; not a guest, who is never the same user as another connection.
    fn as_suspect(&self, member: &RoomMember) -> Option<SuspectedMembership> {
        match &member.location {
            Location::Local { queue, generation }
                if !queue.is_guest() && !self.is_migrating(member) =>
            {
                let client_id = member.peer.client_id.clone();
                Some(SuspectedMembership {
                    client_id,
                    generation: *generation,
                    queue: queue.clone(),
                })
            }
            Location::Local { .. } | Location::Remote(_) => None,
        }
    }
}
