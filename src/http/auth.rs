//! From a password to a token, and to its end.

use axum::{
    Extension, Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody, GrantErrorBody, InvalidBody},
    extract::{Bearer, CurrentUser, FormLogin, JsonLogin},
    layers::NO_STORE,
};
use crate::{
    app::{AppState, IssuedToken},
    auth::users::Account,
    client_ip::ClientEndpoint,
};

/// What to log in with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) struct LoginRequest {
    #[schema(example = "admin")]
    username: String,
    #[schema(example = "admin123", format = "password")]
    password: String,
}

/// OAuth2's password grant.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
pub(super) struct TokenRequest {
    /// `password`, where it is given.
    #[schema(pattern = "^password$")]
    grant_type: Option<String>,
    username: String,
    #[schema(format = "password")]
    password: String,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenBody {
    /// The JWT, for `Authorization: Bearer …` and for `auth_token`.
    access_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds.
    #[schema(example = 1800)]
    expires_in: u64,
}

/// An account, as it is shown to its owner.
#[derive(Serialize, ToSchema)]
pub(super) struct UserBody {
    username: String,
    email: String,
    is_active: bool,
}

/// A sentence.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageBody {
    message: &'static str,
}

/// A username and a password become a token.
#[utoipa::path(
    post, path = "/auth/login", tag = "Authentication",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "A token", body = TokenBody),
        (status = 401, description = "Name or password is wrong", body = ErrorBody),
        (status = 413, description = "More than 64 KiB", body = ErrorBody),
        (status = 415, description = "Not JSON", body = ErrorBody),
        (status = 422, description = "A field is missing or of the wrong type", body = InvalidBody),
        (status = 503, description = "Too many logins are waiting", body = ErrorBody),
    )
)]
pub(super) async fn login(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    JsonLogin(login): JsonLogin,
) -> Result<Response, ApiError> {
    let issued = app.login(login.username, login.password, client.address).await?;
    Ok(token_answer(&issued))
}

/// The same for OAuth2 clients: the password grant, as a form.
#[utoipa::path(
    post, path = "/auth/token", tag = "Authentication",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "A token", body = TokenBody),
        (status = 400, description = "Not the multipart body that its header says", body = ErrorBody),
        (status = 401, description = "Name or password is wrong", body = GrantErrorBody),
        (status = 413, description = "More than 64 KiB", body = ErrorBody),
        (status = 415, description = "Not a form", body = ErrorBody),
        (status = 422, description = "A field is missing or of the wrong type", body = InvalidBody),
        (status = 503, description = "Too many logins are waiting", body = GrantErrorBody),
    )
)]
pub(super) async fn token(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    FormLogin(login): FormLogin,
) -> Response {
    match app.login(login.username, login.password, client.address).await.map_err(ApiError::from) {
        Ok(issued) => token_answer(&issued),
        Err(error) => {
            let body =
                GrantErrorBody { detail: error.to_string(), error: "invalid_grant".to_owned() };
            let plain = error.into_response();
            let (mut head, _) = plain.into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            (head.status, head.headers, Json(body)).into_response()
        }
    }
}

/// Whom the token stands for.
#[utoipa::path(
    get, path = "/auth/me", tag = "Authentication", security(("token" = [])),
    responses((status = 200, description = "The account", body = UserBody), (status = 401, description = "No token, or not a good one", body = ErrorBody))
)]
pub(super) async fn me(CurrentUser(account): CurrentUser) -> Json<UserBody> {
    let Account { username, email, is_active, .. } = account;
    Json(UserBody { username, email, is_active })
}

/// A new token; the old one stays good until it expires.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "Authentication", security(("token" = [])),
    responses((status = 200, description = "A token", body = TokenBody), (status = 401, description = "No token, or not a good one", body = ErrorBody))
)]
pub(super) async fn refresh(
    State(app): State<AppState>,
    CurrentUser(account): CurrentUser,
) -> Result<Response, ApiError> {
    Ok(token_answer(&app.issue(&account)?))
}

/// Ends the token that is presented, if one is, and the sockets that stand on it.
#[utoipa::path(
    post, path = "/auth/logout", tag = "Authentication", security((), ("token" = [])),
    responses((status = 200, description = "Also without a token, or with one that was not good", body = MessageBody))
)]
pub(super) async fn logout(
    State(app): State<AppState>,
    token: Option<Bearer>,
) -> Json<MessageBody> {
    if let Some(Bearer(token)) = token {
        app.log_out(token.expose_secret()).await;
    }
    Json(MessageBody { message: "Successfully logged out" })
}

fn token_answer(IssuedToken { token, lifetime }: &IssuedToken) -> Response {
    let body = TokenBody {
        access_token: token.expose_secret().to_owned(),
        token_type: "bearer",
        expires_in: lifetime.as_secs(),
    };
    (NO_STORE, Json(body)).into_response()
}
