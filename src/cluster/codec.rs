//! Entries of an inbox, as what they say.

use std::{collections::HashMap, num::ParseIntError, str::FromStr, sync::Arc};

use super::webhooks::WebhookRecord;
use crate::cluster::gateway::{
    ClusterEvent, ConnectionId, MemberRecord, Migration, ParseRecordError,
};

/// The fields of an entry.
pub type InboxFields = HashMap<String, Vec<u8>>;

/// Why an entry says nothing to us.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another version of this server may write such.
    #[error("no field {0:?}")]
    NoField(&'static str),
    /// Nobody should write such.
    #[error("field {0:?} is not UTF-8")]
    NotUtf8(&'static str),
    /// As well.
    #[error(transparent)]
    NoSeat(#[from] ParseRecordError),
    /// As well; what serde says may repeat what stands there.
    #[error("what should be JSON is none of ours")]
    NoJson(#[from] serde_json::Error),
    /// As well.
    #[error(transparent)]
    NoNumber(#[from] ParseIntError),
}

/// What an entry says.
pub enum InboxEntry {
    /// About a room.
    Fact(ClusterEvent),
    /// A token was logged out.
    Logout(String),
    /// Somebody tried to log in.
    Attempt(String),
    /// An administrator has ordered something.
    Order(String),
    /// An administrator has something to say.
    Announcement(String),
    /// No seat comes to this node any more.
    Closing,
    /// Nothing that we know.
    Other,
}

/// What an entry says.
///
/// # Errors
///
/// [`Unread`].
pub fn decode(entry: &mut InboxFields) -> Result<InboxEntry, DecodeError> {
    let kind = text(entry, "k")?;
    let fact = match kind.as_str() {
        "seat" => ClusterEvent::Admitted {
            holder: holder(entry)?,
            everyone: roster(entry)?,
            room: name(entry, "r")?,
        },
        "join" => ClusterEvent::Joined { holder: holder(entry)?, room: name(entry, "r")? },
        "left" => {
            let MemberRecord { peer, connection: conn, .. } = holder(entry)?;
            ClusterEvent::Left { client_id: peer.client_id, conn, room: name(entry, "r")? }
        }
        "say" => ClusterEvent::Relayed {
            room: name(entry, "r")?,
            from: name(entry, "c")?,
            conn: conn(entry)?,
            to: entry.contains_key("t").then(|| name(entry, "t")).transpose()?,
            epoch: number(entry, "e")?,
            frame: text(entry, "d")?.into(),
        },
        "state" => ClusterEvent::PeerState {
            room: name(entry, "r")?,
            client_id: name(entry, "c")?,
            conn: conn(entry)?,
            is_away: text(entry, "d")? == "away",
        },
        "sync" => ClusterEvent::Snapshot {
            everyone: roster(entry)?,
            epoch: number(entry, "e")?,
            room: name(entry, "r")?,
        },
        "want" => ClusterEvent::Claimed {
            membership: number(entry, "m")?,
            ends: connection(entry, "s")?,
            luggage: text(entry, "d")?.into(),
            moving: moving(entry)?,
        },
        "deny" => {
            ClusterEvent::ClaimDenied { live: connection(entry, "l")?, moving: moving(entry)? }
        }
        "move" => {
            let holder = holder(entry)?;
            let MemberRecord { peer, connection: to, .. } = holder.clone();
            let (room, from) = (name(entry, "r")?, text(entry, "f")?.parse()?);
            let moving = Migration { room, client_id: peer.client_id, from, to };
            let everyone = entry.contains_key("m").then(|| roster(entry)).transpose()?;
            let nodes = entry.contains_key("n").then(|| text(entry, "n")).transpose()?;
            let nodes = nodes.map(|nodes| serde_json::from_str(&nodes)).transpose()?;
            let (everyone, nodes) = (everyone.unwrap_or_default(), nodes.unwrap_or_default());
            ClusterEvent::Moved { moving, holder, epoch: number(entry, "e")?, everyone, nodes }
        }
        "mark" => ClusterEvent::BarrierReached { node: name(entry, "f")?, moving: moving(entry)? },
        "hand" => ClusterEvent::HandedOver {
            luggage: text(entry, "m")?.into(),
            goods: serde_json::from_str(&text(entry, "d")?)?,
            moving: moving(entry)?,
        },
        "logout" => return text(entry, "d").map(InboxEntry::Logout),
        "closing" => return Ok(InboxEntry::Closing),
        "attempt" => return text(entry, "d").map(InboxEntry::Attempt),
        "order" => return text(entry, "d").map(InboxEntry::Order),
        "announce" => return text(entry, "d").map(InboxEntry::Announcement),
        _ => return Ok(InboxEntry::Other),
    };
    Ok(InboxEntry::Fact(fact))
}

/// What is to be told outside: the number of what an entry says, and all that is for this node to tell.
pub fn decode_webhook_records(entry: &mut InboxFields) -> (Option<u64>, Vec<WebhookRecord>) {
    let number = entry.remove("q").and_then(|number| str::from_utf8(&number).ok()?.parse().ok());
    let number = number.filter(|number| *number > 0);
    let told = entry.remove("w").and_then(|told| serde_json::from_slice(&told).ok());
    (number, told.unwrap_or_default())
}

fn text(entry: &mut InboxFields, field: &'static str) -> Result<String, DecodeError> {
    let bytes = entry.remove(field).ok_or(DecodeError::NoField(field))?;
    String::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(field))
}

fn number<N: FromStr<Err = ParseIntError>>(
    entry: &mut InboxFields,
    field: &'static str,
) -> Result<N, DecodeError> {
    Ok(text(entry, field)?.parse()?)
}

/// The number of a connection; 0 is none.
fn connection(entry: &mut InboxFields, field: &'static str) -> Result<Option<u64>, DecodeError> {
    Ok(Some(number(entry, field)?).filter(|number| *number > 0))
}

fn name(entry: &mut InboxFields, field: &'static str) -> Result<Arc<str>, DecodeError> {
    text(entry, field).map(Arc::from)
}

fn conn(entry: &mut InboxFields) -> Result<ConnectionId, DecodeError> {
    Ok(text(entry, "v")?.parse()?)
}

fn moving(entry: &mut InboxFields) -> Result<Migration, DecodeError> {
    let (room, client_id) = (name(entry, "r")?, name(entry, "c")?);
    Ok(Migration { room, client_id, from: conn(entry)?, to: text(entry, "t")?.parse()? })
}

fn holder(entry: &mut InboxFields) -> Result<MemberRecord, DecodeError> {
    Ok(MemberRecord::parse(&text(entry, "c")?, &text(entry, "v")?)?)
}

/// `[client, seat, client, seat, …]`; Lua writes an empty list as an empty object.
fn roster(entry: &mut InboxFields) -> Result<Vec<MemberRecord>, DecodeError> {
    let json = text(entry, "m")?;
    if json == "{}" {
        return Ok(Vec::new());
    }
    let flat: Vec<String> = serde_json::from_str(&json)?;
    let pairs = flat.as_chunks::<2>().0.iter();
    pairs.map(|[client_id, seat]| Ok(MemberRecord::parse(client_id, seat)?)).collect()
}
