//! Request ids, security headers, and the span that logs a request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use crate::traces::Whence;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Denies everything to a page. Pages that the server does serve have policies of their own.
const DENY_ALL_CSP: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The id of a request in the log, and in `X-Request-Id` of its response.
#[derive(Clone, Copy)]
pub(in crate::http) struct RequestId(pub(in crate::http) Uuid);

/// Adds the request id and the security headers to every response, and logs the request.
pub(in crate::http) async fn add_request_id_and_headers(
    mut request: Request,
    next: Next,
) -> Response {
    let id = Uuid::new_v4();
    // Neither query nor headers: both may contain tokens. At the highest level, so that the span exists at any LOG_LEVEL.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        method = request.method().as_str(),
        path = request.uri().path(),
        route = Empty,
        address = Empty,
        status = Empty,
    );
    Whence::of(request.headers()).leads_to(&span);
    request.extensions_mut().insert(RequestId(id));
    #[expect(clippy::disallowed_methods, reason = "only for the log")]
    let start = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| {
        let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Span::current().record("status", response.status().as_u16());
        tracing::debug!(took_ms, "answered");
    });

    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    );
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(DENY_ALL_CSP);
    response
}

/// Records the route of a request in its span.
pub(in crate::http) async fn record_route(
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    Span::current().record("route", route.as_str());
    next.run(request).await
}
