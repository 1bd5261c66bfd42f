//! `GET /ws/{room_id}`: from an HTTP request to a session.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Extension,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytestring::ByteString;
use hyper::upgrade::OnUpgrade;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    time::Instant,
};
use tracing::Span;
use uuid::Uuid;

use crate::{
    client_ip::ClientEndpoint,
    clock::{unix_now, unix_now_ms},
    delivery::ClientQueue,
    http::{
        error::ApiError,
        middleware::{client::log_refused_handshake, request::RequestId},
    },
    limits::{Permit, RefusalKind, count_refusal},
    memory::{Charge, MemoryHolder, MemoryKind},
    metrics::LimitKind,
    moderation::{EntryDenied, ModerationRefusal},
    net::{ConnectionInfo, Upgraded, stream_of, workers::Workers},
    protocol::{CloseReason, MessageLimits, ModerationRequest},
    rooms::{Peer, is_room_id},
    session::{
        self, AuthError, Authorized, Credentials, IceServerSet, SessionContext, SessionServices,
    },
    state::AppState,
    telemetry::TraceContext,
    websocket::{WebSocket, sec_websocket_accept},
};

/// How much of a refused `Origin` is logged and answered, in characters.
const MAX_SHOWN_ORIGIN: usize = 128;

/// What a WebSocket takes before it has shown a token, beside what has arrived of its first message: its task and its
/// handshake.
const UNAUTHENTICATED_BYTES: usize = 8 * 1024;

/// Checks the request, and upgrades its connection to a WebSocket.
pub(in crate::http) async fn upgrade(
    State(app): State<AppState>,
    Extension(client): Extension<ClientEndpoint>,
    Extension(connection): Extension<ConnectionInfo>,
    Extension(RequestId(id)): Extension<RequestId>,
    room: Result<Path<String>, PathRejection>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let room = room.ok().map(|Path(room)| room).filter(|room| is_room_id(room));
    let Some(room) = room else {
        log_refused_handshake(&request, client.address, "room_id");
        return Err(ApiError::BadRequest(
            "A room id has 1 to 128 characters, none of them a control character, and is not . or ..",
        ));
    };
    check_origin(&app, request.headers(), client.address)?;
    let accept_key = sec_websocket_accept(&request);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (Some(accept_key), Some(upgrade)) = (accept_key, upgrade) else {
        log_refused_handshake(&request, client.address, "no_handshake");
        return Err(ApiError::NotAHandshake);
    };
    let permit = app.unauthenticated.acquire(client.address).ok_or_else(|| {
        app.metrics.record_limit(LimitKind::UnauthenticatedConnections);
        ApiError::TooManyUnauthenticated
    })?;

    let handshake = session::handshake_span(id, &room, client.address);
    TraceContext::current().set_parent(&handshake);
    let socket = PendingSocket { address: client.address, request: id, room, handshake, permit };
    let sessions = app.sessions.clone();
    sessions.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                connection.slot.end_http();
                spawn_session(app, socket, upgraded, &connection.workers);
            }
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let headers = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept_key),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Refuses a page whose origin is not in `CORS_ORIGINS`. A browser always sends an `Origin`, and pages cannot change it;
/// some libraries for other clients send one of their own, such as the server's address.
fn check_origin(app: &AppState, headers: &HeaderMap, address: IpAddr) -> Result<(), ApiError> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let is_only = origins.next().is_none();
    if is_only && origin.to_str().is_ok_and(|origin| app.settings().cors.origins.allow(origin)) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(origin.as_bytes());
    let origin: String = text.chars().take(MAX_SHOWN_ORIGIN).collect();
    if let Some(count) = count_refusal(RefusalKind::Origin, address, Instant::now()) {
        tracing::warn!(origin, is_only, count, "origin refused");
    }
    Err(ApiError::OriginNotAllowed { origin: is_only.then_some(origin) })
}

/// A WebSocket before its session.
struct PendingSocket {
    address: IpAddr,
    /// The id of its request.
    request: Uuid,
    room: String,
    handshake: Span,
    /// Counts it as unauthenticated.
    permit: Permit,
}

