//! Who sent a bearer token: a user or an administrator.

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{
    auth::{access_token::Claims, users::Account},
    client_ip::ClientEndpoint,
    http::error::ApiError,
    limits::{RefusalKind, log_refusal},
    state::AppState,
};

/// The account and the claims that a request's bearer token authenticates (RFC 6750 section 2.1).
pub(in crate::http) struct CurrentUser(pub(in crate::http) Account, pub(in crate::http) Claims);

impl FromRequestParts<AppState> for CurrentUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let Bearer(token) = bearer(&parts.headers)?.ok_or(ApiError::NotAuthenticated)?;
        let token = token.expose_secret();
        let address = address_of(parts);
        if app.needs_issuer_key(token, address) {
            app.await_issuer_key(token, address).await;
        }
        let (account, claims) = app.identify(token, address)?;
        Ok(Self(account, claims))
    }
}

/// The client's address, which a layer has put into every request.
fn address_of(parts: &Parts) -> IpAddr {
    let client = parts.extensions.get::<ClientEndpoint>();
    client.map_or(Ipv4Addr::UNSPECIFIED.into(), |client| client.address)
}

/// A request with `ADMIN_TOKEN`. Where that is not set, the route does not exist.
pub(in crate::http) struct Administrator;

impl FromRequestParts<AppState> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        administrator(app, &parts.headers).inspect_err(|error| {
            if let (ApiError::InvalidToken, Some(client)) =
                (error, parts.extensions.get::<ClientEndpoint>())
            {
                log_refusal(RefusalKind::AdminToken, client.address, Instant::now());
            }
        })
    }
}

/// Checks that a request with these headers has `ADMIN_TOKEN`.
///
/// # Errors
///
/// [`ApiError::NotFound`] where `ADMIN_TOKEN` is not set, and the errors of a missing or invalid token.
pub(in crate::http) fn administrator(
    app: &AppState,
    headers: &HeaderMap,
) -> Result<Administrator, ApiError> {
    let known = app.config.auth.admin_token.as_ref().ok_or(ApiError::NotFound)?;
    let Bearer(token) = bearer(headers)?.ok_or(ApiError::NotAuthenticated)?;
    let (token, known) = (token.expose_secret().as_bytes(), known.expose_secret().as_bytes());
    verify_slices_are_equal(token, known).map_err(|_| ApiError::InvalidToken)?;
    Ok(Administrator)
}

/// A bearer token that is not verified yet.
pub(in crate::http) struct Bearer(pub(in crate::http) SecretString);

impl OptionalFromRequestParts<AppState> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Option<Self>, ApiError> {
        bearer(&parts.headers)
    }
}

/// The bearer token of an `Authorization` header; the scheme is case insensitive (RFC 9110 section 11.1).
fn bearer(headers: &HeaderMap) -> Result<Option<Bearer>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| ApiError::InvalidToken)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Ok(None);
    }
    Ok(Some(Bearer(token.into())))
}
