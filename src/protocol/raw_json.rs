//! JSON values as the text in which they arrived.

use std::borrow::Cow;

use memchr::memchr;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as its text, without white space around it. It is valid: it comes from a parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawJson<'a>(&'a str);

/// A string in a frame. Borrowed where it has no escapes; a plain `&str` would not accept those.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> RawJson<'a> {
    /// `null`.
    pub const NULL: RawJson<'static> = RawJson("null");

    /// The value that `json` is, which was parsed already.
    pub(super) const fn parsed(json: &'a str) -> Self {
        Self(json)
    }

    /// Its text.
    pub fn get(self) -> &'a str {
        self.0
    }

    /// What it says, where it is a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        // Nearly every string has no escape: what is between the quotes was parsed already.
        if let Some(text) = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
            && memchr(b'\\', text.as_bytes()).is_none()
        {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_str::<Text<'_>>(self.0).ok().map(|Text(text)| text)
    }

    /// It as a `T`, where it is one.
    pub(super) fn value<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    pub(super) fn is_string_or_number(self) -> bool {
        self.starts_with_any(b"\"-0123456789")
    }

    /// Whether its first byte is one of these.
    pub(super) fn starts_with_any(self, starts: &[u8]) -> bool {
        self.0.as_bytes().first().is_some_and(|first| starts.contains(first))
    }
}

impl<'a> From<&'a RawValue> for RawJson<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

impl Serialize for RawJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: &RawValue = serde_json::from_str(self.0).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}