/// Moves the connection to the worker of its room, where its session begins.
fn spawn_session(
    app: AppState,
    pending: PendingSocket,
    upgraded: hyper::upgrade::Upgraded,
    workers: &Workers,
) {
    let Some((mut stream, unread)) = stream_of(upgraded) else {
        return tracing::error!("upgraded connection has an unknown stream type");
    };
    let (worker, sessions) = (workers.of(&pending.room), app.sessions.clone());
    let beginning = async move {
        if let Err(error) = stream.move_to_current_runtime() {
            return tracing::warn!(%error, "cannot move a connection to its worker");
        }
        let memory = app.memory.holder();
        stream.begin_websocket(&memory);
        match stream {
            Upgraded::Plain(stream) => begin_session(app, pending, stream, unread, memory),
            Upgraded::Tls(stream) => begin_session(app, pending, stream, unread, memory),
        }
    };
    sessions.spawn_on(beginning, worker);
}

/// Runs a session on a stream that is no connection of [`net::serve`](crate::net::serve), as if it had been upgraded: for the
/// bench, which has more members than a process may have file descriptors. Returns whether there was a place for it.
pub fn serve_stream<S>(
    app: &AppState,
    workers: &Workers,
    room: &str,
    address: IpAddr,
    stream: S,
) -> bool
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(permit) = app.unauthenticated.acquire(address) else { return false };
    let request = Uuid::new_v4();
    let handshake = session::handshake_span(request, room, address);
    let pending = PendingSocket { address, request, room: room.to_owned(), handshake, permit };
    let (worker, sessions) = (workers.of(&pending.room), app.sessions.clone());
    let (app, memory) = (app.clone(), app.memory.holder());
    let beginning = async move { begin_session(app, pending, stream, Vec::new(), memory) };
    sessions.spawn_on(beginning, worker);
    true
}

/// Begins a session on this runtime, as a task that keeps nothing of its request. `unread` was read from the stream already;
/// `memory` counts what is held for the client.
fn begin_session<S>(
    app: AppState,
    pending: PendingSocket,
    stream: S,
    unread: Vec<u8>,
    memory: Arc<MemoryHolder>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let PendingSocket { address, request, room, handshake, permit } = pending;
    let (sessions, metrics) = (app.sessions.clone(), app.metrics.clone());
    let limits = app.session_limits();
    let max_message_bytes = limits.max_first_message_bytes();
    let mut socket = WebSocket::new(stream, unread, max_message_bytes, metrics.clone())
        .with_memory_holder(&memory);
    let mut held = memory.charge(MemoryKind::PartialFrames);
    let _ = held.set(UNAUTHENTICATED_BYTES);
    let is_full = app.memory.is_exhausted() || app.sockets.in_use() >= app.socket_capacity;
    // What is refused for that takes no place.
    let address_permit = if is_full { None } else { app.sockets.acquire(address) };
    let close_reason = app
        .check_room_open(&room)
        .or(is_full.then_some(CloseReason::Overloaded))
        .or(address_permit.is_none().then_some(CloseReason::TooManyConnections));
    if let Some(reason) = close_reason {
        if reason == CloseReason::TooManyConnections {
            metrics.record_limit(LimitKind::Sockets);
        }
        if reason == CloseReason::Overloaded {
            metrics.record_limit(LimitKind::Memory);
        }
        sessions.spawn(async move {
            session::reject(&mut socket, reason, address, handshake, &metrics).await;
            drop((permit, held, address_permit));
        });
        return;
    }
    let context = SessionContext {
        rooms: app.rooms.clone(),
        room: room.into(),
        request_id: request,
        address,
        limits,
        joins: app.joins.clone(),
        message_budgets: app.message_budgets.clone(),
        metrics,
        memory,
        resume_tokens: app.resume_tokens.clone(),
        snapshot: app.snapshot.clone(),
        closing: app.closing(),
        services: StateServices {
            app,
            address,
            unauthenticated: Mutex::new(Some(Box::new((permit, held)))),
            of_account: Mutex::new(None),
        },
    };
    // What it captures is held as long as a member stays.
    let handshake = Box::new(handshake);
    sessions.spawn(async move {
        let (_, detached) = session::run(&mut socket, &context, handshake).await;
        // A member without a connection holds no permit for one: this task ends.
        if let Some(member) = detached {
            context.services.app.keep_detached(member, context.address, &Handle::current());
        }
        drop(address_permit);
    });
}

