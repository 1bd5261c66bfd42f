//! TURN credentials: as coturn's REST API names them, and as a browser's ICE servers.

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

/// TURN credentials that coturn's `use-auth-secret` accepts until the time in the username.
#[derive(Serialize, ToSchema)]
struct TurnBody {
    /// `<unix expiry>:<user>`
    #[schema(example = "1704067200:admin")]
    username: String,
    /// The HMAC-SHA1 of the username, in base64.
    credential: String,
    /// `turn:` and `turns:` URLs; servers that did not relay at the last probe come last.
    urls: Vec<String>,
    /// How long the credentials are valid, in seconds.
    ttl: u64,
}

/// ICE servers, ready for `new RTCPeerConnection(…)`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IceServersBody {
    ice_servers: Vec<IceServer>,
    /// How long the credentials are valid, in seconds.
    ttl: u64,
    /// `relay` where the token allows TURN servers only; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    ice_transport_policy: Option<&'static str>,
}

/// Issues TURN credentials for the user of the token.
#[utoipa::path(
    get, path = "/auth/turn-credentials", tag = "TURN", security(("token" = [])),
    responses(
        TokenErrors,
        (status = 200, description = "TURN credentials", body = TurnBody),
        (status = 503, description = "No TURN server is configured", body = ErrorBody),
    )
)]
async fn turn_credentials(
    State(app): State<AppState>,
    CurrentUser(account, _): CurrentUser,
) -> Result<Response, ApiError> {
    let (minted, urls, ttl) =
        app.turn_credentials(&account.username).map_err(|error| match error {
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

/// Lists the STUN and TURN servers for a browser; the list is empty where none is configured.
#[utoipa::path(
    get, path = "/auth/ice-servers", tag = "TURN", security(("token" = [])),
    responses(TokenErrors, (status = 200, description = "Servers with credentials", body = IceServersBody))
)]
async fn ice_servers(
    State(app): State<AppState>,
    CurrentUser(account, claims): CurrentUser,
) -> Response {
    let (ice_servers, ttl) = app.ice_servers(Some(&account.username));
    let policy = claims.is_relay_only().then_some("relay");
    let body = IceServersBody { ice_servers, ttl: ttl.as_secs(), ice_transport_policy: policy };
    (NO_STORE, Json(body)).into_response()
}
