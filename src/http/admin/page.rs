//! The admin page: files of the binary, without secrets. The page requests its data from the API, with the token that the
//! administrator enters.

use std::borrow::Cow;

use axum::{
    Extension, Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    http::{middleware::request::TrailingSlash, responses::NO_STORE},
    state::AppState,
};

/// Allows nothing from other servers, nothing inline, and no HTML from strings. The script handles forms.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page as the answer for `/admin`: its links are relative, so that a proxy may serve it below a path of its own.
const PAGE: &str = include_str!("page/index.html");

/// Path, content type, and content.
const FILES: [(&str, &str, &str); 14] = [
    ("/admin/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/admin/page.mjs", SCRIPT, include_str!("page/page.mjs")),
    ("/admin/actions.mjs", SCRIPT, include_str!("page/actions.mjs")),
    ("/admin/api.mjs", SCRIPT, include_str!("page/api.mjs")),
    ("/admin/diagnosis.mjs", SCRIPT, include_str!("page/diagnosis.mjs")),
    ("/admin/diagram.mjs", SCRIPT, include_str!("page/diagram.mjs")),
    ("/admin/dom.mjs", SCRIPT, include_str!("page/dom.mjs")),
    ("/admin/format.mjs", SCRIPT, include_str!("page/format.mjs")),
    ("/admin/metrics.mjs", SCRIPT, include_str!("page/metrics.mjs")),
    ("/admin/overview.mjs", SCRIPT, include_str!("page/overview.mjs")),
    ("/admin/plot.mjs", SCRIPT, include_str!("page/plot.mjs")),
    ("/admin/room.mjs", SCRIPT, include_str!("page/room.mjs")),
    ("/admin/rules.mjs", SCRIPT, include_str!("page/rules.mjs")),
    ("/admin/timeline.mjs", SCRIPT, include_str!("page/timeline.mjs")),
];

pub(in crate::http) fn router() -> Router<AppState> {
    let router = Router::new().route("/admin", get(serve_page));
    FILES.into_iter().fold(router, |router, (path, content_type, text)| {
        router.route(path, get(async move || serve(content_type, text)))
    })
}

/// Links are relative to the URL that the browser shows, where `/admin` and `/admin/` differ.
async fn serve_page(Extension(TrailingSlash(has_slash)): Extension<TrailingSlash>) -> Response {
    let page =
        if has_slash { Cow::Owned(PAGE.replace("=\"admin/", "=\"")) } else { Cow::Borrowed(PAGE) };
    serve("text/html; charset=utf-8", page)
}

fn serve(content_type: &'static str, text: impl IntoResponse) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type)];
    // A cached page of another version must not use this API.
    (NO_STORE, headers, [(header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}
