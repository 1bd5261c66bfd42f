//! Which closes are retried, and after which delay (`docs/build/clients.md`).

use std::time::Duration;

use crate::{events::Error, membership::frame::ServerError};

const FIRST_DELAY: Duration = Duration::from_millis(300);
const MAX_DELAY: Duration = Duration::from_secs(15);

/// The delay before attempt `attempt`: a share (`random`, 0 to 1) of a limit that doubles up to 15 s.
pub(super) fn retry_delay(attempt: u32, random: f64) -> Duration {
    let limit = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(attempt)).min(MAX_DELAY);
    limit.mul_f64(random)
}

/// Whether a close with this code is retried, if no `error` frame before it decides (`clients/closes.json`).
pub(super) fn is_retried(code: u16) -> bool {
    [1001, 1005, 1006, 1011, 1012, 1013, 1014].contains(&code)
}

/// Whether a new token may help after a close with this reason.
pub(super) fn is_token_reason(reason: &str) -> bool {
    ["Invalid token", "Token expired"].contains(&reason)
}

/// The same for the `code` of the error before a close, because a network may hide the close.
pub(super) fn is_token_error(code: &str) -> bool {
    ["invalid_token", "token_expired", "logged_out", "password_changed"].contains(&code)
}

/// Whether an HTTP status in place of the upgrade is an error of the client, which a retry would repeat.
pub(super) fn is_permanent_status(status: u16) -> bool {
    (400..500).contains(&status) && ![408, 425, 429].contains(&status)
}

/// The error that ends the session: the one that the server announced, or one made from the close itself.
pub(super) fn close_error(announced: Option<ServerError>, code: u16, reason: &str) -> Error {
    let (code, message) = match announced {
        Some(error) => (error.code, error.message),
        None if reason.is_empty() => ("closed".to_owned(), format!("Closed with {code}")),
        None => ("closed".to_owned(), reason.to_owned()),
    };
    Error::Closed { code, message }
}
