//! What a token allows beyond authenticating its user: the claim `signaling`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most rooms or patterns of a token.
const MAX_ROOMS: usize = 100;

/// What a member may do, as a set of bits: it is checked on every frame.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CapabilitySet(u8);

impl CapabilitySet {
    /// Joining a room.
    pub const JOIN: Self = Self(1);
    /// Sending to one member.
    pub const SEND: Self = Self(2);
    /// Sending to everyone else.
    pub const BROADCAST: Self = Self(4);
    /// Removing members, and locking rooms.
    pub const MODERATE: Self = Self(8);
    /// What a token without the claim allows.
    pub const MEMBER: Self = Self(Self::JOIN.0 | Self::SEND.0 | Self::BROADCAST.0);

    const NAMES: [(&str, Self); 4] = [
        ("join", Self::JOIN),
        ("send", Self::SEND),
        ("broadcast", Self::BROADCAST),
        ("moderate", Self::MODERATE),
    ];

    /// Whether all of `wanted` is in it.
    pub const fn has_all(&self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// The words of the claim.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, one)| self.has_all(*one)).map(|(name, _)| name)
    }

    fn parse(words: &[Value]) -> Option<Self> {
        words.iter().try_fold(Self(0), |set, word| {
            let (_, one) = Self::NAMES.into_iter().find(|(name, _)| word == name)?;
            Some(Self(set.0 | one.0))
        })
    }
}

/// What a token allows.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// Room ids, or beginnings of them with `*` at the end; `None` for all rooms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// What its user may do there.
    pub can: CapabilitySet,
    /// Media may go through TURN servers only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_relay_only: bool,
}

impl Permissions {
    /// Reads the claim.
    ///
    /// # Errors
    ///
    /// What is wrong with it. Nothing is ignored: a permission that is misspelled must not allow more than was meant.
    pub fn parse(claim: &Value) -> Result<Self, &'static str> {
        let fields = claim.as_object().ok_or("`signaling` is no object")?;
        let known = ["rooms", "can", "ice", "name"];
        if fields.keys().any(|name| !known.contains(&name.as_str())) {
            return Err("`signaling` has a field other than rooms, can, ice and name");
        }
        Ok(Self { rooms: rooms(fields)?, can: can(fields)?, is_relay_only: ice(fields)? })
    }

    /// Whether the user may enter this room.
    pub fn allow_room(&self, room: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => room.starts_with(start),
            None => room == pattern,
        };
        self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(matches))
    }
}

fn rooms(fields: &Map<String, Value>) -> Result<Option<Vec<String>>, &'static str> {
    const FAULT: &str = "`signaling.rooms` is no list of up to 100 texts";
    let Some(rooms) = fields.get("rooms") else { return Ok(None) };
    let rooms = rooms.as_array().filter(|rooms| rooms.len() <= MAX_ROOMS).ok_or(FAULT)?;
    let rooms = rooms.iter().map(|room| room.as_str().map(str::to_owned));
    rooms.collect::<Option<Vec<_>>>().map(Some).ok_or(FAULT)
}

fn can(fields: &Map<String, Value>) -> Result<CapabilitySet, &'static str> {
    let Some(can) = fields.get("can") else { return Ok(CapabilitySet::MEMBER) };
    let words = can.as_array().and_then(|words| CapabilitySet::parse(words));
    words.ok_or("`signaling.can` is no list of join, send, broadcast and moderate")
}

fn ice(fields: &Map<String, Value>) -> Result<bool, &'static str> {
    match fields.get("ice").map(Value::as_str) {
        None | Some(Some("all")) => Ok(false),
        Some(Some("relay")) => Ok(true),
        Some(_) => Err("`signaling.ice` is neither \"all\" nor \"relay\""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rooms_are_exact_names_or_beginnings() {
        let claim = json!({"rooms": ["den", "team-*", "a*b"]});
        let permissions = Permissions::parse(&claim).unwrap();

        for (room, is_allowed) in [
            ("den", true),
            ("den2", false),
            ("team-", true),
            ("team-7", true),
            ("axb", false),
            ("a*b", true),
        ] {
            assert_eq!(permissions.allow_room(room), is_allowed, "{room}");
        }
        assert!(Permissions::parse(&json!({})).unwrap().allow_room("any"));
        assert!(!Permissions::parse(&json!({"rooms": []})).unwrap().allow_room("any"));
        assert!(Permissions::parse(&json!({"rooms": ["*"]})).unwrap().allow_room("any"));
    }

    #[test]
    fn capabilities_are_those_that_are_named() {
        let can = |claim: Value| Permissions::parse(&claim).unwrap().can;

        assert_eq!(can(json!({})), CapabilitySet::MEMBER);
        assert_eq!(can(json!({"can": []})).names().count(), 0);
        let listener = can(json!({"can": ["moderate", "join", "join"]}));
        assert_eq!(listener.names().collect::<Vec<_>>(), ["join", "moderate"]);
        assert!(!listener.has_all(CapabilitySet::SEND));
    }

    #[test]
    fn a_claim_that_is_misspelled_is_refused() {
        for (claim, fault) in [
            (json!("den"), "no object"),
            (json!({"room": ["den"]}), "a field other than"),
            (json!({"rooms": "den"}), "signaling.rooms"),
            (json!({"rooms": [1]}), "signaling.rooms"),
            (json!({"rooms": vec!["x"; 101]}), "signaling.rooms"),
            (json!({"can": ["join", "Send"]}), "signaling.can"),
            (json!({"can": "join"}), "signaling.can"),
            (json!({"can": null}), "signaling.can"),
            (json!({"ice": "relays"}), "signaling.ice"),
            (json!({"ice": null}), "signaling.ice"),
        ] {
            let found = Permissions::parse(&claim).unwrap_err();
            assert!(found.contains(fault), "{claim}: {found}");
        }
    }
}
