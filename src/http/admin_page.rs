//! Serves the administrator's page: static files without secrets. The page requests its data from the admin API, with
//! the token that the administrator enters.

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::layers::NO_STORE;
use crate::app::AppState;

/// No resources of other origins, no inline scripts or styles, and no HTML parsed from text. The script handles forms.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and text of each file.
const FILES: [(&str, &str, &str); 15] = [
    ("/admin", "text/html; charset=utf-8", include_str!("admin_page/index.html")),
    ("/admin/style.css", "text/css; charset=utf-8", include_str!("admin_page/style.css")),
    ("/admin/page.mjs", SCRIPT, include_str!("admin_page/page.mjs")),
    ("/admin/actions.mjs", SCRIPT, include_str!("admin_page/actions.mjs")),
    ("/admin/api.mjs", SCRIPT, include_str!("admin_page/api.mjs")),
    ("/admin/diagnosis.mjs", SCRIPT, include_str!("admin_page/diagnosis.mjs")),
    ("/admin/diagram.mjs", SCRIPT, include_str!("admin_page/diagram.mjs")),
    ("/admin/dom.mjs", SCRIPT, include_str!("admin_page/dom.mjs")),
    ("/admin/format.mjs", SCRIPT, include_str!("admin_page/format.mjs")),
    ("/admin/metrics.mjs", SCRIPT, include_str!("admin_page/metrics.mjs")),
    ("/admin/overview.mjs", SCRIPT, include_str!("admin_page/overview.mjs")),
    ("/admin/plot.mjs", SCRIPT, include_str!("admin_page/plot.mjs")),
    ("/admin/room.mjs", SCRIPT, include_str!("admin_page/room.mjs")),
    ("/admin/rules.mjs", SCRIPT, include_str!("admin_page/rules.mjs")),
    ("/admin/timeline.mjs", SCRIPT, include_str!("admin_page/timeline.mjs")),
];

pub(super) fn router() -> Router<AppState> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(async move || serve(content_type, text)))
    })
}

fn serve(content_type: &'static str, text: &'static str) -> Response {
    let labels = [(header::CONTENT_TYPE, content_type)];
    // A cached page of another version must not use this version's API.
    (NO_STORE, labels, [(header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}
