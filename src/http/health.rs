//! Whether this server is alive, and what it does.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{Json, extract::State, http::header, response::IntoResponse};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody},
    extract::{Administrator, Bearer},
    layers::NO_STORE,
};
use crate::{app::App, cluster::Counts};

/// What Prometheus asks for, and what prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
pub(super) async fn health(State(app): State<App>) -> Json<HealthBody> {
    let (active_connections, rooms) = (app.rooms.members(), app.rooms.rooms());
    let cluster = match &app.cluster {
        None => None,
        Some(cluster) => Some(ClusterBody {
            node: cluster.node().to_owned(),
            engine: if cluster.is_up() { "up" } else { "down" },
            nodes: cluster.nodes().await.ok(),
        }),
    };
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
pub(super) async fn ready(State(app): State<App>) -> Result<Json<ReadyBody>, ApiError> {
    if app.is_closing() {
        return Err(ApiError::Draining);
    }
    if app.cluster.as_ref().is_some_and(|cluster| !cluster.is_up()) {
        return Err(ApiError::ClusterAway);
    }
    Ok(Json(ReadyBody { status: "ready" }))
}

/// What is known of the whole cluster; without Redis only that it cannot be reached.
fn figures(counts: Option<Counts>) -> Vec<(&'static str, &'static str, usize)> {
    let mut figures = vec![(
        "cluster_up",
        "Whether what several servers share can be reached",
        usize::from(counts.is_some()),
    )];
    if let Some(Counts { nodes, rooms, members }) = counts {
        figures.push(("cluster_nodes", "Servers that share rooms", nodes));
        figures.push(("cluster_rooms", "Rooms with somebody in them, on all servers", rooms));
        figures.push(("cluster_members", "Members of rooms, on all servers", members));
    }
    figures
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "General", security(("token" = []), ("admin" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "Neither the bearer token of `METRICS_TOKEN` nor that of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is neither `METRICS_TOKEN` nor `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn metrics(
    State(app): State<App>,
    bearer: Option<Bearer>,
) -> Result<impl IntoResponse, ApiError> {
    let known = [&app.config.metrics_token, &app.config.admin_token];
    if known.iter().all(|known| known.is_none()) {
        return Err(ApiError::NotFound);
    }
    let Bearer(token) = bearer.ok_or(ApiError::NotAuthenticated)?;
    let opens = |known: &SecretString| {
        let (token, known) = (token.expose_secret().as_bytes(), known.expose_secret().as_bytes());
        verify_slices_are_equal(token, known).is_ok()
    };
    if !known.into_iter().flatten().any(opens) {
        return Err(ApiError::InvalidToken);
    }
    Ok(open_metrics(&app).await)
}

/// The same figures for the administrator's page, also behind a proxy that hides `/metrics`.
#[utoipa::path(
    get, path = "/admin/api/metrics", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn metrics_for_administrators(
    State(app): State<App>,
    _: Administrator,
) -> impl IntoResponse {
    (NO_STORE, open_metrics(&app).await)
}

async fn open_metrics(app: &App) -> impl IntoResponse + use<> {
    let (sockets, rooms) = (app.sessions.len(), &app.rooms);
    let cluster = match &app.cluster {
        None => Vec::new(),
        Some(cluster) => figures(cluster.counts().await.ok()),
    };
    let text = app.metrics.text(sockets, rooms.members(), rooms.rooms(), &cluster);
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text)
}
