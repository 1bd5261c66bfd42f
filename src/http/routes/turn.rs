//! Credentials for a relay, in coturn's words and in the browser's.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        error::{ApiError, ErrorBody},
        extract::token::CurrentUser,
        responses::{NO_STORE, TokenErrors},
    },
    protocol::IceServer,
    state::{AppState, TurnError},
};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(turn_credentials)).routes(routes!(ice_servers))
}

/// What coturn's `use-auth-secret` accepts until the time in the user name.
#[derive(Serialize, ToSchema)]
struct TurnBody {
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
struct IceServersBody {
    ice_servers: Vec<IceServer>,
    /// Seconds that the credentials last.
    ttl: u64,
}

/// TURN credentials for the user of the token.
#[utoipa::path(
    get, path = "/auth/turn-credentials", tag = "TURN", security(("token" = [])),
    responses(
        TokenErrors,
        (status = 200, description = "TURN credentials", body = TurnBody),
        (status = 503, description = "This server has no TURN server", body = ErrorBody),
    )
)]
async fn turn_credentials(
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
    responses(TokenErrors, (status = 200, description = "Servers with credentials", body = IceServersBody))
)]
async fn ice_servers(State(app): State<AppState>, CurrentUser(account): CurrentUser) -> Response {
    let (ice_servers, ttl) = app.ice_servers(Some(&account.username));
    let body = IceServersBody { ice_servers, ttl: ttl.as_secs() };
    (NO_STORE, Json(body)).into_response()
}
