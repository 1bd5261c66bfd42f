//! What a token allows beyond authenticating its user: the claim `signaling`.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{BidiControl, GeneralCategory},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most rooms or patterns of a token.
const MAX_ROOMS: usize = 100;

/// The longest display name, in characters.
const MAX_NAME: usize = 64;

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
    /// What the members of a room see beside the username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
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
        let (rooms, can, name) = (rooms(fields)?, can(fields)?, name(fields)?);
        Ok(Self { rooms, can, is_relay_only: ice(fields)?, name })
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

fn name(fields: &Map<String, Value>) -> Result<Option<String>, &'static str> {
    const FAULT: &str = "`signaling.name` is no text of 1 to 64 visible characters, without control characters and those that turn the direction of a text";
    let Some(name) = fields.get("name") else { return Ok(None) };
    let name = name.as_str().filter(|name| is_display_name(name)).ok_or(FAULT)?;
    Ok(Some(name.to_owned()))
}

/// Whether members may see this name. Two members may have the same one, so what only looks like another name is allowed; what
/// changes how the text around it looks is not (Unicode Standard Annex 9, section 2).
fn is_display_name(name: &str) -> bool {
    let categories = CodePointMapData::<GeneralCategory>::new();
    let controls_direction = CodePointSetData::new::<BidiControl>();
    let is_allowed = |char: char| {
        !char.is_control()
            && !controls_direction.contains(char)
            && !matches!(
                categories.get(char),
                GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator
            )
    };
    let is_visible =
        |char: char| !char.is_whitespace() && categories.get(char) != GeneralCategory::Format;
    (1..=MAX_NAME).contains(&name.chars().count())
        && name.trim() == name
        && name.chars().all(is_allowed)
        && name.chars().any(is_visible)
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
    fn a_display_name_is_visible_and_does_not_change_the_text_around_it() {
        for (name, is_allowed) in [
            ("Zoë Müller", true),
            ("علي", true),
            ("👩\u{200d}🔬 Ada", true),
            (&*"é".repeat(64), true),
            (&*"é".repeat(65), false),
            ("", false),
            (" Ada", false),
            ("\u{200b}\u{200d}", false),
            ("Ada\n", false),
            ("A\u{7f}da", false),
            ("A\u{2028}da", false),
            ("A\u{202e}da", false),
            ("A\u{2067}da", false),
            ("A\u{200f}da", false),
            ("A\u{61c}da", false),
        ] {
            let parsed = Permissions::parse(&json!({"name": name}));
            assert_eq!(parsed.is_ok(), is_allowed, "{name:?}");
            let expected = is_allowed.then(|| name.to_owned());
            assert_eq!(parsed.ok().and_then(|parsed| parsed.name), expected);
        }
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
            (json!({"name": null}), "signaling.name"),
        ] {
            let found = Permissions::parse(&claim).unwrap_err();
            assert!(found.contains(fault), "{claim}: {found}");
        }
    }
}
