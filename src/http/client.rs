//! Every request gets to know its client, and is turned away where it should have come by HTTPS.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::{app::AppState, client_ip::ClientEndpoint, server::ConnectionInfo};

/// Half a year, as most who are careful start with.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=15768000");

/// Finds out who sent a request, and turns away what should have come by HTTPS.
pub(super) async fn identify_client(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(transport) = request.extensions().get::<ConnectionInfo>() else {
        return ApiError::Internal("a request without transport".into()).into_response();
    };
    let ConnectionInfo { peer, tls, .. } = transport;
    let client = ClientEndpoint::from_headers(
        request.headers(),
        peer.ip(),
        *tls,
        &app.config.trusted_proxies,
    );
    tracing::Span::current().record("address", tracing::field::display(client.address));
    request.extensions_mut().insert(client);
    // Whoever has TLS on this very port never means plain HTTP on it.
    let required = app.config.require_https || app.config.tls.is_some();
    if required && !client.https && !is_exempt_from_https(request.uri().path()) {
        return redirect_to_https(&request, app.config.tls.is_some());
    }
    let mut response = next.run(request).await;
    if client.https {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// What a load balancer or a monitor asks from inside, without TLS.
fn is_exempt_from_https(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    matches!(first, Some("health" | "metrics"))
}

fn redirect_to_https(request: &Request, on_this_port: bool) -> Response {
    let readable = request.method() == Method::GET || request.method() == Method::HEAD;
    let upgrade = request.uri().path().trim_start_matches('/').starts_with("ws/");
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match host {
        Some(host) if readable && !upgrade => {
            // Behind a proxy our port is none that the client could reach.
            let host = if on_this_port { host.as_str() } else { host.host() };
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let location = format!("https://{host}{path}");
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response()
        }
        _ => ApiError::HttpsRequired.into_response(),
    }
}
