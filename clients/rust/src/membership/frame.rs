//! Frames as JSON objects, and how their fields are read.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::events::Error;

/// The protocol features that this client supports.
const FEATURES: [&str; 4] = ["resume", "peer_state", "ice", "limits"];

/// A frame: one JSON object.
pub(crate) type Frame = Map<String, Value>;

/// The object that `json!({ … })` made.
pub(crate) fn object(value: Value) -> Frame {
    if let Value::Object(frame) = value { frame } else { Frame::new() }
}

/// The frame that joins a room; a guest has no token.
pub(super) fn auth_token(token: Option<String>, client_id: Option<String>) -> Frame {
    let mut frame = object(json!({"type":"auth_token","features":FEATURES}));
    frame.extend(token.map(|token| ("token".to_owned(), token.into())));
    frame.extend(client_id.map(|id| ("clientId".to_owned(), id.into())));
    frame
}

/// The frame that resumes a membership after the frame with this `seq`.
pub(super) fn resume(token: &str, last_seq: u64) -> Frame {
    object(json!({"type":"resume","resume_token":token,"last_seq":last_seq}))
}

/// What an acknowledgement may add to a frame, in bytes.
const ACK_BYTES: usize = ",\"ack\":18446744073709551615".len();

/// The error for a frame that is longer than the server accepts; none while the limit is not known.
pub(super) fn size_error(frame: &Frame, max: Option<usize>) -> Option<Error> {
    let max = max?;
    let length = serde_json::to_string(frame).map_or(0, |text| text.len()) + ACK_BYTES;
    (length > max).then_some(Error::TooBig { length, max })
}

/// The JSON object in a frame of the server.
pub(super) fn parse(text: &str) -> Option<Frame> {
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&replace_lone_surrogates(text)))
        .ok()
}

/// A JSON text with U+FFFD for every escape of half a surrogate pair. JavaScript can write one, and a peer's payload
/// arrives as it was written; a Rust string cannot hold it.
fn replace_lone_surrogates(text: &str) -> String {
    let (mut replaced, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        replaced.push_str(before);
        let after = |length: usize| escape.get(length..).unwrap_or_default();
        let is_pair = matches!(surrogate(escape), Some(0xd800..0xdc00))
            && after(5).strip_prefix('\\').and_then(surrogate).is_some_and(|low| low >= 0xdc00);
        let (kept, length) = match surrogate(escape) {
            Some(_) if is_pair => (escape.get(..11), 11),
            Some(_) => (Some("ufffd"), 5),
            // The character behind a backslash may be another backslash.
            None => {
                let length = escape.chars().next().map_or(0, char::len_utf8);
                (escape.get(..length), length)
            }
        };
        replaced.push('\\');
        replaced.push_str(kept.unwrap_or_default());
        rest = after(length);
    }
    replaced + rest
}

/// The surrogate whose escape follows a backslash.
fn surrogate(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix('u')?.get(..4)?;
    u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
}

/// A field of a frame, or `None` if it is missing or of another type.
pub(super) fn field<T: DeserializeOwned>(frame: &Frame, name: &str) -> Option<T> {
    T::deserialize(frame.get(name)?).ok()
}

/// An `error` frame (`docs/build/protocol.md`, section 3).
#[derive(Deserialize)]
pub(super) struct ServerError {
    pub code: String,
    #[serde(default)]
    pub message: String,
    /// The id of the frame that was refused. This client sends numbers.
    pub id: Option<Value>,
    pub retry: Option<bool>,
    pub retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_is_replaced_and_everything_else_stays() {
        for (text, expected) in [
            (r#"{"a":"\ud83d!"}"#, "\u{fffd}!"),
            (r#"{"a":"\uDE00"}"#, "\u{fffd}"),
            (r#"{"a":"\ude00\ud83d"}"#, "\u{fffd}\u{fffd}"),
            (r#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}😀"),
            (r#"{"a":"\ud83d\n\\ud83d\"\u00e9"}"#, "\u{fffd}\n\\ud83d\"é"),
            (r#"{"a":"\ud83d\ude00"}"#, "😀"),
        ] {
            assert_eq!(parse(text).unwrap()["a"], expected, "{text}");
        }
        for malformed in [r#"{"a":"\ud8"#, r#"{"a":"\"#, r#"{"a":"\u12é4"}"#, "[]", ""] {
            assert_eq!(parse(malformed), None, "{malformed}");
        }
    }
}
