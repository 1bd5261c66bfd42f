//! What holds for every URL: labels on the answer, CORS, and the limit on requests.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, Bytes},
    extract::{Extension, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use super::{
    error::{ApiError, whole_seconds},
    extract::{MAX_BODY_BYTES, administrator, body, discard},
};
use crate::{
    app::AppState,
    config::{Config, Origins},
    forwarded::Client,
    limits::RateDecision,
    metrics::Limit,
    server::MAX_HEAD_BYTES,
    traces::Whence,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// On every answer that holds a token or a credential.
pub(super) const NO_STORE: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// How long a browser may go without asking again what it may do.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// What a page may do that we never serve: nothing. Pages that we do serve bring their own policy.
const DENY_ALL_CSP: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What a request is called in the log, and in `X-Request-Id` on its answer.
#[derive(Clone, Copy)]
pub(super) struct RequestId(pub(super) Uuid);

/// Gives every answer its id and the security headers, and notes the request in the log.
pub(super) async fn label(mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4();
    // Neither query nor headers: tokens end up in both. Of the highest level, so that it is there
    // however quiet the log is.
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
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| {
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
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

/// Notes in the log and in the trace which of our URLs a request was for.
pub(super) async fn note_route(route: MatchedPath, request: Request, next: Next) -> Response {
    Span::current().record("route", route.as_str());
    next.run(request).await
}

/// Refuses a request whose head could mean one thing to a proxy and another to us (RFC 9112 sections
/// 3.2 and 6.1), or that is too long.
pub(super) async fn check_head(request: Request, next: Next) -> Response {
    match fault_in_head(&request) {
        None => next.run(request).await,
        Some(fault) => fault.into_response(),
    }
}

fn fault_in_head(request: &Request) -> Option<ApiError> {
    let headers = request.headers();
    // As each stands there: a name, a colon, a space, a value and a line end.
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if lines.sum::<usize>() + request.uri().to_string().len() > MAX_HEAD_BYTES {
        return Some(ApiError::HeadTooLarge);
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some(ApiError::BadRequest("A request has one Host header"));
    }
    // Beside a Content-Length it would win: hyper drops the length, and the connection after the answer.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let known = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(known) || codings.next().is_some() {
        return Some(ApiError::BadRequest("The only Transfer-Encoding known here is chunked"));
    }
    None
}

/// Which pages may read our answers.
///
/// With credentials the wildcard means nothing to a browser, and tower-http panics on it: the
/// origin is mirrored instead. That is harmless as long as nothing here is authenticated by a cookie.
pub(super) async fn cors(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(response) = cors_of(&app.settings()).layer(next).oneshot(request).await;
    response
}

fn cors_of(config: &Config) -> CorsLayer {
    let credentials = config.cors_allow_credentials;
    let origin = match &config.cors_origins {
        Origins::Any if credentials => AllowOrigin::mirror_request(),
        Origins::Any => Any.into(),
        Origins::These(origins) => AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_credentials(credentials)
        .allow_methods(AllowMethods::list([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::OPTIONS,
        ]))
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(PREFLIGHT_MAX_AGE)
        .expose_headers([header::RETRY_AFTER, REQUEST_ID, RATE_LIMIT, RATE_LIMIT_POLICY])
}

/// Holds each client address to `RATE_LIMIT_PER_MINUTE`, and every body to its size.
///
/// Not limited here: monitors, administrators, and sockets, which have limits of their own and whose refusal a
/// browser could not tell from a dead server.
pub(super) async fn limit_requests(
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
            match body(arriving, app.config.intervals.http.body).await {
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
