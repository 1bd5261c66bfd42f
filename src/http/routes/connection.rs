//! `GET /health/connection`: how the server sees the connection of a request, for `signaling-server doctor --url`.

use axum::{Extension, Json, Router, extract::State, response::IntoResponse, routing::get};
use secrecy::ExposeSecret;
use serde::Serialize;

use crate::{
    auth::probe_token,
    client_ip::ClientEndpoint,
    clock::unix_now,
    http::{error::ApiError, extract::token::Bearer, responses::NO_STORE},
    net::{ConnectionInfo, PeerAddress},
    state::AppState,
};

/// Below `/health`, so that it answers also where a request is refused for lack of HTTPS.
pub(in crate::http) fn router() -> Router<AppState> {
    Router::new().route("/health/connection", get(connection))
}

/// How the server sees a connection.
#[derive(Serialize)]
struct ConnectionBody {
    /// The client's address, as far as trusted proxies report it.
    address: String,
    /// Whether the client used TLS, to this server or to a trusted proxy.
    https: bool,
    /// The other end of the connection; `unix` for the Unix socket.
    peer: String,
    /// Whether that is a trusted proxy.
    is_peer_trusted: bool,
    /// Whether a trusted proxy did not say whether the client used TLS.
    is_scheme_missing: bool,
    /// The TCP proxy that sent a PROXY header.
    tcp_proxy: Option<String>,
    /// Whether the request has `X-Forwarded-For`.
    has_forwarded_for: bool,
    /// Whether the request has `X-Forwarded-Proto`.
    has_forwarded_proto: bool,
}

/// Answers only `doctor` of the same installation: it shows the address of the proxy.
async fn connection(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    Extension(connection): Extension<ConnectionInfo>,
    bearer: Option<Bearer>,
    headers: axum::http::HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let Bearer(token) = bearer.ok_or(ApiError::NotAuthenticated)?;
    if !probe_token::is_valid(&app.config.auth.secret_key, token.expose_secret(), unix_now()) {
        return Err(ApiError::InvalidToken);
    }
    let trusted = &app.config.listen.trusted_proxies;
    let peer = connection.peer.ip();
    let body = ConnectionBody {
        address: client.address.to_string(),
        https: client.https,
        peer: match connection.peer {
            PeerAddress::Ip(address) => address.ip().to_canonical().to_string(),
            PeerAddress::UnixSocket => "unix".to_owned(),
        },
        is_peer_trusted: peer.is_none_or(|peer| trusted.iter().any(|net| net.contains(&peer))),
        is_scheme_missing: client.silent_proxy.is_some(),
        tcp_proxy: connection.tcp_proxy.map(|proxy| proxy.to_string()),
        has_forwarded_for: headers.contains_key("x-forwarded-for"),
        has_forwarded_proto: headers.contains_key("x-forwarded-proto"),
    };
    Ok((NO_STORE, Json(body)))
}
