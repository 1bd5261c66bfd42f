//! CORS: which pages may read our answers (`CORS_ORIGINS`).

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::Response,
};
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

use super::{
    rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY},
    request::REQUEST_ID,
};
use crate::{config::Origins, http::list::TOTAL_COUNT, state::AppState};

/// How long a browser may cache the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Adds CORS headers by the settings in force.
///
/// With credentials, browsers ignore the wildcard, and tower-http panics on it: the origin is mirrored instead. That is
/// safe as long as no request is authenticated by a cookie.
pub(in crate::http) async fn cors(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let layer = cors_of(app.config.cors.allow_credentials, &app.settings().cors.origins);
    let Ok(response) = layer.layer(next).oneshot(request).await;
    response
}

fn cors_of(credentials: bool, origins: &Origins) -> CorsLayer {
    let origin = match origins {
        Origins::Any if credentials => AllowOrigin::mirror_request(),
        Origins::Any => Any.into(),
        Origins::These(origins) => AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_credentials(credentials)
        .allow_methods(AllowMethods::list([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::OPTIONS,
        ]))
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(PREFLIGHT_MAX_AGE)
        .expose_headers([
            header::RETRY_AFTER,
            header::LINK,
            TOTAL_COUNT,
            REQUEST_ID,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
        ])
}
