//! The form of client ids.

use std::borrow::Cow;

/// The client id that an `auth_token` asks for.
#[derive(Debug)]
pub enum RequestedId<'a> {
    /// Absent, `null` or empty: the server chooses one.
    Any,
    /// A well-formed id.
    This(Cow<'a, str>),
    /// Not 1 to 128 characters of `A–Z a–z 0–9 . _ : @ -`.
    Malformed,
}

/// Whether `id` may name a member: 1 to 128 characters of `A–Z a–z 0–9 . _ : @ -`.
pub fn is_client_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte))
}
