//! Reads single fields of a frame.

use std::borrow::Cow;

use memchr::memchr;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::FrameError;

/// A field that is present, `null` included; serde's own `Option` would read `null` as absent.
pub(super) fn present<'de, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

/// A string in a frame. Borrowed where it has no escapes; a plain `&str` would not accept those.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn object<'a>(
    name: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<&'a RawValue, FrameError> {
    raw.filter(|raw| starts_with_any(raw, "{")).ok_or_else(|| field(name, "an object"))
}

pub(super) fn field(name: &str, wanted: &str) -> FrameError {
    FrameError::NotAMessage(format!("Field \"{name}\" must be {wanted}").into())
}

pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    // Nearly every string has no escape: what is between the quotes, which was parsed already with the frame.
    if let Some(text) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && memchr(b'\\', text.as_bytes()).is_none()
    {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str::<Text<'_>>(json).ok().map(|Text(text)| text)
}

pub(super) fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

pub(super) fn is_string_or_number(raw: &RawValue) -> bool {
    starts_with_any(raw, "\"-0123456789")
}

pub(super) fn starts_with_any(raw: &RawValue, starts: &str) -> bool {
    raw.get().starts_with(|first| starts.contains(first))
}
