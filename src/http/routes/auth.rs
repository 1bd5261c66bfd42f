//! Logins, access tokens, and logouts.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::users::Account,
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, ErrorBody, GrantErrorBody},
        extract::{
            login::{FormLogin, JsonLogin},
            token::{Bearer, CurrentUser},
        },
        responses::{LoginErrors, NO_STORE, TokenErrors},
    },
    state::{AppState, IssuedToken, NotPersisted},
};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(token))
        .routes(routes!(me))
        .routes(routes!(refresh))
        .routes(routes!(logout))
}

/// A username and a password.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
struct LoginRequest {
    #[schema(example = "admin")]
    username: String,
    #[schema(example = "admin123", format = "password")]
    password: String,
}

/// OAuth2's password grant.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
struct TokenRequest {
    /// Optional; `password` is the only value.
    #[schema(pattern = "^password$")]
    grant_type: Option<String>,
    username: String,
    #[schema(format = "password")]
    password: String,
}

/// An access token.
#[derive(Serialize, ToSchema)]
struct TokenBody {
    /// The JWT, for `Authorization: Bearer …` and for `auth_token`.
    access_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 1800)]
    expires_in: u64,
}

/// An account, as its owner sees it.
#[derive(Serialize, ToSchema)]
struct UserBody {
    username: String,
    email: String,
    is_active: bool,
}

/// The client is logged out.
#[derive(Serialize, ToSchema)]
struct LogoutBody {
    #[schema(example = "Successfully logged out")]
    message: &'static str,
    /// Only where it is `false`: the logout could not be written to disk, and a restart of the server would undo it.
    #[serde(skip_serializing_if = "Option::is_none")]
    persisted: Option<bool>,
}

/// Logs in with a username and a password.
#[utoipa::path(
    post, path = "/auth/login", tag = "Authentication",
    request_body = LoginRequest,
    responses(LoginErrors, (status = 200, description = "An access token", body = TokenBody))
)]
async fn login(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    JsonLogin(login): JsonLogin,
) -> Result<Response, ApiError> {
    let issued = app.login(login.username, login.password, client.address).await?;
    Ok(token_response(&issued))
}

/// Logs in with an OAuth2 password grant, as a form.
#[utoipa::path(
    post, path = "/auth/token", tag = "Authentication",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        LoginErrors,
        (status = 200, description = "An access token", body = TokenBody),
        (status = 400, description = "The body is not the multipart form that `Content-Type` says", body = ErrorBody),
        (status = 401, description = "The username or the password is wrong", body = GrantErrorBody),
        (status = 415, description = "The body is not a form", body = ErrorBody),
        (status = 503, description = "Too many logins are waiting", body = GrantErrorBody),
    )
)]
async fn token(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    FormLogin(login): FormLogin,
) -> Response {
    match app.login(login.username, login.password, client.address).await.map_err(ApiError::from) {
        Ok(issued) => token_response(&issued),
        Err(error) => {
            let body =
                GrantErrorBody { detail: error.to_string(), error: "invalid_grant".to_owned() };
            let (mut head, _) = error.into_response().into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            (head.status, head.headers, Json(body)).into_response()
        }
    }
}

/// Returns the account of the token.
#[utoipa::path(
    get, path = "/auth/me", tag = "Authentication", security(("token" = [])),
    responses(TokenErrors, (status = 200, description = "The account", body = UserBody))
)]
async fn me(CurrentUser(account, _): CurrentUser) -> Json<UserBody> {
    let Account { username, email, is_active, .. } = account;
    Json(UserBody { username, email, is_active })
}

/// Returns a new access token; the old one stays valid until it expires.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "Authentication", security(("token" = [])),
    responses(
        TokenErrors,
        (status = 200, description = "An access token", body = TokenBody),
        (status = 403, description = "The token is no login: it is of another issuer, or has permissions", body = ErrorBody),
    )
)]
async fn refresh(
    State(app): State<AppState>,
    CurrentUser(account, claims): CurrentUser,
) -> Result<Response, ApiError> {
    // A login may do everything: a token that may not must not become one.
    if claims.is_from_issuer || account.is_foreign() || claims.permissions.is_some() {
        return Err(ApiError::ForeignToken);
    }
    Ok(token_response(&app.issue_in(&account, claims.family.as_deref())?))
}

/// How to log out.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct Logout {
    /// `true`: ends all tokens of the user, also those of other devices.
    all: bool,
}

/// Ends the access token of the request, if there is one, with those that it was refreshed from and to, and closes their
/// WebSockets.
#[utoipa::path(
    post, path = "/auth/logout", tag = "Authentication", security((), ("token" = [])),
    request_body(content = Option<Logout>, description = "Optional"),
    responses((status = 200, description = "Also without an access token, or with an invalid one", body = LogoutBody))
)]
async fn logout(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    token: Option<Bearer>,
    body: Bytes,
) -> Json<LogoutBody> {
    // Clients send all kinds of bodies here, which count for nothing.
    let Logout { all } = serde_json::from_slice(&body).unwrap_or_default();
    let persisted = match token {
        Some(Bearer(token)) => app.log_out(token.expose_secret(), client.address, all).await,
        None => Ok(()),
    };
    let persisted = persisted.err().map(|NotPersisted| false);
    Json(LogoutBody { message: "Successfully logged out", persisted })
}

fn token_response(IssuedToken { token, lifetime }: &IssuedToken) -> Response {
    let body = TokenBody {
        access_token: token.expose_secret().to_owned(),
        token_type: "bearer",
        expires_in: lifetime.as_secs(),
    };
    (NO_STORE, Json(body)).into_response()
}
