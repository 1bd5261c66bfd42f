//! Mints tokens for users of the application.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::audit::audit;
use crate::{
    auth::access_token::{MintError, MintRequest},
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, FieldError},
        extract::{
            body::{DescribeBody, JsonBody},
            token::Administrator,
        },
        responses::{AdminErrors, BodyErrors, NO_STORE},
    },
    moderation::Subject,
    state::AppState,
};

/// The longest lifetime, in seconds: a year.
const MAX_LIFETIME: u64 = 365 * 86_400;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(mint))
}

/// The token to mint.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Mint {
    /// The user.
    username: String,
    /// The rooms that it may join, or beginnings of their names with `*`. Default: all.
    rooms: Option<Vec<String>>,
    /// `join`, `send`, `broadcast`, `moderate`. Default: the first three.
    can: Option<Vec<String>>,
    /// `all` or `relay`. Default: `all`.
    ice: Option<String>,
    /// The display name that the members of a room see, of 1 to 64 characters.
    name: Option<String>,
    /// How long it is valid. Default: as a login.
    #[schema(minimum = 1, maximum = 31_536_000)]
    seconds: Option<u64>,
}

impl DescribeBody for Mint {
    const ACCEPTED: &str = "an object with \"username\", and perhaps \"rooms\", \"can\" (lists of strings), \"ice\", \"name\" and \"seconds\" (1 to 31536000)";
}

/// An access token for a user.
#[derive(Serialize, ToSchema)]
struct MintedBody {
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
}

/// Mints an access token for a user, who needs an account unless `USERS_REQUIRED=false`.
#[utoipa::path(
    post, path = "/admin/api/tokens", tag = "Administration", security(("admin" = [])),
    request_body = Mint,
    responses(
        AdminErrors, BodyErrors,
        (status = 200, description = "The token", body = MintedBody),
    )
)]
async fn mint(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    JsonBody(Mint { username, rooms, can, ice, name, seconds }): JsonBody<Mint>,
) -> Result<Response, ApiError> {
    if seconds.is_some_and(|seconds| !(1..=MAX_LIFETIME).contains(&seconds)) {
        return Err(Mint::fault());
    }
    let fields = [
        ("rooms", rooms.map(Value::from)),
        ("can", can.map(Value::from)),
        ("ice", ice.map(Value::from)),
        ("name", name.map(Value::from)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let signaling = Some(fields.collect::<Map<_, _>>()).filter(|fields| !fields.is_empty());
    audit(&client, "mint token", None, Some(&Subject::Username(username.clone())), seconds);
    let request = MintRequest {
        username,
        lifetime: seconds.map(Duration::from_secs),
        signaling: signaling.map(Value::Object),
    };
    let issued = app.mint(&request).map_err(|error| match error {
        MintError::Refused(_) => {
            let msg = error.to_string();
            ApiError::Invalid(vec![FieldError {
                kind: "value_error",
                loc: vec![json!("body")],
                msg,
            }])
        }
        MintError::Signing(cause) => ApiError::from(cause),
    })?;
    let body = MintedBody {
        access_token: issued.token.expose_secret().to_owned(),
        token_type: "bearer",
        expires_in: issued.lifetime.as_secs(),
    };
    Ok((NO_STORE, Json(body)).into_response())
}
