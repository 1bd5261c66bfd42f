//! A username and a password, from a JSON object or from a form.

use axum::extract::{FromRequest, Multipart, Request};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::body::{json_object, media_type, read, refuse_encoded, refuse_other_than_json};
use crate::http::error::{ApiError, FieldError};

/// The fields of a login; others are passed over.
const FIELDS: [&str; 3] = ["grant_type", "username", "password"];

/// A name and a password from a JSON object.
pub(in crate::http) struct JsonLogin(pub(in crate::http) Login);

/// A name and a password from a form: OAuth2's password grant (RFC 6749 section 4.3.2).
pub(in crate::http) struct FormLogin(pub(in crate::http) Login);

/// The username and the password of a login.
pub(in crate::http) struct Login {
    pub(in crate::http) username: String,
    pub(in crate::http) password: SecretString,
}

impl<S: Send + Sync> FromRequest<S> for JsonLogin {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        refuse_other_than_json(request.headers())?;
        let fields = json_object(&read(request.into_body()).await?, Some(&FIELDS))?;
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
            // What `fetch` sends for a FormData.
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
    /// Moves the fields out, so that no copy of a password is left that is not wiped.
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

/// The fields of a form; an empty field counts as missing, as in FastAPI.
fn form_fields(bytes: &[u8]) -> Map<String, Value> {
    form_urlencoded::parse(bytes)
        .filter(|(name, value)| FIELDS.contains(&&**name) && !value.is_empty())
        .map(|(name, value)| (name.into_owned(), value.into()))
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
        if FIELDS.contains(&&*name) && !value.is_empty() {
            fields.insert(name, value.into());
        }
    }
    Ok(fields)
}
