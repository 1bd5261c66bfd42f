//! The wall clock, asked in one place; whatever decides is given the answer as `now`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since the Unix epoch, as JWT claims and TURN user names count them.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
