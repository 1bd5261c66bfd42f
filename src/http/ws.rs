//! The door to a room: from an HTTP request to a session.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::{
    Extension,
    body::HttpBody,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::upgrade::OnUpgrade;
use sha1::{Digest, Sha1};
use tokio::runtime::Handle;
use tracing::Span;
use uuid::Uuid;

use super::{error::ApiError, layers::RequestId};
use crate::{
    app::AppState,
    client_ip::ClientEndpoint,
    clock::{unix_now, unix_now_ms},
    limits::Permit,
    metrics::LimitKind,
    moderation::EntryDenied,
    outbox::ClientQueue,
    rooms::{Peer, is_room_id},
    server::{ConnectionInfo, Upgraded, stream_of},
    session::{
        self, AuthError, Authorized, CloseReason, Credentials, IceServerSet, SessionContext,
        SessionServices, Socket,
    },
    telemetry::TraceContext,
    websocket::WebSocket,
    workers::Workers,
};

/// What a server adds to a client's key to show that it has understood (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `GET /ws/{room_id}`.
pub(super) async fn upgrade(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    Extension(transport): Extension<ConnectionInfo>,
    Extension(RequestId(id)): Extension<RequestId>,
    room: Result<Path<String>, PathRejection>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let room = room.ok().map(|Path(room)| room).filter(|room| is_room_id(room));
    let room = room.ok_or(ApiError::BadRequest(
        "A room id has 1 to 128 characters, none of them a control character",
    ))?;
    // A native client sends no `Origin`; a browser always sends one, and pages cannot change it.
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    if let Some(origin) = origins.next()
        && (origins.next().is_some()
            || !origin.to_str().is_ok_and(|origin| app.settings().cors_origins.allow(origin)))
    {
        return Err(ApiError::OriginNotAllowed);
    }
    let accept = accept(&request).ok_or(ApiError::NoWebSocket)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(ApiError::NoWebSocket)?;
    let stranger = app.unauthenticated.acquire(client.address).ok_or_else(|| {
        app.metrics.record_limit(LimitKind::UnauthenticatedConnections);
        ApiError::TooManyStrangers
    })?;

    let introduction = session::handshake_span(id, &room, client.address);
    TraceContext::current().set_parent(&introduction);
    let newcomer =
        PendingSocket { address: client.address, request: id, room, introduction, stranger };
    let sessions = app.sessions.clone();
    sessions.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                transport.line.mark_websocket();
                spawn_session(app, newcomer, upgraded, &transport.workers);
            }
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let headers = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// The answer to a handshake (RFC 6455 section 4.2.1), if the request is one.
fn accept(request: &Request) -> Option<String> {
    let headers = request.headers();
    let is_handshake = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket")
        && only(headers, header::SEC_WEBSOCKET_VERSION)? == "13";
    let has_body = request.body().size_hint().exact() != Some(0);
    let key = only(headers, header::SEC_WEBSOCKET_KEY)?;
    let is_key = BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    if !is_handshake || has_body || !is_key {
        return None;
    }
    Some(accept_key(key))
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
fn accept_key(key: &str) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// A header that is there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none())?.to_str().ok()
}

/// Whether a list header has this entry, in any case.
fn lists(headers: &HeaderMap, name: HeaderName, entry: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(entry))
}

/// Somebody at the door of a room.
struct PendingSocket {
    address: IpAddr,
    /// The id of the request that he came with.
    request: Uuid,
    room: String,
    introduction: Span,
    /// His place among those who have not shown a token yet.
    stranger: Permit,
}

/// Hands the connection to the worker of its room, as a task that holds nothing of how it came.
fn spawn_session(
    app: AppState,
    newcomer: PendingSocket,
    upgraded: hyper::upgrade::Upgraded,
    workers: &Workers,
) {
    let (longest, metrics) = (app.settings().max_message_bytes, app.metrics.clone());
    let Some((mut stream, unread)) = stream_of(upgraded) else {
        return tracing::error!("an upgraded connection is none of ours");
    };
    let (worker, sessions) = (workers.of(&newcomer.room), app.sessions.clone());
    let session = async move {
        if let Err(error) = stream.move_to_current_runtime() {
            return tracing::warn!(%error, "a connection could not be handed on");
        }
        match stream {
            Upgraded::Plain(stream) => {
                let socket = WebSocket::new(stream, unread, longest, metrics);
                run_session(app, newcomer, socket).await;
            }
            Upgraded::Tls(stream) => {
                let socket = WebSocket::new(stream, unread, longest, metrics);
                run_session(app, newcomer, socket).await;
            }
        }
    };
    sessions.spawn_on(session, worker);
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn holds its arguments twice, for as long as a member stays"
)]
fn run_session(
    app: AppState,
    newcomer: PendingSocket,
    mut socket: impl Socket,
) -> impl Future<Output = ()> + Send {
    async move {
        let PendingSocket { address, request, room, introduction, stranger } = newcomer;
        let counted = app.sockets.acquire(address);
        let turned_away = app
            .check_room_open(&room)
            .or(counted.is_none().then_some(CloseReason::TooManyConnections));
        if let Some(goodbye) = turned_away {
            if goodbye == CloseReason::TooManyConnections {
                app.metrics.record_limit(LimitKind::Sockets);
            }
            return session::reject(&mut socket, goodbye, introduction, &app.metrics).await;
        }
        let host = SessionContext {
            rooms: app.rooms.clone(),
            room: room.into(),
            request,
            address,
            limits: app.session_limits(),
            metrics: app.metrics.clone(),
            services: StateServices {
                app: app.clone(),
                address,
                stranger: Mutex::new(Some(stranger)),
            },
            resume_tokens: app.resume_tokens.clone(),
            snapshot: app.snapshot.clone(),
            closing: app.closing(),
        };
        let (_, parked) = session::run(&mut socket, &host, introduction).await;
        // Whoever has no connection takes no connection's place: this task ends.
        if let Some(parked) = parked {
            app.keep_detached(parked, address, &Handle::current());
        }
    }
}

/// The door for one connection: frees the stranger's place once somebody has come in.
struct StateServices {
    app: AppState,
    address: IpAddr,
    stranger: Mutex<Option<Permit>>,
}

impl SessionServices for StateServices {
    fn authorize(
        &self,
        claim: Credentials<'_>,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let admission = self.app.authorize(claim, self.address, outbox)?;
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(admission)
    }

    fn ice_servers(&self, username: Option<&str>) -> IceServerSet {
        let (servers, ttl) = self.app.ice_servers(username);
        let expires = servers.iter().any(|server| server.credential.is_some());
        IceServerSet { servers, lifetime: expires.then_some(ttl) }
    }

    fn ice_version(&self) -> u64 {
        self.app.ice_version()
    }

    fn check_entry(&self, room: &str, peer: &Peer) -> Option<EntryDenied> {
        self.app.moderation_rules.check_entry(room, &peer.username, &peer.client_id, unix_now())
    }

    fn now(&self) -> u64 {
        unix_now_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn the_accept_key_is_that_of_the_standard() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