/// The services for one connection. Drops what it has as an unauthenticated one once it is authorized.
struct StateServices {
    app: AppState,
    address: IpAddr,
    unauthenticated: Mutex<Option<Box<(Permit, Charge)>>>,
    /// Counts the connection for its account, once it is authorized.
    of_account: Mutex<Option<Permit<Arc<str>>>>,
}

impl StateServices {
    /// Counts the connection for its account, once. A resume is never refused: its membership counted before.
    fn count_for_account(&self, username: &Arc<str>, is_resume: bool) -> Result<(), AuthError> {
        let mut permit = self.of_account.lock().unwrap_or_else(PoisonError::into_inner);
        if permit.is_some() {
            return Ok(());
        }
        let sockets = &self.app.user_sockets;
        let acquired = match is_resume {
            true => Some(sockets.acquire_beyond_limit(username.clone())),
            false => sockets.acquire_for(username.clone()),
        };
        *permit = Some(acquired.ok_or_else(|| {
            self.app.metrics.record_limit(LimitKind::UserSockets);
            AuthError::TooManyConnections
        })?);
        Ok(())
    }
}

impl SessionServices for StateServices {
    fn authorize(
        &self,
        credentials: Credentials<'_>,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let is_resume = matches!(credentials, Credentials::ResumeToken(_));
        let authorized = self.app.authorize(credentials, self.address, queue)?;
        if authorized.claims.is_some() {
            self.count_for_account(&authorized.username, is_resume)?;
        }
        self.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(authorized)
    }

    fn needs_issuer_key(&self, token: &str) -> bool {
        self.app.needs_issuer_key(token, self.address)
    }

    async fn await_issuer_key(&self, token: &str) {
        self.app.await_issuer_key(token, self.address).await;
    }

    fn moderate(
        &self,
        room: &Arc<str>,
        moderator: &Arc<str>,
        request: &ModerationRequest<'_>,
        queue: ClientQueue,
        answer: ByteString,
        failure: ByteString,
    ) -> Result<(), ModerationRefusal> {
        let Some(rule) = self.app.moderate(room, moderator, request)? else {
            queue.push(answer, None);
            return Ok(());
        };
        // A session does not wait for the disk and for other nodes.
        let app = self.app.clone();
        tokio::spawn(async move {
            let kept = app.keep_rule(&rule).await;
            queue.push(if kept.is_ok() { answer } else { failure }, None);
        });
        Ok(())
    }

    fn ice_servers(&self, username: Option<&str>) -> IceServerSet {
        let (servers, ttl) = self.app.ice_servers(username);
        let expires = servers.iter().any(|server| server.credential.is_some());
        IceServerSet { servers, lifetime: expires.then_some(ttl) }
    }

    fn ice_version(&self) -> u64 {
        self.app.ice_version()
    }

    fn message_limits(&self) -> MessageLimits {
        self.app.message_limits()
    }

    fn check_entry(&self, room: &str, peer: &Peer) -> Option<EntryDenied> {
        self.app.moderation_rules.check_entry(room, &peer.username, &peer.client_id, unix_now())
    }

    fn is_muted(&self, room: &str, peer: &Peer) -> bool {
        let rules = &self.app.moderation_rules;
        // Every message asks.
        rules.has_mutes() && rules.is_muted(room, &peer.username, &peer.client_id, unix_now())
    }

    fn now(&self) -> u64 {
        unix_now_ms()
    }
}
