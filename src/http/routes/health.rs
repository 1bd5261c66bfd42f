//! Whether this server is alive and ready.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Redirect, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::error::{ApiError, ErrorBody},
    state::AppState,
};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(root)).routes(routes!(health)).routes(routes!(ready))
}

/// The server runs.
#[derive(Serialize, ToSchema)]
struct RootBody {
    #[schema(example = "WebRTC Signaling Server is running")]
    message: &'static str,
}

/// The server runs, with counts.
#[derive(Serialize, ToSchema)]
struct HealthBody {
    #[schema(example = "healthy")]
    status: &'static str,
    /// Members of all rooms.
    active_connections: usize,
    /// Rooms that have members.
    rooms: usize,
    version: &'static str,
    uptime_seconds: u64,
    /// The cluster, where several nodes share rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterBody>,
}

/// The cluster as this node sees it.
#[derive(Serialize, ToSchema)]
struct ClusterBody {
    /// The name of this node.
    node: String,
    /// Whether Redis is `up` or `down`. While it is down no client can join a room, and members stay.
    #[schema(example = "up")]
    engine: &'static str,
    /// How many nodes there were at the last heartbeat of this one, while Redis is `up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

/// Says that the server runs. With `DEBUG`, a browser that opens this URL is sent to the examples.
#[utoipa::path(get, path = "/", tag = "General", responses((status = 200, description = "The server runs", body = RootBody)))]
async fn root(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if app.config.process.debug && accepted.is_some_and(|types| types.contains("text/html")) {
        return Redirect::temporary("/examples/").into_response();
    }
    Json(RootBody { message: "WebRTC Signaling Server is running" }).into_response()
}

/// Counts members and rooms, and says how long the server runs.
#[utoipa::path(get, path = "/health", tag = "General", responses((status = 200, description = "The server runs", body = HealthBody)))]
async fn health(State(app): State<AppState>) -> Json<HealthBody> {
    let (active_connections, rooms) = (app.rooms.member_total(), app.rooms.room_count());
    let cluster = app.rooms.backend().status().map(|status| ClusterBody {
        node: status.node.to_string(),
        engine: if status.is_up { "up" } else { "down" },
        nodes: status.nodes,
    });
    let is_whole = cluster.as_ref().is_none_or(|cluster| cluster.engine == "up");
    Json(HealthBody {
        status: if is_whole { "healthy" } else { "degraded" },
        active_connections,
        rooms,
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.started.elapsed().as_secs(),
        cluster,
    })
}

/// The server is ready.
#[derive(Serialize, ToSchema)]
struct ReadyBody {
    #[schema(example = "ready")]
    status: &'static str,
}

/// Says whether the server accepts new connections, for a load balancer.
#[utoipa::path(
    get, path = "/health/ready", tag = "General",
    responses(
        (status = 200, description = "The server accepts connections", body = ReadyBody),
        (status = 503, description = "The server is stopping, or cannot reach Redis", body = ErrorBody),
    )
)]
async fn ready(State(app): State<AppState>) -> Result<Json<ReadyBody>, ApiError> {
    if app.is_closing() {
        return Err(ApiError::Draining);
    }
    if !app.rooms.backend().is_up() {
        return Err(ApiError::ClusterUnavailable);
    }
    Ok(Json(ReadyBody { status: "ready" }))
}
