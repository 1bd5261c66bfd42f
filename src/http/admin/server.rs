//! The state of this server, and how an administrator stops it.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::audit::audit;
use crate::{
    client_ip::ClientEndpoint,
    http::{
        error::ApiError,
        extract::token::Administrator,
        responses::{AdminErrors, NO_STORE},
    },
    rooms::Reach,
    state::AppState,
    telemetry,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(status)).routes(routes!(drain))
}

/// The state of this server.
#[derive(Serialize, ToSchema)]
struct StatusBody {
    version: &'static str,
    uptime_seconds: u64,
    /// Its name among the nodes of a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Whether Redis can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_cluster_up: Option<bool>,
    /// Whether the server refuses new connections and is about to stop.
    is_draining: bool,
    /// Open WebSockets on this server.
    connections: usize,
    /// Members of the rooms that this server knows.
    members: usize,
    rooms: usize,
    /// Warnings and errors of the log, the oldest first.
    recent: Vec<telemetry::RecentEvent>,
}

/// The state of this server, and its recent warnings.
#[utoipa::path(
    get, path = "/admin/api/status", tag = "Administration", security(("admin" = [])),
    responses(AdminErrors, (status = 200, description = "The state as this server sees it", body = StatusBody))
)]
async fn status(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    let body = StatusBody {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.started.elapsed().as_secs(),
        node: app.rooms.backend().node().map(ToString::to_string),
        is_cluster_up: app.rooms.backend().node().map(|_| app.rooms.backend().is_up()),
        is_draining: app.is_closing(),
        connections: app.sessions.len(),
        members: app.rooms.member_total(),
        rooms: app.rooms.room_count(),
        recent: telemetry::recent_events(),
    };
    (NO_STORE, Json(body))
}

/// The command that was carried out.
#[derive(Serialize, ToSchema)]
pub(super) struct DoneBody {
    #[schema(example = "unlock")]
    done: &'static str,
    /// In a cluster: on how many servers it has taken effect, this one among them. The answer waits a few seconds for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_on: Option<usize>,
    /// In a cluster: how many servers there are. Rules come into force on the others when they can be reached; a
    /// message is lost for their members.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

pub(super) fn done_response(
    done: &'static str,
    reach: Option<Reach>,
) -> Result<Response, ApiError> {
    let (applied_on, nodes) = (reach.map(|it| it.applied_on), reach.map(|it| it.nodes));
    let body = DoneBody { done, applied_on, nodes };
    Ok((NO_STORE, Json(body)).into_response())
}

/// Stops this server as a signal does: it refuses new connections, tells its clients when to reconnect (in a cluster
/// their memberships move to other nodes), and the process ends.
#[utoipa::path(
    post, path = "/admin/api/drain", tag = "Administration", security(("admin" = [])),
    responses(AdminErrors, (status = 200, description = "The server has begun to stop", body = DoneBody))
)]
async fn drain(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
) -> Result<Response, ApiError> {
    audit(&client, "drain", None, None, None);
    app.stop.cancel();
    done_response("drain", None)
}
