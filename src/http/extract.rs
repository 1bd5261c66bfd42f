//! What handlers ask for: the fields of a body, and who sent a token.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    body::{Body, BodyDataStream},
    extract::{FromRequest, FromRequestParts, Multipart, OptionalFromRequestParts, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::error::{ApiError, FieldError};
use crate::{app::AppState, auth::users::Account, forwarded::Client};

/// The most a body may have, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of a body that is refused is read all the same, in bytes, and for how long.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The fields of a JSON object. No body is an object without any.
pub(super) struct JsonBody<T>(pub(super) T);

/// What can be read from a JSON object.
pub(super) trait DescribeBody: serde::de::DeserializeOwned {
    /// What it must look like, for whoever has sent another.
    const ACCEPTED: &str;

    /// That it looks otherwise.
    fn fault() -> ApiError {
        let msg = format!("Body should be {}", Self::ACCEPTED);
        ApiError::Invalid(vec![FieldError { kind: "value_error", loc: vec![json!("body")], msg }])
    }
}

impl<S: Send + Sync, T: DescribeBody> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        refuse_other_than_json(request.headers())?;
        let bytes = read(request.into_body()).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        json_object(bytes)?;
        // From the text, for a payload is to stay as it is.
        serde_json::from_slice(bytes).map(Self).map_err(|_| T::fault())
    }
}

/// A name and a password from a JSON object.
pub(super) struct JsonLogin(pub(super) Login);

/// A name and a password from a form: OAuth2's password grant (RFC 6749 section 4.3.2).
pub(super) struct FormLogin(pub(super) Login);

/// What somebody logs in with.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: SecretString,
}

impl<S: Send + Sync> FromRequest<S> for JsonLogin {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        refuse_other_than_json(request.headers())?;
        let fields = json_object(&read(request.into_body()).await?)?;
        Login::from_fields(fields, Vec::new()).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for FormLogin {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        refuse_encoded(request.headers())?;
        let fields = match media_type(request.headers()).as_deref() {
            Some("application/x-www-form-urlencoded") => {
                form_fields(&read(request.into_body()).await?)
            }
            // What `fetch` makes of a FormData.
            Some("multipart/form-data") => multipart_fields(request, state).await?,
            _ => {
                return Err(ApiError::UnsupportedType(
                    "application/x-www-form-urlencoded, multipart/form-data",
                ));
            }
        };
        let mut faults = Vec::new();
        if fields.get("grant_type").is_some_and(|kind| kind != "password") {
            let msg = "String should match pattern 'password'".to_owned();
            faults.push(FieldError {
                kind: "string_pattern_mismatch",
                loc: vec![json!("body"), json!("grant_type")],
                msg,
            });
        }
        Login::from_fields(fields, faults).map(Self)
    }
}

impl Login {
    /// The fields are taken, not copied: a password leaves nothing behind that is not wiped.
    fn from_fields(
        mut fields: Map<String, Value>,
        mut faults: Vec<FieldError>,
    ) -> Result<Self, ApiError> {
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => text,
            Some(_) => {
                let msg = "Input should be a valid string".to_owned();
                faults.push(FieldError {
                    kind: "string_type",
                    loc: vec![json!("body"), json!(name)],
                    msg,
                });
                String::new()
            }
            None => {
                faults.push(FieldError::missing(name));
                String::new()
            }
        };
        let (username, password) = (text("username"), text("password").into());
        if faults.is_empty() {
            Ok(Self { username, password })
        } else {
            Err(ApiError::Invalid(faults))
        }
    }
}

/// The body of a request, whole: every body is read before a handler is asked, so that its size and its
/// pace are looked at in one place. Wiped when it is dropped, for it may hold a password.
///
/// # Errors
///
/// [`ApiError::BodyTooLarge`], [`ApiError::BodyTooSlow`], and that it does not arrive at all.
pub(super) async fn body(body: Body, timeout: Duration) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    tokio::time::timeout(timeout, read(body)).await.unwrap_or(Err(ApiError::BodyTooSlow))
}

