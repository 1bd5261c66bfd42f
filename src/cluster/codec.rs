//! Entries of an inbox: the names of their fields, and how they are read. `scripts/README.md` says what each is.

use std::{collections::HashMap, num::ParseIntError, str::FromStr, sync::Arc};

use super::{
    messages::{Claim, ClusterEvent, EffectReceipt, Eviction},
    receipts::{SignalNumber, SignalReceipts},
    webhooks::WebhookRecord,
};
use crate::migration::{ConnectionId, MemberRecord, Migration, ParseRecordError};

/// The names of the fields that Rust writes; the scripts write the same, and others.
pub mod field {
    pub const KIND: &str = "kind";
    pub const ROOM: &str = "room";
    pub const CLIENT: &str = "client";
    pub const CONNECTION: &str = "connection";
    pub const EPOCH: &str = "epoch";
    pub const STATE: &str = "state";
    pub const TO: &str = "to";
    pub const LIVE: &str = "live";
    pub const NODE: &str = "node";
    pub const CONTEXT: &str = "context";
    pub const ENGINE: &str = "engine";
    pub const NUMBER: &str = "number";
    pub const DELIVERED: &str = "delivered";
    pub const UNDELIVERABLE: &str = "undeliverable";
}

/// The fields of a `relay`. One is written for each message, whose names must not be longer than what it says: over a slow
/// network, a full pipeline of them has to be answered in time.
pub mod relay_field {
    pub const ROOM: &str = "r";
    pub const FROM: &str = "c";
    pub const CONNECTION: &str = "v";
    pub const TARGET: &str = "t";
    pub const EPOCH: &str = "e";
    pub const FRAME: &str = "f";
    pub const NUMBER: &str = "n";
    pub const BEFORE: &str = "b";
}

/// The `state` of a `peer_state`.
pub const DETACHED: &str = "detached";
pub const CONNECTED: &str = "connected";

/// The `state` of an `evicted`.
pub const GONE: &str = "gone";
pub const STAYS: &str = "stays";

