//! The administrator's page: files of ours that hold no secret. What it shows it asks the API for, with the token that
//! somebody gives it.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::layers::NO_STORE;
use crate::app::AppState;

/// Nothing from elsewhere, nothing inline, nothing that reads HTML from text. Forms are handled by the script.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// By path, with its type.
const FILES: [(&str, &str, &str); 6] = [
    ("/admin", "text/html; charset=utf-8", include_str!("admin_page/index.html")),
    ("/admin/style.css", "text/css; charset=utf-8", include_str!("admin_page/style.css")),
    ("/admin/page.mjs", SCRIPT, include_str!("admin_page/page.mjs")),
    ("/admin/draw.mjs", SCRIPT, include_str!("admin_page/draw.mjs")),
    ("/admin/figures.mjs", SCRIPT, include_str!("admin_page/figures.mjs")),
    ("/admin/story.mjs", SCRIPT, include_str!("admin_page/story.mjs")),
];

pub(super) fn router() -> Router<AppState> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(async move || serve(content_type, text)))
    })
}

fn serve(content_type: &'static str, text: &'static str) -> Response {
    let labels = [(header::CONTENT_TYPE, content_type)];
    // A page of the version before must not talk to this one.
    (NO_STORE, labels, [(header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}