async fn read(body: Body) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), Zeroizing::new(Vec::new()));
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| ApiError::BadRequest("There was an error parsing the body"))?;
        if bytes.len() + chunk.len() > MAX_BODY_BYTES {
            discard(chunks).await;
            return Err(ApiError::BodyTooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads on for a moment before a refusal: hanging up on unread data resets the connection, and
/// the answer may be lost on the way.
pub(super) async fn discard(mut body: BodyDataStream) {
    let reading = async {
        let mut left = MAX_DISCARDED_BYTES;
        while left > 0
            && let Some(Ok(chunk)) = body.next().await
        {
            left = left.saturating_sub(chunk.len());
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

fn json_object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let whole_body = |kind, msg: &str| {
        ApiError::Invalid(vec![FieldError { kind, loc: vec![json!("body")], msg: msg.into() }])
    };
    if bytes.is_empty() {
        return Err(whole_body("missing", "Field required"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(whole_body(
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from",
        )),
        Err(error) => {
            let before: usize = bytes
                .split_inclusive(|&byte| byte == b'\n')
                .take(error.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            let at = before + error.column().saturating_sub(1);
            Err(ApiError::Invalid(vec![FieldError {
                kind: "json_invalid",
                loc: vec![json!("body"), json!(at)],
                msg: "JSON decode error".into(),
            }]))
        }
    }
}

/// The fields of a form; an empty one counts as missing, as it does for FastAPI.
fn form_fields(bytes: &[u8]) -> Map<String, Value> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(bytes).unwrap_or_default();
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name, value.into()))
        .collect()
}

async fn multipart_fields<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Map<String, Value>, ApiError> {
    let malformed = |_| ApiError::BadRequest("There was an error parsing the body");
    let mut form = Multipart::from_request(request, state)
        .await
        .map_err(|_| ApiError::BadRequest("Missing boundary in multipart."))?;
    let mut fields = Map::new();
    while let Some(field) = form.next_field().await.map_err(malformed)? {
        let name = field.name().unwrap_or_default().to_owned();
        let value = field.text().await.map_err(malformed)?;
        if !value.is_empty() {
            fields.insert(name, value.into());
        }
    }
    Ok(fields)
}

/// No content type at all is taken for JSON, as FastAPI does.
fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), ApiError> {
    refuse_encoded(headers)?;
    let is_json = |kind: String| {
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    };
    if media_type(headers).is_none_or(is_json) {
        return Ok(());
    }
    Err(ApiError::UnsupportedType("application/json"))
}

/// A compressed body (RFC 9110 section 8.4) is none that we read: its size says nothing.
fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(ApiError::UnsupportedEncoding)
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whoever a request's bearer token stands for (RFC 6750 section 2.1).
pub(super) struct CurrentUser(pub(super) Account);

impl FromRequestParts<AppState> for CurrentUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let Bearer(token) = bearer(&parts.headers)?.ok_or(ApiError::NotAuthenticated)?;
        let (account, _claims) = app.identify(token.expose_secret())?;
        Ok(Self(account))
    }
}

/// Whoever has `ADMIN_TOKEN`. Without such a setting there is nothing here.
pub(super) struct Administrator;

impl FromRequestParts<AppState> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        administrator(app, &parts.headers).inspect_err(|why| {
            if let (ApiError::InvalidToken, Some(client)) = (why, parts.extensions.get::<Client>())
            {
                tracing::warn!(address = %client.address, "bad admin token");
            }
        })
    }
}

/// Whether a request with these headers is an administrator's.
///
/// # Errors
///
/// [`ApiError::NotFound`] where there are none, and those of a token.
pub(super) fn administrator(
    app: &AppState,
    headers: &HeaderMap,
) -> Result<Administrator, ApiError> {
    let known = app.config.admin_token.as_ref().ok_or(ApiError::NotFound)?;
    let Bearer(token) = bearer(headers)?.ok_or(ApiError::NotAuthenticated)?;
    let (token, known) = (token.expose_secret().as_bytes(), known.expose_secret().as_bytes());
    verify_slices_are_equal(token, known).map_err(|_| ApiError::InvalidToken)?;
    Ok(Administrator)
}

/// A bearer token that nobody has looked at yet.
pub(super) struct Bearer(pub(super) SecretString);

impl OptionalFromRequestParts<AppState> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Option<Self>, ApiError> {
        bearer(&parts.headers)
    }
}

/// The token of an `Authorization` header; the scheme is spelled in any case (RFC 9110 section 11.1).
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
