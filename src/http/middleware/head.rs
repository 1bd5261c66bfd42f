//! Rejects a request whose head is ambiguous or too long.

use axum::{
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{http::error::ApiError, net::MAX_HEAD_BYTES};

/// Refuses a request whose head could mean one thing to a proxy and another to us (RFC 9112 sections
/// 3.2 and 6.1), or that is too long.
pub(in crate::http) async fn check_head(request: Request, next: Next) -> Response {
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
