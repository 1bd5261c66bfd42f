//! Rejects a request whose head is ambiguous or too long.

use std::net::Ipv4Addr;

use axum::{
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::client::log_refused_handshake;
use crate::{
    http::error::ApiError,
    net::{ConnectionInfo, MAX_HEAD_BYTES},
};

/// Rejects a request whose head a proxy could read in another way than this server (RFC 9112 sections
/// 3.2 and 6.1), or that is too long.
pub(in crate::http) async fn check_head(request: Request, next: Next) -> Response {
    match head_error(&request) {
        None => next.run(request).await,
        Some(error) => {
            // Headers of proxies do not count in such a head.
            if let Some(connection) = request.extensions().get::<ConnectionInfo>() {
                let peer = connection.peer.ip().unwrap_or(Ipv4Addr::LOCALHOST.into());
                log_refused_handshake(&request, peer, "head");
            }
            error.into_response()
        }
    }
}

fn head_error(request: &Request) -> Option<ApiError> {
    let headers = request.headers();
    // A header line is a name, a colon, a space, a value and a line end.
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if lines.sum::<usize>() + request.uri().to_string().len() > MAX_HEAD_BYTES {
        return Some(ApiError::HeadTooLarge);
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some(ApiError::BadRequest("A request must have exactly one Host header"));
    }
    // Beside a Content-Length it takes precedence: hyper drops the length, and closes the connection after the response.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let known = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(known) || codings.next().is_some() {
        return Some(ApiError::BadRequest("The only accepted Transfer-Encoding is chunked"));
    }
    None
}
