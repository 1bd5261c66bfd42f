//! What scripts say is to be told outside, by whoever has called them: so each event is told once, by one node.

use std::sync::Arc;

use crate::{
    rooms::RoomRegistry,
    webhooks::{Webhooks, What},
};

/// Room, number in that room, kind, client id, username, why.
pub type WebhookRecord = (String, u64, String, String, String, String);

/// Tells it.
pub fn emit(webhooks: &Webhooks, rooms: &RoomRegistry, told: &[WebhookRecord]) {
    for (room, number, kind, client_id, username, why) in told {
        rooms.advance_webhook_seq(room, *number);
        let (client_id, username) = (client_id.as_str().into(), username.as_str().into());
        let what = match kind.as_str() {
            "opened" => What::RoomOpened {},
            "closed" => What::RoomClosed {},
            "joined" => What::MemberJoined { client_id, username },
            "left" => What::MemberLeft { client_id, username, reason: why.clone() },
            // Another version of this server may write such.
            _ => continue,
        };
        webhooks.tell(&Arc::from(room.as_str()), *number, what);
    }
}
