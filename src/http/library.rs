//! The JavaScript client, for pages that take it from the server that they talk to: versions always match.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::app::AppState;

/// A file that is part of this program.
struct File {
    content_type: &'static str,
    text: &'static str,
    etag: LazyLock<String>,
}

static MODULE: File = File {
    content_type: "text/javascript; charset=utf-8",
    text: include_str!("../../clients/js/dist/signaling.js"),
    etag: LazyLock::new(|| etag(MODULE.text)),
};
static MAP: File = File {
    content_type: "application/json",
    text: include_str!("../../clients/js/dist/signaling.js.map"),
    etag: LazyLock::new(|| etag(MAP.text)),
};

/// A browser may keep it for so long without asking; after that it asks by the `ETag`.
const CACHE_CONTROL_VALUE: HeaderValue = HeaderValue::from_static("public, max-age=3600");

pub(super) fn router() -> Router<AppState> {
    Router::new()
        .route("/client/signaling.js", get(async |headers: HeaderMap| serve(&MODULE, &headers)))
        .route("/client/signaling.js.map", get(async |headers: HeaderMap| serve(&MAP, &headers)))
}

fn etag(text: &str) -> String {
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes())))
}

/// RFC 9110 section 13.1.2.
fn serve(file: &'static File, request: &HeaderMap) -> Response {
    let etag = file.etag.as_str();
    let known = request.get_all(header::IF_NONE_MATCH).into_iter();
    let known = known.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let is_known = known
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag);
    let labels = [(header::CACHE_CONTROL, CACHE_CONTROL_VALUE), (header::ETAG, etag_value(etag))];
    if is_known {
        return (StatusCode::NOT_MODIFIED, labels).into_response();
    }
    (labels, [(header::CONTENT_TYPE, file.content_type)], file.text).into_response()
}

fn etag_value(etag: &str) -> HeaderValue {
    HeaderValue::from_str(etag).unwrap_or(HeaderValue::from_static("\"\""))
}
