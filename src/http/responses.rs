//! What answers of several routes share: a header, and the errors that `/openapi.json` lists.
//!
//! A route names the sets that apply to it in `responses(…)`; an entry of its own for the same status, listed after
//! them, replaces theirs.

use axum::http::{HeaderName, HeaderValue, header};
use utoipa::IntoResponses;

use super::error::{ErrorBody, InvalidBody};

/// On every answer that holds a token or a credential.
pub(super) const NO_STORE: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// Of a route that needs a user's token.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum TokenErrors {
    /// The bearer token is missing or invalid
    #[response(status = 401)]
    Unauthorized(ErrorBody),
}

/// Of a route that checks a username and a password.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum LoginErrors {
    /// The username or the password is wrong
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The body is larger than 64 KiB
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not JSON
    #[response(status = 415)]
    UnsupportedType(ErrorBody),
    /// A field is missing or has the wrong type
    #[response(status = 422)]
    Invalid(InvalidBody),
    /// Too many logins are waiting
    #[response(status = 503)]
    Busy(ErrorBody),
}

/// Of a route that lists rooms for users.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum RoomsErrors {
    /// `ROOMS_API_REQUIRE_AUTH=true`, and the bearer token is missing or invalid
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// Redis (`REDIS_URL`) cannot be reached, so the rooms of the other nodes are unknown
    #[response(status = 503)]
    ClusterUnavailable(ErrorBody),
}

/// Of every route for administrators.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum AdminErrors {
    /// The bearer token is not `ADMIN_TOKEN`
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// `ADMIN_TOKEN` is not set
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// Of a route for administrators of one room, after [`AdminErrors`].
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum RoomErrors {
    /// The room id is invalid, or `ADMIN_TOKEN` is not set
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// Of a route for administrators that reads members or rooms of all nodes.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum ClusterErrors {
    /// Redis (`REDIS_URL`) cannot be reached, so the members on other nodes are unknown
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// Of a route for administrators that takes a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum BodyErrors {
    /// The body has missing or wrong fields; `detail` says what is accepted
    #[response(status = 422)]
    Invalid(InvalidBody),
}

/// Of a route that creates a moderation rule.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) enum RuleErrors {
    /// As many rules are active as the server keeps
    #[response(status = 409)]
    LimitReached(ErrorBody),
    /// The rule applies now, but could not be written to disk: a restart would undo it
    #[response(status = 503)]
    NotPersisted(ErrorBody),
}
