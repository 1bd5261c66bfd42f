//! Finds the client of each request, and enforces HTTPS (`REQUIRE_HTTPS`).

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use crate::{
    client_ip::ClientEndpoint,
    http::error::{ApiError, SilentProxy},
    limits::{RefusalKind, log_refusal},
    net::ConnectionInfo,
    state::AppState,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

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
    let ConnectionInfo { peer, tls, tcp_proxy, .. } = connection;
    let tcp_proxy = *tcp_proxy;
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
        return refuse_plain_http(&request, client, tcp_proxy, app.config.listen.tls.is_some());
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

/// Names the mistake where a trusted proxy does not say whether its client used TLS; it may have, so a redirect could lead
/// to the same URL without end. Otherwise redirects what may be redirected.
fn refuse_plain_http(
    request: &Request,
    client: ClientEndpoint,
    tcp_proxy: Option<IpAddr>,
    has_tls: bool,
) -> Response {
    // With TLS on this port, a local client that is no proxy may come to it without TLS.
    let is_proxied = !has_tls || request.headers().contains_key(FORWARDED_FOR);
    let http_proxy = client.silent_proxy.filter(|_| is_proxied).map(SilentProxy::Http);
    let tcp_proxy = tcp_proxy.filter(|_| !has_tls).map(SilentProxy::Tcp);
    let Some(silent_proxy) = http_proxy.or(tcp_proxy) else {
        log_refused_handshake(request, client.address, "https_required");
        return redirect_to_https(request, has_tls);
    };
    match silent_proxy {
        SilentProxy::Http(proxy) => log_refusal(RefusalKind::SilentProxy, proxy, Instant::now()),
        SilentProxy::Tcp(proxy) => log_refusal(RefusalKind::SilentTcpProxy, proxy, Instant::now()),
    }
    ApiError::HttpsRequired { silent_proxy: Some(silent_proxy) }.into_response()
}

/// Logs that a request was refused, if it is for a WebSocket: many libraries do not show the answer to one.
pub(in crate::http) fn log_refused_handshake(
    request: &Request,
    client: IpAddr,
    reason: &'static str,
) {
    if is_for_websocket(request) {
        log_refusal(RefusalKind::Handshake(reason), client, Instant::now());
    }
}

fn is_for_websocket(request: &Request) -> bool {
    request.uri().path().trim_start_matches('/').starts_with("ws/")
}

fn redirect_to_https(request: &Request, on_this_port: bool) -> Response {
    let readable = request.method() == Method::GET || request.method() == Method::HEAD;
    let upgrade = is_for_websocket(request);
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
        _ => ApiError::HttpsRequired { silent_proxy: None }.into_response(),
    }
}
