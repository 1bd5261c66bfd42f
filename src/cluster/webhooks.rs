//! Webhook events that a script has numbered. The node that has called the script sends them, so each is sent once.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    rooms::RoomRegistry,
    webhooks::{WebhookEvent, Webhooks},
};

/// One event, as scripts write it.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct WebhookRecord {
    /// The room.
    pub room: String,
    /// The number of the event there.
    pub sequence: u64,
    /// `opened`, `closed`, `joined`, `left`, or `report`, which only needs the number.
    pub event: String,
    /// The member.
    pub client_id: String,
    /// Its account.
    pub username: String,
    /// Why it has left.
    pub reason: String,
}

impl WebhookRecord {
    /// Reads a JSON array of them; nothing where it is none, for only the scripts of this version write it.
    pub fn parse_all(json: &[u8]) -> Vec<Self> {
        serde_json::from_slice(json).unwrap_or_default()
    }

    fn into_event(self) -> Option<WebhookEvent> {
        let Self { event, client_id, username, reason, .. } = self;
        let (client_id, username) = (Arc::from(client_id), Arc::from(username));
        match event.as_str() {
            "opened" => Some(WebhookEvent::RoomOpened {}),
            "closed" => Some(WebhookEvent::RoomClosed {}),
            "joined" => Some(WebhookEvent::MemberJoined { client_id, username }),
            "left" => Some(WebhookEvent::MemberLeft { client_id, username, reason }),
            _ => None,
        }
    }
}

/// Sends events to webhooks, and remembers their numbers in `rooms`.
pub fn emit(webhooks: &Webhooks, rooms: &RoomRegistry, records: Vec<WebhookRecord>) {
    for record in records {
        let (room, sequence): (Arc<str>, _) = (record.room.as_str().into(), record.sequence);
        rooms.advance_webhook_seq(&room, sequence);
        if let Some(event) = record.into_event() {
            webhooks.publish(&room, sequence, event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_the_scripts_write_them() {
        let json = br#"[{"room":"den","sequence":2,"event":"left","client_id":"a","username":"alice","reason":"gone"}]"#;

        let records = WebhookRecord::parse_all(json);

        let event = records.into_iter().next().and_then(WebhookRecord::into_event);
        let (client_id, username) = ("a".into(), "alice".into());
        assert_eq!(
            event,
            Some(WebhookEvent::MemberLeft { client_id, username, reason: "gone".into() })
        );
        assert_eq!(WebhookRecord::parse_all(b"[]"), []);
    }
}
