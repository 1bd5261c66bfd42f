//! Figures for Prometheus, among everything else or at an address of their own.

use std::sync::atomic::AtomicU64;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{Extension, Router, extract::State, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    encoding::EncodeGaugeValue,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use secrecy::{ExposeSecret, SecretString};

use super::{
    error::{ApiError, ErrorBody},
    extract::{Administrator, Bearer},
    layers::NO_STORE,
};
use crate::{
    app::AppState, process, rooms::ClusterCounts, server::ConnectionInfo, workers::Workers,
};

/// What Prometheus asks for, and what prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "General", security(("token" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "Not the bearer token of `METRICS_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `METRICS_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn metrics(
    State(app): State<AppState>,
    Extension(transport): Extension<ConnectionInfo>,
    bearer: Option<Bearer>,
) -> Result<impl IntoResponse, ApiError> {
    let known = app.config.metrics_token.as_ref().ok_or(ApiError::NotFound)?;
    check(known, bearer)?;
    render(app, transport.workers).await
}

/// The same for the administrator's page, also behind a proxy that hides `/metrics`.
#[utoipa::path(
    get, path = "/admin/api/metrics", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn for_administrators(
    State(app): State<AppState>,
    Extension(transport): Extension<ConnectionInfo>,
    _: Administrator,
) -> Result<impl IntoResponse, ApiError> {
    Ok((NO_STORE, render(app, transport.workers).await?))
}

/// `METRICS_LISTEN`: the same, and nothing else; without `METRICS_TOKEN` for whoever reaches it.
pub(super) fn metrics_router(app: &AppState) -> Router {
    let metrics = async |State(app): State<AppState>,
                         Extension(transport): Extension<ConnectionInfo>,
                         bearer: Option<Bearer>| {
        if let Some(known) = &app.config.metrics_token {
            check(known, bearer)?;
        }
        render(app, transport.workers).await
    };
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(app.clone())
}

/// Whether the `known` token is shown.
fn check(known: &SecretString, bearer: Option<Bearer>) -> Result<(), ApiError> {
    let Bearer(token) = bearer.ok_or(ApiError::NotAuthenticated)?;
    let (token, known) = (token.expose_secret().as_bytes(), known.expose_secret().as_bytes());
    verify_slices_are_equal(token, known).map_err(|_| ApiError::InvalidToken)
}

async fn render(app: AppState, workers: Workers) -> Result<impl IntoResponse, ApiError> {
    let cluster = match app.rooms.backend().counts().await.transpose() {
        None => Registry::default(),
        Some(counts) => cluster_metrics(counts.ok()),
    };
    // All rooms are looked at, and all open files counted: not on a thread that carries connections.
    let writing = tokio::task::spawn_blocking(move || {
        let relays = turn_metrics(&app);
        let now =
            [server_metrics(&app), cluster, relays, runtime_metrics(&workers), process::figures()];
        app.metrics.text(&now)
    });
    let text = writing.await.map_err(|error| ApiError::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}

/// What there is on this server, and is not counted: one line for each figure.
fn server_metrics(app: &AppState) -> Registry {
    let (mut now, (waiting, deepest)) = (own_registry(), app.rooms.queued_frames());
    gauge(&mut now, "connections", "Open WebSockets", app.sessions.len());
    gauge(
        &mut now,
        "strangers",
        "Those that have not shown a token yet",
        app.unauthenticated.in_use(),
    );
    gauge(&mut now, "members", "Members of all rooms", app.rooms.member_total());
    let help = "Members without a connection that may come back";
    gauge(&mut now, "members_away", help, app.detached_count());
    gauge(&mut now, "rooms", "Rooms with somebody in them", app.rooms.room_count());
    gauge(&mut now, "outbox_frames", "Frames that wait for members", waiting);
    let help = "Frames that wait for the member for whom most wait";
    gauge(&mut now, "outbox_deepest_frames", help, deepest);
    let help = "Logins whose password is being checked, or waits for it";
    gauge(&mut now, "hashing_queue", help, app.pending_logins());
    now
}

/// What is known of the whole cluster; without Redis only that it cannot be reached.
fn cluster_metrics(counts: Option<ClusterCounts>) -> Registry {
    let mut now = own_registry();
    let help = "Whether what several servers share can be reached";
    gauge(&mut now, "cluster_up", help, usize::from(counts.is_some()));
    if let Some(ClusterCounts { nodes, rooms, members }) = counts {
        gauge(&mut now, "cluster_nodes", "Servers that share rooms", nodes);
        gauge(&mut now, "cluster_rooms", "Rooms with somebody in them, on all servers", rooms);
        gauge(&mut now, "cluster_members", "Members of rooms, on all servers", members);
    }
    now
}

/// What the last trial of each TURN server has shown; by URL, of which the settings name a few.
fn turn_metrics(app: &AppState) -> Registry {
    let (mut now, seen) = (own_registry(), app.relays.seen());
    if seen.is_empty() {
        return now;
    }
    let up = Family::<[(&str, String); 1], Gauge>::default();
    let latency = Family::<[(&str, String); 1], Gauge<f64, AtomicU64>>::default();
    for relay in seen {
        let url = [("url", relay.url.clone())];
        up.get_or_create(&url).set(relay.verdict.is_up().into());
        if let Some(within) = relay.latency {
            latency.get_or_create(&url).set(within.as_secs_f64());
        }
    }
    let help = "Whether a TURN server gave an address to relay at when it was last tried";
    now.register("turn_up", help, up);
    let help = "How long it took to answer then";
    now.register_with_unit("turn_latency", help, Unit::Seconds, latency);
    now
}

/// How busy the threads are that carry connections.
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
    let help = "Time that a worker was not idle";
    now.register_with_unit("tokio_worker_busy", help, Unit::Seconds, busy);
    gauge(&mut now, "tokio_workers", "Threads that carry connections", count);
    gauge(&mut now, "tokio_alive_tasks", "Tasks on them", tasks);
    let help = "Tasks that were woken from another thread and wait for theirs";
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
