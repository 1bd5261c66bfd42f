//! Metrics for Prometheus, on the port of the server or on `METRICS_LISTEN`.

use std::sync::atomic::AtomicU64;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{Extension, Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::EncodeGaugeValue,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use secrecy::{ExposeSecret, SecretString};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        error::{ApiError, ErrorBody},
        extract::token::{Administrator, Bearer},
        responses::{AdminErrors, NO_STORE},
    },
    memory::MemoryBudget,
    net::{ConnectionInfo, workers::Workers},
    rooms::ClusterCounts,
    state::AppState,
};

/// The format that Prometheus asks for and prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(admin_metrics))
}

/// Metrics for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "General", security(("token" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "The bearer token is not `METRICS_TOKEN`", body = ErrorBody),
        (status = 404, description = "`METRICS_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn metrics(
    State(app): State<AppState>,
    Extension(connection): Extension<ConnectionInfo>,
    bearer: Option<Bearer>,
) -> Result<impl IntoResponse, ApiError> {
    let known = app.config.telemetry.metrics_token.as_ref().ok_or(ApiError::NotFound)?;
    check_token(known, bearer)?;
    render(app, connection.workers).await
}

/// The same metrics for the admin page, also behind a proxy that hides `/metrics`.
#[utoipa::path(
    get, path = "/admin/api/metrics", tag = "Administration", security(("admin" = [])),
    responses(
        AdminErrors,
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
    )
)]
async fn admin_metrics(
    State(app): State<AppState>,
    Extension(connection): Extension<ConnectionInfo>,
    _: Administrator,
) -> Result<impl IntoResponse, ApiError> {
    Ok((NO_STORE, render(app, connection.workers).await?))
}

/// The router of `METRICS_LISTEN`: metrics only, and without `METRICS_TOKEN` for every client.
pub(in crate::http) fn metrics_router(app: &AppState) -> Router {
    let metrics = async |State(app): State<AppState>,
                         Extension(connection): Extension<ConnectionInfo>,
                         bearer: Option<Bearer>| {
        if let Some(known) = &app.config.telemetry.metrics_token {
            check_token(known, bearer)?;
        }
        render(app, connection.workers).await
    };
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(app.clone())
}

/// Checks that the request has the `known` token.
fn check_token(known: &SecretString, bearer: Option<Bearer>) -> Result<(), ApiError> {
    let Bearer(token) = bearer.ok_or(ApiError::NotAuthenticated)?;
    let (token, known) = (token.expose_secret().as_bytes(), known.expose_secret().as_bytes());
    verify_slices_are_equal(token, known).map_err(|_| ApiError::InvalidToken)
}

