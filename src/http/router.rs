//! Every URL on one page, and the layers around the routes.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::get,
};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_http::{catch_panic::CatchPanicLayer, normalize_path::NormalizePathLayer};
use utoipa_axum::router::OpenApiRouter;

use super::{
    admin,
    error::{self, ApiError},
    middleware::{client, cors, head, rate_limit, request},
    routes::{
        auth, client_library, connection, docs, examples, health, metrics, rooms, turn, websocket,
    },
};
use crate::{net::HttpService, state::AppState};

/// Every URL of this server, and the layers around all of them.
pub fn http_service(app: &AppState) -> HttpService {
    let layers = ServiceBuilder::new()
        .layer(from_fn(request::add_request_id))
        .layer(request::security_headers())
        .layer(CatchPanicLayer::custom(error::after_panic))
        .layer(from_fn_with_state(app.clone(), cors::cors))
        .layer(from_fn(head::check_head))
        .layer(from_fn_with_state(app.clone(), client::identify_client))
        .layer(NormalizePathLayer::trim_trailing_slash())
        .layer(from_fn_with_state(app.clone(), rate_limit::limit_requests));
    BoxCloneSyncService::new(
        layers.service(router(app)).map_response(axum::response::IntoResponse::into_response),
    )
}

/// What `METRICS_LISTEN` serves: metrics, without rate limit and without HTTPS.
pub fn metrics_service(app: &AppState) -> HttpService {
    let layers = ServiceBuilder::new()
        .layer(from_fn(request::add_request_id))
        .layer(request::security_headers())
        .layer(CatchPanicLayer::custom(error::after_panic))
        .layer(from_fn(head::check_head));
    BoxCloneSyncService::new(
        layers
            .service(metrics::metrics_router(app))
            .map_response(axum::response::IntoResponse::into_response),
    )
}

fn router(app: &AppState) -> Router {
    let (documented, spec) = api_router().split_for_parts();
    let mut router = documented
        .route("/ws/{room_id}", get(websocket::upgrade))
        .merge(client_library::router())
        .merge(connection::router());
    if app.config.auth.admin_token.is_some() {
        router = router.merge(admin::page::router());
    }
    if app.config.process.api_docs {
        router = router.merge(docs::router(spec));
    }
    if app.config.process.debug {
        router = router.merge(examples::router());
    }
    router
        .route_layer(from_fn(request::record_route))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(app.clone())
}

/// The routes that `/openapi.json` describes.
fn api_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::introduction())
        .merge(health::router())
        .merge(metrics::router())
        .merge(rooms::router())
        .merge(auth::router())
        .merge(turn::router())
        .merge(admin::router())
}
