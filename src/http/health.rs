//! Whether this server is alive, and what it does.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody};
use crate::app::AppState;

/// A sign of life.
#[derive(Serialize, ToSchema)]
pub(super) struct RootBody {
    #[schema(example = "WebRTC Signaling Server is running")]
    message: &'static str,
}

/// A sign of life with figures.
#[derive(Serialize, ToSchema)]
pub(super) struct HealthBody {
    #[schema(example = "healthy")]
    status: &'static str,
    /// Members of all rooms.
    active_connections: usize,
    /// Rooms with somebody in them.
    rooms: usize,
    version: &'static str,
    uptime_seconds: u64,
    /// Where several servers share rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterBody>,
}

/// What several servers share, as this one sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterBody {
    /// This server's name among them.
    node: String,
    /// `up`, or `down`: then nobody may enter a room, and who is in one goes on.
    #[schema(example = "up")]
    engine: &'static str,
    /// How many servers there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

/// Says that the server runs.
#[utoipa::path(get, path = "/", tag = "General", responses((status = 200, description = "It runs", body = RootBody)))]
pub(super) async fn root() -> Json<RootBody> {
    Json(RootBody { message: "WebRTC Signaling Server is running" })
}

/// How many are there, and since when.
#[utoipa::path(get, path = "/health", tag = "General", responses((status = 200, description = "It runs, with figures", body = HealthBody)))]
pub(super) async fn health(State(app): State<AppState>) -> Json<HealthBody> {
    let (active_connections, rooms) = (app.rooms.member_total(), app.rooms.room_count());
    let cluster = app.rooms.backend().status().await.map(|status| ClusterBody {
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

/// A sign of readiness.
#[derive(Serialize, ToSchema)]
pub(super) struct ReadyBody {
    #[schema(example = "ready")]
    status: &'static str,
}

/// Says whether it takes new connections: what a load balancer asks.
#[utoipa::path(
    get, path = "/health/ready", tag = "General",
    responses(
        (status = 200, description = "It takes traffic", body = ReadyBody),
        (status = 503, description = "It stops, or cannot reach what several servers share", body = ErrorBody),
    )
)]
pub(super) async fn ready(State(app): State<AppState>) -> Result<Json<ReadyBody>, ApiError> {
    if app.is_closing() {
        return Err(ApiError::Draining);
    }
    if !app.rooms.backend().is_up() {
        return Err(ApiError::ClusterAway);
    }
    Ok(Json(ReadyBody { status: "ready" }))
}
