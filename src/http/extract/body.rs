//! Request bodies: read within limits of size and time, and parsed as JSON.

use std::{fmt, time::Duration};

use axum::{
    body::{Body, BodyDataStream, Bytes, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
};
use futures_util::StreamExt;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::http::error::{ApiError, FieldError};

/// The largest body of a request, in bytes.
pub(in crate::http) const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of a rejected body is read all the same, in bytes, and for how long.
const MAX_DISCARDED_BYTES: usize = 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The fields of a JSON object. An empty body counts as an empty object.
pub(in crate::http) struct JsonBody<T>(pub(in crate::http) T);

/// A type that can be parsed from a JSON object.
pub(in crate::http) trait DescribeBody: serde::de::DeserializeOwned {
    /// What is accepted, as the end of a sentence for the client.
    const ACCEPTED: &str;

    /// The error for a body that is not accepted.
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
        let bytes = without_mark(&bytes);
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
        json_object(bytes, None)?;
        // From the text, since payloads are passed on byte for byte.
        serde_json::from_slice(bytes).map(Self).map_err(|_| T::fault())
    }
}

/// Reads the whole body of a request. A layer reads every body before its handler runs, so that size and
/// time are checked in one place. The memory is wiped when it is dropped, for a body may contain a password.
///
/// # Errors
///
/// [`ApiError::BodyTooLarge`], [`ApiError::BodyTooSlow`], and [`ApiError::BadRequest`] where it is cut off.
pub(in crate::http) async fn read_in_time(
    body: Body,
    timeout: Duration,
) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    tokio::time::timeout(timeout, read_all(body)).await.unwrap_or(Err(ApiError::BodyTooSlow))
}

async fn read_all(body: Body) -> Result<Zeroizing<Vec<u8>>, ApiError> {
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

/// The body of a request, which a layer has read already: it is not copied.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| ApiError::BodyTooLarge)
}

/// Reads on for a moment before a rejection: closing with unread data resets the connection, and the
/// response may be lost.
pub(in crate::http) async fn discard(mut body: BodyDataStream) {
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

/// Without a byte order mark, which a text may begin with (RFC 8259 section 8.1).
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The fields of a JSON object, or those that have one of `names`: others are read over, so that they cost little.
pub(super) fn json_object(
    bytes: &[u8],
    names: Option<&[&str]>,
) -> Result<Map<String, Value>, ApiError> {
    let bytes = without_mark(bytes);
    let whole_body = |kind, msg: &str| {
        ApiError::Invalid(vec![FieldError { kind, loc: vec![json!("body")], msg: msg.into() }])
    };
    if bytes.is_empty() {
        return Err(whole_body("missing", "Field required"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let fields = NamedFields(names).deserialize(&mut json).and_then(|fields| {
        json.end()?;
        Ok(fields)
    });
    // A value that is no object may be no JSON either.
    let fields = fields.map_err(|error| match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(_) if error.is_data() => None,
        Ok(_) => Some(error),
        Err(error) => Some(error),
    });
    fields.map_err(|error| match error {
        None => whole_body(
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from",
        ),
        Some(error) => {
            let before: usize = bytes
                .split_inclusive(|&byte| byte == b'\n')
                .take(error.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            let at = before + error.column().saturating_sub(1);
            ApiError::Invalid(vec![FieldError {
                kind: "json_invalid",
                loc: vec![json!("body"), json!(at)],
                msg: "JSON decode error".into(),
            }])
        }
    })
}

/// Reads the fields of an object, or those that have one of these names.
struct NamedFields<'a>(Option<&'a [&'a str]>);

impl<'de> DeserializeSeed<'de> for NamedFields<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NamedFields<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if self.0.is_none_or(|names| names.contains(&&*name)) {
                fields.insert(name, object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

/// A missing content type counts as JSON, as in FastAPI.
pub(super) fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), ApiError> {
    refuse_encoded(headers)?;
    let is_json = |kind: String| {
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    };
    if media_type(headers).is_none_or(is_json) {
        return Ok(());
    }
    Err(ApiError::UnsupportedType("application/json"))
}

/// Compressed bodies (RFC 9110 section 8.4) are not read: their size does not bound their content.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(ApiError::UnsupportedEncoding)
}

pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
