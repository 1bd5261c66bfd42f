//! Credentials for a relay, in coturn's words and in the browser's.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody},
    extract::CurrentUser,
    layers::NO_STORE,
};
use crate::{
    app::{AppState, TurnError},
    wire::IceServer,
};

/// What coturn's `use-auth-secret` accepts until the time in the user name.
#[derive(Serialize, ToSchema)]
pub(super) struct TurnBody {
    /// `<unix expiry>:<user>`
    #[schema(example = "1704067200:admin")]
    username: String,
    /// base64 of the HMAC-SHA1 of the user name.
    credential: String,
    /// `turn:` and `turns:` URLs; those that did not relay when they were last tried come last.
    urls: Vec<String>,
    /// Seconds.
    ttl: u64,
}

/// Ready for `new RTCPeerConnection(…)`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct IceServersBody {
    ice_servers: Vec<IceServer>,
    /// Seconds that the credentials last.
    ttl: u64,
}

/// TURN credentials for the user of the token.
#[utoipa::path(
    get, path = "/auth/turn-credentials", tag = "TURN", security(("token" = [])),
    responses(
        (status = 200, description = "Credentials", body = TurnBody),
        (status = 401, description = "No token, or not a good one", body = ErrorBody),
        (status = 503, description = "This server has no TURN server", body = ErrorBody),
    )
)]
pub(super) async fn turn_credentials(
    State(app): State<AppState>,
    CurrentUser(account): CurrentUser,
) -> Result<Response, ApiError> {
    let (minted, urls, ttl) = app.turn_credentials(&account.username).map_err(|why| match why {
        TurnError::NotConfigured => ApiError::TurnNotConfigured,
        TurnError::NoUrls => ApiError::NoTurnUrls,
    })?;
    let body = TurnBody {
        username: minted.username,
        credential: minted.credential,
        urls,
        ttl: ttl.as_secs(),
    };
    Ok((NO_STORE, Json(body)).into_response())
}

/// STUN and TURN servers as a browser wants them; an empty list where none is configured.
#[utoipa::path(
    get, path = "/auth/ice-servers", tag = "TURN", security(("token" = [])),
    responses(
        (status = 200, description = "Servers with credentials", body = IceServersBody),
        (status = 401, description = "No token, or not a good one", body = ErrorBody),
    )
)]
pub(super) async fn ice_servers(
    State(app): State<AppState>,
    CurrentUser(account): CurrentUser,
) -> Response {
    let (ice_servers, ttl) = app.ice_servers(Some(&account.username));
    let body = IceServersBody { ice_servers, ttl: ttl.as_secs() };
    (NO_STORE, Json(body)).into_response()
}
