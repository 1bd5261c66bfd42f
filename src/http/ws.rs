//! The door to a room: from an HTTP request to a session.

use axum::{
    Extension,
    extract::{
        Path, State,
        rejection::PathRejection,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use tracing::Instrument;
use tungstenite::error::{Error as WsError, ProtocolError};

use super::error::ApiError;
use crate::{
    app::App,
    forwarded::Client,
    limits::Place,
    outbox::Outbox,
    rooms::is_room_id,
    server::Transport,
    session::{self, Admission, Broken, Claim, Goodbye, Host, Received, Refusal, Socket},
};

/// tungstenite fills a buffer of this size on every read, also when nothing is there: with its
/// default of 128 KiB that is a third of the work, and most of the memory, of an idle connection.
const READ_BUFFER: usize = 4096;

/// `GET /ws/{room_id}`.
pub(super) async fn enter(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Extension(transport): Extension<Transport>,
    room: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let room = room.ok().map(|Path(room)| room).filter(|room| is_room_id(room));
    let room = room.ok_or(ApiError::BadRequest(
        "A room id has 1 to 128 characters, none of them a control character",
    ))?;
    // A native client sends no `Origin`; a browser always does, and pages cannot change it.
    if let Some(origin) = headers.get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| app.config.cors_origins.allow(origin))
    {
        return Err(ApiError::OriginNotAllowed);
    }
    let upgrade = upgrade.map_err(no_web_socket)?;
    // RFC 6455 section 4.2.1: 16 bytes in base64. axum takes anything.
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if BASE64_STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(ApiError::NoWebSocket(StatusCode::BAD_REQUEST));
    }
    let stranger = app.strangers.take(client.address).ok_or(ApiError::TooManyStrangers)?;

    let largest = app.config.max_message_bytes;
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(largest)
        .max_frame_size(largest)
        .on_failed_upgrade(|error| tracing::debug!(%error, "upgrade failed"));
    let span = tracing::info_span!("socket", ?room, address = %client.address);
    Ok(upgrade.on_upgrade(move |socket| {
        transport.line.becomes_websocket();
        let sessions = app.sessions.clone();
        sessions.track_future(receive(app, client, room, socket, stranger).instrument(span))
    }))
}

fn no_web_socket(rejection: WebSocketUpgradeRejection) -> ApiError {
    // 426 would ask the client for an upgrade on a connection that cannot have one.
    let status = Some(rejection.status()).filter(|status| *status != StatusCode::UPGRADE_REQUIRED);
    ApiError::NoWebSocket(status.unwrap_or(StatusCode::BAD_REQUEST))
}

async fn receive(app: App, client: Client, room: String, socket: WebSocket, stranger: Place) {
    let mut socket = AxumSocket(socket);
    let counted = app.sockets.take(client.address);
    let turned_away =
        app.turned_away(&room).or(counted.is_none().then_some(Goodbye::TooManyConnections));
    if let Some(goodbye) = turned_away {
        tracing::warn!(?goodbye, "turned away");
        return session::refuse(&mut socket, goodbye).await;
    }
    let _counted: Option<Place> = counted;
    let host = Host {
        rooms: app.rooms.clone(),
        room: room.into(),
        rules: app.rules(),
        door: known_from_now_on(app.door(client.address), stranger),
        closing: app.closing(),
    };
    session::run(&mut socket, &host).await;
}

/// A door that frees the stranger's place once somebody has come in through it.
fn known_from_now_on(
    door: impl Fn(Claim<'_>, &Outbox) -> Result<Admission, Refusal> + Send + Sync,
    stranger: Place,
) -> impl Fn(Claim<'_>, &Outbox) -> Result<Admission, Refusal> + Send + Sync {
    let stranger = std::sync::Mutex::new(Some(stranger));
    move |claim, outbox| {
        let admission = door(claim, outbox)?;
        stranger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        Ok(admission)
    }
}

/// axum's WebSocket, as a session wants it.
struct AxumSocket(WebSocket);

impl Socket for AxumSocket {
    async fn receive(&mut self) -> Option<Received> {
        match self.0.recv().await? {
            Ok(Message::Text(text)) => Some(Received::Text(text)),
            Ok(Message::Binary(_)) => Some(Received::Binary),
            Ok(Message::Ping(_) | Message::Pong(_)) => Some(Received::Heartbeat),
            Ok(Message::Close(_)) => Some(Received::Close),
            Err(error) => fault(error),
        }
    }

    async fn send(&mut self, frame: Utf8Bytes) -> Result<(), Broken> {
        self.0.send(Message::Text(frame)).await.map_err(|_| Broken)
    }

    async fn ping(&mut self) -> Result<(), Broken> {
        self.0.send(Message::Ping(axum::body::Bytes::new())).await.map_err(|_| Broken)
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Broken> {
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        self.0.send(Message::Close(Some(frame))).await.map_err(|_| Broken)
    }
}

/// What broke: tungstenite reports it as an error and leaves it to us to say so to the client.
/// `None` when there is nobody left to say it to.
fn fault(error: axum::Error) -> Option<Received> {
    let error = *error.into_inner().downcast::<WsError>().ok()?;
    if matches!(error, WsError::Utf8(_)) {
        Some(Received::NotUtf8)
    } else if matches!(error, WsError::Capacity(_)) {
        Some(Received::TooBig)
    } else if matches!(error, WsError::Protocol(ref fault) if *fault != ProtocolError::ResetWithoutClosingHandshake)
    {
        Some(Received::Malformed)
    } else {
        None
    }
}
