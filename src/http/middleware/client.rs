//! Finds the client of each request, and enforces HTTPS (`REQUIRE_HTTPS`).

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    client_ip::ClientEndpoint, http::error::ApiError, net::ConnectionInfo, state::AppState,
};

/// Half a year, a common first step.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=15768000");

/// Adds the client of a request as an extension, and rejects or redirects a request that must come by HTTPS.
pub(in crate::http) async fn identify_client(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(connection) = request.extensions().get::<ConnectionInfo>() else {
        return ApiError::Internal("a request without its connection".into()).into_response();
    };
    let ConnectionInfo { peer, tls, .. } = connection;
    let client = ClientEndpoint::from_headers(
        request.headers(),
        peer.ip(),
        *tls,
        &app.config.listen.trusted_proxies,
    );
    tracing::Span::current().record("address", tracing::field::display(client.address));
    request.extensions_mut().insert(client);
    // With TLS on this port, plain HTTP on it is never intended.
    let required = app.config.listen.require_https || app.config.listen.tls.is_some();
    if required && !client.https && !is_exempt_from_https(request.uri().path()) {
        return redirect_to_https(&request, app.config.listen.tls.is_some());
    }
    let mut response = next.run(request).await;
    if client.https {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// The paths that load balancers and monitors request from inside, without TLS.
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
            // Behind a proxy the client cannot reach our port.
            let host = if on_this_port { host.as_str() } else { host.host() };
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let location = format!("https://{host}{path}");
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response()
        }
        _ => ApiError::HttpsRequired.into_response(),
    }
}
