//! Reads single fields of a frame.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{FrameError, raw_json::RawJson};

/// A field that is present, `null` included; serde's own `Option` would read `null` as absent.
pub(super) fn present<'de, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<RawJson<'de>>, D::Error> {
    <&RawValue>::deserialize(field).map(|value| Some(value.into()))
}

pub(super) fn object<'a>(
    name: &'static str,
    raw: Option<RawJson<'a>>,
) -> Result<RawJson<'a>, FrameError> {
    raw.filter(|raw| raw.starts_with_any(b"{")).ok_or_else(|| field(name, "an object"))
}

pub(super) fn field(name: &str, wanted: &str) -> FrameError {
    FrameError::NotAMessage(format!("Field \"{name}\" must be {wanted}").into())
}
