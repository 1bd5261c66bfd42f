//! The example pages, in `DEBUG` only: they are for a laptop.

use axum::{
    Router,
    extract::Path,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use super::error::ApiError;
use crate::app::AppState;

const PAGES: [(&str, &str); 3] = [
    ("simple_client.html", include_str!("../../examples/simple_client.html")),
    ("secure_client.html", include_str!("../../examples/secure_client.html")),
    ("turn_credentials_example.html", include_str!("../../examples/turn_credentials_example.html")),
];

/// Each page is one file, so its script and style are in it; the client library comes from this server, and the page
/// talks to whatever server one names.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src blob:; \
     connect-src http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn router() -> Router<AppState> {
    Router::new().route("/examples", get(list)).route("/examples/{page}", get(page))
}

async fn list() -> Response {
    let links =
        PAGES.iter().map(|(name, _)| format!("<li><a href=\"/examples/{name}\">{name}</a></li>"));
    serve(format!(
        "<!doctype html><title>Examples</title><link rel=\"icon\" href=\"data:,\"><ul>{}</ul>",
        links.collect::<String>()
    ))
}

async fn page(Path(page): Path<String>) -> Result<Response, ApiError> {
    let (_, text) = PAGES.iter().find(|(name, _)| *name == page).ok_or(ApiError::NotFound)?;
    Ok(serve((*text).to_owned()))
}

fn serve(page: String) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response()
}