async fn render(app: AppState, workers: Workers) -> Result<impl IntoResponse, ApiError> {
    let cluster = match app.rooms.backend().counts() {
        None => Registry::default(),
        Some(counts) => cluster_metrics(counts.ok(), app.rooms.backend().repairs()),
    };
    // Reads all rooms and counts all open files: not on a thread that serves connections.
    let writing = tokio::task::spawn_blocking(move || {
        let relays = turn_metrics(&app);
        let now = [
            server_metrics(&app),
            cluster,
            relays,
            runtime_metrics(&workers),
            crate::metrics::process::collect(),
        ];
        app.metrics.encode(&now)
    });
    let text = writing.await.map_err(|error| ApiError::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}

/// Gauges of this server, read from the state when they are asked for.
fn server_metrics(app: &AppState) -> Registry {
    let (mut now, (waiting, deepest)) = (own_registry(), app.rooms.queued_frames());
    gauge(&mut now, "connections", "Open WebSockets", app.sessions.len());
    gauge(
        &mut now,
        "unauthenticated_connections",
        "WebSockets that have not authenticated yet",
        app.unauthenticated.in_use(),
    );
    gauge(&mut now, "members", "Members of all rooms", app.rooms.member_total());
    let help = "Detached members: their connection was lost, and they may resume";
    gauge(&mut now, "disconnected_members", help, app.detached_count());
    gauge(&mut now, "rooms", "Rooms that have members", app.rooms.room_count());
    gauge(&mut now, "send_queue_frames", "Frames in all send queues", waiting);
    let help = "Frames in the longest send queue";
    gauge(&mut now, "send_queue_longest_frames", help, deepest);
    let help = "Logins whose password is checked now or waits";
    gauge(&mut now, "hashing_queue", help, app.pending_logins());
    register_memory(&mut now, &app.memory);
    if let Some(age) = app.issuer_keys_age() {
        let help = "Time since the keys of the issuer of tokens were fetched";
        let age = ConstGauge::new(age.as_secs_f64());
        now.register_with_unit("issuer_keys_age", help, Unit::Seconds, age);
    }
    now
}

/// The memory budget, what is held of it by kind, and how many clients it has cost their connections.
fn register_memory(now: &mut Registry, memory: &MemoryBudget) {
    let help = "Memory that may be held for clients";
    now.register_with_unit(
        "memory_budget",
        help,
        Unit::Bytes,
        ConstGauge::new(memory.limit() as u64),
    );
    let held = Family::<[(&str, &str); 1], Gauge>::default();
    for (kind, bytes) in memory.held_by_kind() {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        held.get_or_create(&[("kind", kind.into())]).set(bytes);
    }
    now.register_with_unit("memory_held", "Memory held for clients, by kind", Unit::Bytes, held);
    let help = "Clients that were disconnected because too much memory was held";
    now.register("memory_shed_clients", help, ConstCounter::new(memory.shed_count()));
}

/// Gauges of the whole cluster; while Redis is down, only that it cannot be reached.
fn cluster_metrics(counts: Option<ClusterCounts>, repairs: Option<u64>) -> Registry {
    let mut now = own_registry();
    let help = "Whether Redis can be reached";
    gauge(&mut now, "cluster_up", help, usize::from(counts.is_some()));
    let help = "Rooms, members and counts that Redis had lost and got again";
    now.register("cluster_repairs", help, ConstCounter::new(repairs.unwrap_or(0)));
    if let Some(ClusterCounts { nodes, rooms, members }) = counts {
        gauge(&mut now, "cluster_nodes", "Nodes of the cluster", nodes);
        gauge(&mut now, "cluster_rooms", "Rooms that have members, on all nodes", rooms);
        gauge(&mut now, "cluster_members", "Members of rooms, on all nodes", members);
    }
    now
}

/// The result of the last probe of each TURN server, by URL; the settings name a few.
fn turn_metrics(app: &AppState) -> Registry {
    let (mut now, seen) = (own_registry(), app.turn_health.results());
    if seen.is_empty() {
        return now;
    }
    let up = Family::<[(&str, String); 1], Gauge>::default();
    let latency = Family::<[(&str, String); 1], Gauge<f64, AtomicU64>>::default();
    for relay in seen {
        let url = [("url", relay.url.clone())];
        up.get_or_create(&url).set(relay.outcome.is_up().into());
        if let Some(within) = relay.latency {
            latency.get_or_create(&url).set(within.as_secs_f64());
        }
    }
    let help = "Whether a TURN server gave a relayed address at the last probe";
    now.register("turn_up", help, up);
    let help = "Response time of a TURN server at the last probe";
    now.register_with_unit("turn_latency", help, Unit::Seconds, latency);
    now
}

/// How busy the workers are.
fn runtime_metrics(workers: &Workers) -> Registry {
    let mut now = own_registry();
    let busy = Family::<[(&str, String); 1], Counter<f64, AtomicU64>>::default();
    let (mut count, mut tasks, mut queued) = (0, 0, 0);
    for worker in workers.iter().map(|handle| handle.metrics()) {
        let labels = [("worker", count.to_string())];
        busy.get_or_create(&labels).inc_by(worker.worker_total_busy_duration(0).as_secs_f64());
        count += worker.num_workers();
        tasks += worker.num_alive_tasks();
        queued += worker.global_queue_depth();
    }
    let help = "Time that a worker was busy";
    now.register_with_unit("tokio_worker_busy", help, Unit::Seconds, busy);
    gauge(&mut now, "tokio_workers", "Worker threads", count);
    gauge(&mut now, "tokio_alive_tasks", "Tasks on the workers", tasks);
    let help = "Tasks that another thread woke and that wait for their worker";
    gauge(&mut now, "tokio_global_queue_depth", help, queued);
    now
}

fn own_registry() -> Registry {
    Registry::with_prefix("signaling")
}

fn gauge<N>(now: &mut Registry, name: &str, help: &str, figure: N)
where
    N: EncodeGaugeValue + std::fmt::Debug + Send + Sync + 'static,
{
    now.register(name, help, ConstGauge::new(figure));
}
