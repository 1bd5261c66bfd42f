//! The doors: every URL on one page, and the layers around them (contract section 1).

mod admin;
mod admin_page;
mod auth;
mod client;
mod docs;
mod error;
mod examples;
mod extract;
mod health;
mod layers;
mod library;
mod metrics;
mod rooms;
mod turn;
mod ws;

use std::convert::Infallible;

use axum::{
    Router,
    extract::Request,
    middleware::{from_fn, from_fn_with_state},
    response::Response,
    routing::get,
};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_http::{catch_panic::CatchPanicLayer, normalize_path::NormalizePathLayer};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::AppState;
use error::ApiError;

/// A service that answers every request, for [`serve`](crate::server::serve).
pub type HttpService = BoxCloneSyncService<Request, Response, Infallible>;

/// Every URL of this server, with the layers that hold for all of them.
pub fn http_service(app: &AppState) -> HttpService {
    let layers = ServiceBuilder::new()
        .layer(from_fn(layers::add_request_id))
        .layer(layers::security_headers())
        .layer(CatchPanicLayer::custom(error::after_panic))
        .layer(from_fn_with_state(app.clone(), layers::cors))
        .layer(from_fn(layers::check_head))
        .layer(from_fn_with_state(app.clone(), client::identify_client))
        .layer(NormalizePathLayer::trim_trailing_slash())
        .layer(from_fn_with_state(app.clone(), layers::limit_requests));
    BoxCloneSyncService::new(
        layers.service(router(app)).map_response(axum::response::IntoResponse::into_response),
    )
}

/// What `METRICS_LISTEN` serves: figures, without limits and without HTTPS.
pub fn metrics_service(app: &AppState) -> HttpService {
    let layers = ServiceBuilder::new()
        .layer(from_fn(layers::add_request_id))
        .layer(layers::security_headers())
        .layer(CatchPanicLayer::custom(error::after_panic))
        .layer(from_fn(layers::check_head));
    BoxCloneSyncService::new(
        layers
            .service(metrics::metrics_router(app))
            .map_response(axum::response::IntoResponse::into_response),
    )
}

fn router(app: &AppState) -> Router {
    let (documented, spec) = api_router().split_for_parts();
    let mut router = documented.route("/ws/{room_id}", get(ws::upgrade)).merge(library::router());
    if app.config.admin_token.is_some() {
        router = router.merge(admin_page::router());
    }
    if app.config.api_docs {
        router = router.merge(docs::router(spec));
    }
    if app.config.debug {
        router = router.merge(examples::router());
    }
    router
        .route_layer(from_fn(layers::note_route))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(app.clone())
}

/// The routes that `/openapi.json` describes.
fn api_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::introduction())
        .routes(routes!(health::root))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(rooms::list))
        .routes(routes!(rooms::info, rooms::info_by_post))
        .routes(routes!(auth::login))
        .routes(routes!(auth::token))
        .routes(routes!(auth::me))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(turn::turn_credentials))
        .routes(routes!(turn::ice_servers))
        .routes(routes!(admin::status))
        .routes(routes!(metrics::for_administrators))
        .routes(routes!(admin::orders))
        .routes(routes!(admin::ban))
        .routes(routes!(admin::lift))
        .routes(routes!(admin::drain))
        .routes(routes!(admin::rooms))
        .routes(routes!(admin::past))
        .routes(routes!(admin::room))
        .routes(routes!(admin::timeline))
        .routes(routes!(admin::kick))
        .routes(routes!(admin::lock))
        .routes(routes!(admin::unlock))
        .routes(routes!(admin::close))
        .routes(routes!(admin::capacity))
        .routes(routes!(admin::say))
}
