//! Frames as JSON objects, and how their fields are read.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// The protocol features that this client supports.
const FEATURES: [&str; 3] = ["resume", "peer_state", "ice"];

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
    pub retry: Option<bool>,
    pub retry_after_ms: Option<u64>,
}
