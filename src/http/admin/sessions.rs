//! Ends tokens, also of other issuers, and the sessions that were joined with them, on all nodes.

use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::audit,
    server::{DoneBody, done_response},
};
use crate::{
    auth::{revocation::Revocation, users::is_possible_username},
    client_ip::ClientEndpoint,
    clock::unix_now,
    http::{
        error::ApiError,
        extract::{
            body::{DescribeBody, JsonBody},
            token::Administrator,
        },
        responses::{AdminErrors, BodyErrors},
    },
    moderation::Subject,
    state::AppState,
};

/// The longest `jti` that is taken, in bytes.
const MAX_ID_BYTES: usize = 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(end_sessions))
}

/// The tokens to end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EndSessions {
    /// Either those of this user,
    username: Option<String>,
    /// that were issued before this time, in seconds since the Unix epoch. Default: now. Tokens without `iat` are not
    /// ended by it.
    issued_before: Option<u64>,
    /// or the one with this `jti`.
    jti: Option<String>,
}

impl DescribeBody for EndSessions {
    const ACCEPTED: &str = "an object with \"username\", and perhaps \"issued_before\" (seconds since 1970), or with \"jti\" (a string)";
}

/// Ends tokens, and the sessions that were joined with them.
#[utoipa::path(
    post, path = "/admin/api/sessions/end", tag = "Administration", security(("admin" = [])),
    request_body = EndSessions,
    responses(
        AdminErrors, BodyErrors,
        (status = 200, description = "They are ended on all nodes, also after a restart", body = DoneBody),
    )
)]
async fn end_sessions(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    JsonBody(EndSessions { username, issued_before, jti }): JsonBody<EndSessions>,
) -> Result<Response, ApiError> {
    let now = unix_now();
    let revocation = match (username, jti) {
        (Some(username), None) if is_possible_username(&username) => {
            // Not later than now, or a new login would be ended, too.
            let time = issued_before.map_or(now, |time| time.saturating_sub(1).min(now));
            audit(&client, "end sessions", None, Some(&Subject::Username(username.clone())), None);
            app.end_issued_until(&username, time)
        }
        (None, Some(jti)) if issued_before.is_none() && (1..=MAX_ID_BYTES).contains(&jti.len()) => {
            audit(&client, "end session", None, None, None);
            Revocation::of_id(&jti, app.longest_expiry(now))
        }
        (Some(_) | None, _) => return Err(EndSessions::fault()),
    };
    app.revoke(&[revocation]).await?;
    done_response("end sessions", None)
}
