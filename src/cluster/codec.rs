//! Entries of an inbox: the names of their fields, and how they are read. `scripts/README.md` says what each is.

use std::{borrow::Cow, collections::HashMap, num::ParseIntError, str::FromStr, sync::Arc};

use bytestring::ByteString;
use redis::{FromRedisValue, ParsingError, Value};
use serde::{Deserialize, Serialize};

use super::{
    messages::{Claim, ClusterEvent, EffectReceipt, Eviction},
    receipts::{SignalNumber, SignalReceipts},
    webhooks::WebhookRecord,
};
use crate::{
    migration::{ConnectionId, Epoch, MemberRecord, Migration, ParseRecordError},
    rooms::{RelayedFrame, RelayedSignal},
};

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

/// The name of the fields of an entry that holds signals, one in each field; it has no others.
pub const SIGNAL: &str = "m";

/// The `state` of a `peer_state`.
pub const DETACHED: &str = "detached";
pub const CONNECTED: &str = "connected";

/// The `state` of an `evicted`.
pub const GONE: &str = "gone";
pub const STAYS: &str = "stays";

/// The fields of an entry that holds no signals.
pub type InboxFields = HashMap<String, Vec<u8>>;

/// An entry as it was read.
pub enum RawEntry {
    /// Frames of members of another node, for [`decode_signal`].
    Signals(Vec<Vec<u8>>),
    /// Anything else, for [`decode`].
    Fields(InboxFields),
}

impl RawEntry {
    /// The bytes that it has, without the names of its fields.
    pub fn size(&self) -> usize {
        match self {
            Self::Signals(signals) => signals.iter().map(Vec::len).sum(),
            Self::Fields(fields) => fields.values().map(Vec::len).sum(),
        }
    }
}

impl FromRedisValue for RawEntry {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let is_signal =
            |name: &Value| matches!(name, Value::BulkString(name) if name == SIGNAL.as_bytes());
        let Value::Array(fields) = value else {
            return FromRedisValue::from_redis_value(value).map(Self::Fields);
        };
        if !fields.first().is_some_and(is_signal) {
            return FromRedisValue::from_redis_value(Value::Array(fields)).map(Self::Fields);
        }
        let signals = fields.into_iter().skip(1).step_by(2);
        signals.map(Vec::from_redis_value).collect::<Result<_, _>>().map(Self::Signals)
    }
}

/// What stands in front of the frame of a signal, as a JSON array in a line of its own.
#[derive(Serialize, Deserialize)]
struct SignalHeader<'a>(
    /// The room.
    #[serde(borrow)]
    Cow<'a, str>,
    /// The sender, its node, and the key of its connection there.
    #[serde(borrow)]
    (Cow<'a, str>, Cow<'a, str>, u64),
    /// The target; nothing for all members of the room on the node that reads it.
    #[serde(borrow)]
    Option<Cow<'a, str>>,
    /// The epoch.
    Epoch,
    /// The number, and those of the same signal before.
    (u64, Cow<'a, [u64]>),
);

/// A signal of a member of `node` for another node.
pub fn encode_signal(node: &str, frame: &RelayedFrame, number: &SignalNumber) -> Vec<u8> {
    let RelayedFrame { signal, epoch, frame } = frame;
    let RelayedSignal { room, from, key, to, .. } = &**signal;
    let SignalNumber { number, before } = number;
    let header = SignalHeader(
        Cow::Borrowed(&**room),
        (Cow::Borrowed(&**from), Cow::Borrowed(node), *key),
        to.as_deref().map(Cow::Borrowed),
        *epoch,
        (*number, Cow::Borrowed(&**before)),
    );
    let mut encoded = Vec::with_capacity(frame.len() + 160);
    #[expect(clippy::expect_used, reason = "strings and numbers")]
    serde_json::to_writer(&mut encoded, &header).expect("a header can be written");
    encoded.push(b'\n');
    encoded.extend_from_slice(frame.as_bytes());
    encoded
}

/// Reads what [`encode_signal`] writes.
///
/// # Errors
///
/// [`DecodeError`].
pub fn decode_signal(encoded: Vec<u8>) -> Result<ClusterEvent, DecodeError> {
    let encoded = ByteString::try_from(encoded).map_err(|_| DecodeError::NotUtf8(SIGNAL))?;
    let (header, frame) = encoded.split_once('\n').ok_or(DecodeError::NoField("frame"))?;
    let SignalHeader(room, (from, node, key), to, epoch, (number, before)) =
        serde_json::from_str(header)?;
    Ok(ClusterEvent::Relayed {
        room: room.into(),
        from: from.into(),
        connection: ConnectionId { node: node.into(), key },
        to: to.map(Arc::from),
        epoch,
        frame: encoded.slice_ref(frame),
        number: SignalNumber { number, before: before.into_owned() },
    })
}

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
    fn a_signal_is_read_as_it_was_written_and_what_is_none_is_an_error() {
        for (to, before) in [(None, Vec::new()), (Some("bob"), vec![3, 9])] {
            let mut signal = RelayedSignal::for_tests(u64::MAX, "1");
            (signal.room, signal.to) = ("a \"den\"".into(), to.map(Arc::from));
            let from = signal.from.clone();
            let written = SignalNumber { number: u64::MAX, before };
            let frame = RelayedFrame { signal: Arc::new(signal), epoch: 7, frame: "{\n}".into() };

            let encoded = encode_signal("n1", &frame, &written);
            let ClusterEvent::Relayed {
                room,
                from: sender,
                connection,
                to: target,
                epoch,
                frame,
                number,
            } = decode_signal(encoded.clone()).unwrap()
            else {
                panic!("no signal")
            };

            assert_eq!((&*room, sender, target.as_deref()), ("a \"den\"", from, to));
            assert_eq!(connection, ConnectionId { node: "n1".into(), key: u64::MAX });
            assert_eq!((epoch, &*frame, number), (7, "{\n}", written));
            for end in 0..encoded.len() - frame.len() {
                assert!(decode_signal(encoded[..end].to_vec()).is_err(), "{end}");
            }
        }
        assert!(decode_signal(b"[]\n{}".to_vec()).is_err());
        assert!(decode_signal(vec![0xff, b'\n']).is_err());
    }

    #[test]
    fn the_fields_of_an_entry_are_signals_or_anything_else() {
        let string = |text: &str| Value::BulkString(text.into());
        let read = |fields: &[&str]| {
            RawEntry::from_redis_value(Value::Array(fields.iter().map(|it| string(it)).collect()))
        };

        let RawEntry::Signals(signals) = read(&["m", "one", "m", "two"]).unwrap() else {
            panic!("no signals")
        };
        assert_eq!(signals, [b"one", b"two"]);
        let RawEntry::Fields(fields) = read(&["kind", "hello"]).unwrap() else {
            panic!("no fields")
        };
        assert_eq!(fields["kind"], b"hello");
    }

    #[test]
    fn a_webhook_event_has_a_number_only_where_it_is_above_zero() {
        for (sequence, expected) in [("0", None), ("3", Some(("den".to_owned(), 3)))] {
            let mut fields = entry(&[("room", "den"), ("sequence", sequence)]);
            assert_eq!(decode_webhook_records(&mut fields).0, expected);
        }
    }
}
