//! The limit on requests for each client address (`RATE_LIMIT_PER_MINUTE`), and the bound on every body.

use axum::{
    body::{Body, Bytes},
    extract::{Extension, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use crate::{
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, whole_seconds},
        extract::{
            body::{MAX_BODY_BYTES, discard, read_in_time},
            token::administrator,
        },
    },
    limits::{RateDecision, RefusalKind, log_refusal},
    metrics::LimitKind,
    net::ConnectionInfo,
    state::AppState,
};

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Limits the requests of each client address, and the size of every body.
///
/// Not limited: monitors, administrators, and WebSockets, which have limits of their own and whose rejection a browser
/// could not tell from an unreachable server.
pub(in crate::http) async fn limit_requests(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    Extension(connection): Extension<ConnectionInfo>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_websocket = path.starts_with("/ws/");
    let is_exempt = path == "/health"
        || path.starts_with("/health/")
        || path == "/metrics"
        || is_websocket
        || path.starts_with("/admin/api/") && administrator(&app, request.headers()).is_ok();
    if !is_exempt && app.memory.is_exhausted() {
        app.metrics.record_limit(LimitKind::Memory);
        return ApiError::Overloaded.into_response();
    }
    let decision = if is_exempt { None } else { app.http_rate.check(client.address) };
    let declared_length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());

    let mut response = match decision.and_then(|decision| decision.wait) {
        Some(wait) => {
            log_refusal(RefusalKind::HttpRate, client.address, Instant::now());
            app.metrics.record_limit(LimitKind::Requests);
            ApiError::TooManyRequests(wait).into_response()
        }
        None if declared_length.is_some_and(|length| length > MAX_BODY_BYTES as u64) => {
            // A client that asks before it sends the body (RFC 9110 section 10.1.1) need not send it.
            if !request.headers().contains_key(header::EXPECT) {
                discard(request.into_body().into_data_stream()).await;
            }
            ApiError::BodyTooLarge.into_response()
        }
        // A WebSocket handshake has no body, and its connection must not be read here.
        None if is_websocket => next.run(request).await,
        None => {
            let (head, body) = request.into_parts();
            match read_in_time(body, app.config.intervals.http.body).await {
                Ok(bytes) => {
                    // What arrived in pieces has lost its turn.
                    if !bytes.is_empty() {
                        connection.turns.take().await;
                    }
                    let body = Body::from(Bytes::from_owner(bytes));
                    next.run(Request::from_parts(head, body)).await
                }
                Err(error) => error.into_response(),
            }
        }
    };
    if let Some(decision) = decision {
        add_rate_limit_headers(decision, &mut response);
    }
    response
}

/// The quota, what is left of it, and when the bucket is full again (draft-ietf-httpapi-ratelimit-headers-10).
fn add_rate_limit_headers(
    RateDecision { quota, remaining, wait }: RateDecision,
    response: &mut Response,
) {
    let until = match wait {
        Some(wait) => whole_seconds(wait),
        None => (u64::from(quota - remaining) * 60).div_ceil(u64::from(quota)),
    };
    let texts = [
        (RATE_LIMIT_POLICY, format!("\"default\";q={quota};w=60")),
        (RATE_LIMIT, format!("\"default\";r={remaining};t={until}")),
    ];
    for (name, text) in texts {
        if let Ok(text) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, text);
        }
    }
}
