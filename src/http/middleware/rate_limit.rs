//! The limit on requests for each client address (`RATE_LIMIT_PER_MINUTE`), and the bound on every body.

use axum::{
    body::{Body, Bytes},
    extract::{Extension, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    forwarded::Client,
    http::{
        error::{ApiError, whole_seconds},
        extract::{
            body::{MAX_BODY_BYTES, discard, read_in_time},
            token::administrator,
        },
    },
    limits::RateDecision,
    metrics::Limit,
    state::AppState,
};

pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Holds each client address to `RATE_LIMIT_PER_MINUTE`, and every body to its size.
///
/// Not limited here: monitors, administrators, and sockets, which have limits of their own and whose refusal a
/// browser could not tell from a dead server.
pub(in crate::http) async fn limit_requests(
    State(app): State<AppState>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let path_is_socket = path.starts_with("/ws/");
    let free = path == "/health"
        || path.starts_with("/health/")
        || path == "/metrics"
        || path_is_socket
        || (path.starts_with("/admin/api/") && administrator(&app, request.headers()).is_ok());
    let allowance = if free { None } else { app.http_rate.check(client.address) };
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());

    let mut response = match allowance.and_then(|allowance| allowance.wait) {
        Some(wait) => {
            tracing::warn!(address = %client.address, "too many requests");
            app.metrics.limited(Limit::Requests);
            ApiError::TooManyRequests(wait).into_response()
        }
        None if declared.is_some_and(|length| length > MAX_BODY_BYTES as u64) => {
            // Whoever asks first whether to send it (RFC 9110 section 10.1.1) is spared the sending.
            if !request.headers().contains_key(header::EXPECT) {
                discard(request.into_body().into_data_stream()).await;
            }
            ApiError::BodyTooLarge.into_response()
        }
        // A WebSocket's handshake has no body, and its connection is not to be read here.
        None if path_is_socket => next.run(request).await,
        None => {
            let (head, arriving) = request.into_parts();
            match read_in_time(arriving).await {
                Ok(bytes) => {
                    let whole = Body::from(Bytes::from_owner(bytes));
                    next.run(Request::from_parts(head, whole)).await
                }
                Err(refusal) => refusal.into_response(),
            }
        }
    };
    if let Some(allowance) = allowance {
        describe(allowance, &mut response);
    }
    response
}

/// draft-ietf-httpapi-ratelimit-headers-10: what the bucket holds, what is left, and when it is full again.
fn describe(RateDecision { quota, remaining, wait }: RateDecision, response: &mut Response) {
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
