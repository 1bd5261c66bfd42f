//! The wall clock, read in one place; decisions take its time as `now`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as our own records count time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds since the Unix epoch, as JWT claims and TURN usernames count time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