/// The fields of an entry.
pub type InboxFields = HashMap<String, Vec<u8>>;

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another version of this server may write such.
    #[error("no field {0:?}")]
    NoField(&'static str),
    /// No version writes such.
    #[error("field {0:?} is not UTF-8")]
    NotUtf8(&'static str),
    /// As well.
    #[error(transparent)]
    BadRecord(#[from] ParseRecordError),
    /// As well; what serde says may repeat the content.
    #[error("a field is not the expected JSON")]
    BadJson(#[from] serde_json::Error),
    /// As well.
    #[error(transparent)]
    BadNumber(#[from] ParseIntError),
}

/// What an entry says.
pub enum InboxEntry {
    /// Something has happened in a room.
    Event(ClusterEvent),
    /// A token was logged out.
    Logout(String),
    /// A login was attempted.
    AuthEvent(String),
    /// A moderation rule.
    Rule(String, Option<EffectReceipt>),
    /// An administrator's message to a room.
    Announcement(String, Option<EffectReceipt>),
    /// Another node has applied the rule or the announcement with this number.
    Effective(u64),
    /// No membership comes to this node any more.
    Closing,
    /// Nothing that this version knows.
    Unknown,
}

/// Reads an entry.
///
/// # Errors
///
/// [`DecodeError`].
pub fn decode(entry: &mut InboxFields) -> Result<InboxEntry, DecodeError> {
    let kind = text(entry, field::KIND)?;
    let event = match kind.as_str() {
        "admitted" => ClusterEvent::Admitted {
            record: record(entry)?,
            members: members(entry)?,
            room: name(entry, field::ROOM)?,
        },
        "joined" => {
            ClusterEvent::Joined { record: record(entry)?, room: name(entry, field::ROOM)? }
        }
        "left" => {
            let MemberRecord { peer, connection, .. } = record(entry)?;
            let room = name(entry, field::ROOM)?;
            ClusterEvent::Left { client_id: peer.client_id, connection, room }
        }
        "relay" => ClusterEvent::Relayed {
            room: name(entry, relay_field::ROOM)?,
            from: name(entry, relay_field::FROM)?,
            connection: text(entry, relay_field::CONNECTION)?.parse()?,
            to: optional(entry, relay_field::TARGET)?.map(Arc::from),
            epoch: number(entry, relay_field::EPOCH)?,
            frame: text(entry, relay_field::FRAME)?.into(),
            number: SignalNumber {
                number: number(entry, relay_field::NUMBER)?,
                before: before(entry)?,
            },
        },
        "confirmed" => ClusterEvent::Confirmed {
            node: name(entry, field::NODE)?,
            engine: number(entry, field::ENGINE)?,
            receipts: SignalReceipts {
                delivered: number(entry, field::DELIVERED)?,
                undeliverable: number(entry, field::UNDELIVERABLE)?,
            },
        },
        "peer_state" => ClusterEvent::PeerState {
            room: name(entry, field::ROOM)?,
            client_id: name(entry, field::CLIENT)?,
            connection: connection(entry)?,
            is_detached: text(entry, field::STATE)? == DETACHED,
        },
        "evict" => ClusterEvent::EvictionRequested(Eviction {
            room: name(entry, field::ROOM)?,
            client_id: name(entry, field::CLIENT)?,
            connection: connection(entry)?,
            asking_node: name(entry, field::NODE)?,
            number: number(entry, field::NUMBER)?,
        }),
        "evicted" => ClusterEvent::EvictionAnswered {
            number: number(entry, field::NUMBER)?,
            is_gone: text(entry, field::STATE)? == GONE,
        },
        "snapshot" => ClusterEvent::Snapshot {
            members: members(entry)?,
            epoch: number(entry, field::EPOCH)?,
            room: name(entry, field::ROOM)?,
        },
        "claim" => ClusterEvent::Claimed(Claim {
            membership: number(entry, "membership")?,
            ends: connection_number(entry, "ends")?,
            context: text(entry, field::CONTEXT)?.into(),
            migration: migration(entry)?,
        }),
        "claim_denied" => ClusterEvent::ClaimDenied {
            live: connection_number(entry, field::LIVE)?,
            migration: migration(entry)?,
        },
        "moved" => moved(entry)?,
        "barrier" => ClusterEvent::BarrierReached {
            node: name(entry, field::NODE)?,
            migration: migration(entry)?,
        },
        "handover" => ClusterEvent::HandedOver {
            context: text(entry, field::CONTEXT)?.into(),
            state: serde_json::from_str(&text(entry, field::STATE)?)?,
            migration: migration(entry)?,
        },
        "closing" => return Ok(InboxEntry::Closing),
        "logout" => return text(entry, "body").map(InboxEntry::Logout),
        "auth_event" => return text(entry, "body").map(InboxEntry::AuthEvent),
        "rule" => return Ok(InboxEntry::Rule(text(entry, "body")?, effect_receipt(entry)?)),
        "announcement" => {
            return Ok(InboxEntry::Announcement(text(entry, "body")?, effect_receipt(entry)?));
        }
        "effective" => return number(entry, field::NUMBER).map(InboxEntry::Effective),
        _ => return Ok(InboxEntry::Unknown),
    };
    Ok(InboxEntry::Event(event))
}

/// What an entry says of webhook events: the number of its own event in the room, and all events that this node has to send.
pub fn decode_webhook_records(
    entry: &mut InboxFields,
) -> (Option<(String, u64)>, Vec<WebhookRecord>) {
    let sequence = entry.remove("sequence");
    let sequence = sequence.and_then(|number| str::from_utf8(&number).ok()?.parse().ok());
    let sequence = sequence.filter(|number| *number > 0);
    let room = entry.get(field::ROOM).and_then(|room| str::from_utf8(room).ok());
    let numbered = room.zip(sequence).map(|(room, sequence)| (room.to_owned(), sequence));
    let records = entry.remove("webhooks").map(|json| WebhookRecord::parse_all(&json));
    (numbered, records.unwrap_or_default())
}

/// The node that is to be told that the entry has taken effect.
fn effect_receipt(entry: &mut InboxFields) -> Result<Option<EffectReceipt>, DecodeError> {
    let number = optional(entry, field::NUMBER)?.filter(|number| !number.is_empty());
    let Some(number) = number else { return Ok(None) };
    Ok(Some(EffectReceipt { node: name(entry, field::NODE)?, number: number.parse()? }))
}

/// The numbers of a signal that is repeated.
fn before(entry: &mut InboxFields) -> Result<Vec<u64>, DecodeError> {
    let numbers = optional(entry, relay_field::BEFORE)?.unwrap_or_default();
    let numbers = numbers.split(',').filter(|number| !number.is_empty());
    Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
}

fn moved(entry: &mut InboxFields) -> Result<ClusterEvent, DecodeError> {
    let record = record(entry)?;
    let MemberRecord { peer, connection: to, .. } = record.clone();
    let (room, from) = (name(entry, field::ROOM)?, text(entry, "from")?.parse()?);
    let migration = Migration { room, client_id: peer.client_id, from, to };
    let members = entry.contains_key("members").then(|| members(entry)).transpose()?;
    let nodes = optional(entry, "nodes")?;
    let nodes = nodes.map(|nodes| serde_json::from_str(&nodes)).transpose()?;
    Ok(ClusterEvent::Moved {
        migration,
        record,
        epoch: number(entry, field::EPOCH)?,
        members: members.unwrap_or_default(),
        nodes: nodes.unwrap_or_default(),
    })
}

fn text(entry: &mut InboxFields, field: &'static str) -> Result<String, DecodeError> {
    optional(entry, field)?.ok_or(DecodeError::NoField(field))
}

fn optional(entry: &mut InboxFields, field: &'static str) -> Result<Option<String>, DecodeError> {
    let bytes = entry.remove(field);
    bytes.map(String::from_utf8).transpose().map_err(|_| DecodeError::NotUtf8(field))
}

fn name(entry: &mut InboxFields, field: &'static str) -> Result<Arc<str>, DecodeError> {
    text(entry, field).map(Arc::from)
}

fn number<N: FromStr<Err = ParseIntError>>(
    entry: &mut InboxFields,
    field: &'static str,
) -> Result<N, DecodeError> {
    Ok(text(entry, field)?.parse()?)
}

/// The number of a client's connection; 0 is none.
fn connection_number(
    entry: &mut InboxFields,
    field: &'static str,
) -> Result<Option<u64>, DecodeError> {
    Ok(Some(number(entry, field)?).filter(|number| *number > 0))
}

fn connection(entry: &mut InboxFields) -> Result<ConnectionId, DecodeError> {
    Ok(text(entry, field::CONNECTION)?.parse()?)
}

fn migration(entry: &mut InboxFields) -> Result<Migration, DecodeError> {
    let (room, client_id) = (name(entry, field::ROOM)?, name(entry, field::CLIENT)?);
    let (from, to) = (connection(entry)?, text(entry, field::TO)?.parse()?);
    Ok(Migration { room, client_id, from, to })
}

fn record(entry: &mut InboxFields) -> Result<MemberRecord, DecodeError> {
    Ok(MemberRecord::parse(&text(entry, field::CLIENT)?, &text(entry, "record")?)?)
}

fn members(entry: &mut InboxFields) -> Result<Vec<MemberRecord>, DecodeError> {
    let members: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&text(entry, "members")?)?;
    let records = members.iter();
    records.map(|(client_id, record)| Ok(MemberRecord::parse(client_id, record)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> InboxFields {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_member_list_without_members_is_read_and_one_with_two_has_both() {
        for (json, expected) in [("{}", 0), (r#"{"a":"n1.1 7 alice","b":"n2.2 8 bob of it"}"#, 2)] {
            let mut fields =
                entry(&[("kind", "snapshot"), ("room", "den"), ("epoch", "8"), ("members", json)]);
            let decoded = decode(&mut fields).unwrap();
            let InboxEntry::Event(ClusterEvent::Snapshot { members, .. }) = decoded else {
                panic!("no snapshot")
            };
            assert_eq!(members.len(), expected);
        }
    }

    #[test]
    fn a_webhook_event_has_a_number_only_where_it_is_above_zero() {
        for (sequence, expected) in [("0", None), ("3", Some(("den".to_owned(), 3)))] {
            let mut fields = entry(&[("room", "den"), ("sequence", sequence)]);
            assert_eq!(decode_webhook_records(&mut fields).0, expected);
        }
    }
}
