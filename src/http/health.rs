//! Whether this server is alive.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

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
}

/// Says that the server runs.
#[utoipa::path(get, path = "/", tag = "General", responses((status = 200, description = "It runs", body = RootBody)))]
pub(super) async fn root() -> Json<RootBody> {
    Json(RootBody { message: "WebRTC Signaling Server is running" })
}

/// How many are there, and since when.
#[utoipa::path(get, path = "/health", tag = "General", responses((status = 200, description = "It runs, with figures", body = HealthBody)))]
pub(super) async fn health(State(app): State<App>) -> Json<HealthBody> {
    let (active_connections, rooms) = app.rooms.read(|rooms| (rooms.members(), rooms.rooms()));
    Json(HealthBody {
        status: "healthy",
        active_connections,
        rooms,
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.started.elapsed().as_secs(),
    })
}
