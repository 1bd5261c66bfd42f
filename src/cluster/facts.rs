//! Entries of an inbox, as what they say.

use std::{collections::HashMap, num::ParseIntError, str::FromStr, sync::Arc};

use super::told::Told;
use crate::rooms::far::{Conn, Fact, Holder, Moving, NoSeat};

/// The fields of an entry.
pub type Entry = HashMap<String, Vec<u8>>;

/// Why an entry says nothing to us.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// Another version of this server may write such.
    #[error("no field {0:?}")]
    NoField(&'static str),
    /// Nobody should write such.
    #[error("field {0:?} is not UTF-8")]
    NotUtf8(&'static str),
    /// As well.
    #[error(transparent)]
    NoSeat(#[from] NoSeat),
    /// As well; what serde says may repeat what stands there.
    #[error("what should be JSON is none of ours")]
    NoJson(#[from] serde_json::Error),
    /// As well.
    #[error(transparent)]
    NoNumber(#[from] ParseIntError),
}

/// What an entry says.
pub enum News {
    /// About a room.
    Fact(Fact),
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
pub fn read(entry: &mut Entry) -> Result<News, Unread> {
    let kind = text(entry, "k")?;
    let fact = match kind.as_str() {
        "seat" => Fact::Seated {
            holder: holder(entry)?,
            everyone: picture(entry)?,
            room: name(entry, "r")?,
        },
        "join" => Fact::Joined { holder: holder(entry)?, room: name(entry, "r")? },
        "left" => {
            let Holder { peer, conn, .. } = holder(entry)?;
            Fact::Left { client_id: peer.client_id, conn, room: name(entry, "r")? }
        }
        "say" => Fact::Said {
            room: name(entry, "r")?,
            from: name(entry, "c")?,
            conn: conn(entry)?,
            to: entry.contains_key("t").then(|| name(entry, "t")).transpose()?,
            epoch: number(entry, "e")?,
            frame: text(entry, "d")?.into(),
        },
        "state" => Fact::State {
            room: name(entry, "r")?,
            client_id: name(entry, "c")?,
            conn: conn(entry)?,
            is_away: text(entry, "d")? == "away",
        },
        "sync" => Fact::Picture {
            everyone: picture(entry)?,
            epoch: number(entry, "e")?,
            room: name(entry, "r")?,
        },
        "want" => Fact::Wanted {
            membership: number(entry, "m")?,
            ends: connection(entry, "s")?,
            luggage: text(entry, "d")?.into(),
            moving: moving(entry)?,
        },
        "deny" => Fact::Denied { live: connection(entry, "l")?, moving: moving(entry)? },
        "move" => {
            let holder = holder(entry)?;
            let Holder { peer, conn: to, .. } = holder.clone();
            let (room, from) = (name(entry, "r")?, text(entry, "f")?.parse()?);
            let moving = Moving { room, client_id: peer.client_id, from, to };
            let everyone = entry.contains_key("m").then(|| picture(entry)).transpose()?;
            let nodes = entry.contains_key("n").then(|| text(entry, "n")).transpose()?;
            let nodes = nodes.map(|nodes| serde_json::from_str(&nodes)).transpose()?;
            let (everyone, nodes) = (everyone.unwrap_or_default(), nodes.unwrap_or_default());
            Fact::Moved { moving, holder, epoch: number(entry, "e")?, everyone, nodes }
        }
        "mark" => Fact::Marked { node: name(entry, "f")?, moving: moving(entry)? },
        "hand" => Fact::Handed {
            luggage: text(entry, "m")?.into(),
            goods: serde_json::from_str(&text(entry, "d")?)?,
            moving: moving(entry)?,
        },
        "logout" => return text(entry, "d").map(News::Logout),
        "closing" => return Ok(News::Closing),
        "attempt" => return text(entry, "d").map(News::Attempt),
        "order" => return text(entry, "d").map(News::Order),
        "announce" => return text(entry, "d").map(News::Announcement),
        _ => return Ok(News::Other),
    };
    Ok(News::Fact(fact))
}

/// What is to be told outside: the number of what an entry says, and all that is for this node to tell.
pub fn read_told(entry: &mut Entry) -> (Option<u64>, Vec<Told>) {
    let number = entry.remove("q").and_then(|number| str::from_utf8(&number).ok()?.parse().ok());
    let number = number.filter(|number| *number > 0);
    let told = entry.remove("w").and_then(|told| serde_json::from_slice(&told).ok());
    (number, told.unwrap_or_default())
}

fn text(entry: &mut Entry, field: &'static str) -> Result<String, Unread> {
    let bytes = entry.remove(field).ok_or(Unread::NoField(field))?;
    String::from_utf8(bytes).map_err(|_| Unread::NotUtf8(field))
}

fn number<N: FromStr<Err = ParseIntError>>(
    entry: &mut Entry,
    field: &'static str,
) -> Result<N, Unread> {
    Ok(text(entry, field)?.parse()?)
}

/// The number of a connection; 0 is none.
fn connection(entry: &mut Entry, field: &'static str) -> Result<Option<u64>, Unread> {
    Ok(Some(number(entry, field)?).filter(|number| *number > 0))
}

fn name(entry: &mut Entry, field: &'static str) -> Result<Arc<str>, Unread> {
    text(entry, field).map(Arc::from)
}

fn conn(entry: &mut Entry) -> Result<Conn, Unread> {
    Ok(text(entry, "v")?.parse()?)
}

fn moving(entry: &mut Entry) -> Result<Moving, Unread> {
    let (room, client_id) = (name(entry, "r")?, name(entry, "c")?);
    Ok(Moving { room, client_id, from: conn(entry)?, to: text(entry, "t")?.parse()? })
}

fn holder(entry: &mut Entry) -> Result<Holder, Unread> {
    Ok(Holder::of(&text(entry, "c")?, &text(entry, "v")?)?)
}

/// `[client, seat, client, seat, …]`; Lua writes an empty list as an empty object.
fn picture(entry: &mut Entry) -> Result<Vec<Holder>, Unread> {
    let json = text(entry, "m")?;
    if json == "{}" {
        return Ok(Vec::new());
    }
    let flat: Vec<String> = serde_json::from_str(&json)?;
    let pairs = flat.as_chunks::<2>().0.iter();
    pairs.map(|[client_id, seat]| Ok(Holder::of(client_id, seat)?)).collect()
}
