//! Rooms, their members and their timelines, for administrators.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{room_id::RoomId, rule_body::RuleBody};
use crate::{
    client_ip::ClientEndpoint,
    clock::{unix_now, unix_now_ms},
    http::{
        error::{ApiError, ErrorBody, InvalidBody},
        extract::token::Administrator,
        list::{ListQuery, complete_list},
        responses::{AdminErrors, ClusterErrors, NO_STORE},
    },
    rooms::MemberSnapshot,
    state::{AppState, ListAudience},
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_rooms))
        .routes(routes!(list_closed_rooms))
        .routes(routes!(get_room))
        .routes(routes!(get_timeline))
}

/// A room.
#[derive(Serialize, ToSchema)]
struct ManagedRoomBody {
    room_id: String,
    connected_users: usize,
    /// How many members it may have.
    capacity: usize,
    is_locked: bool,
}

/// A room and its members.
#[derive(Serialize, ToSchema)]
struct WholeRoomBody {
    #[serde(flatten)]
    room: ManagedRoomBody,
    members: Vec<MemberBody>,
    /// Active bans, locks and capacities of this room, and active bans from all rooms.
    rules: Vec<RuleBody>,
}

/// A member of a room.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct MemberBody {
    pub(super) client_id: String,
    pub(super) username: String,
    /// The display name that its token gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The node that the member is on, where it is another one; that node knows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Whether the member is detached: its connection is lost, and it may resume.
    is_detached: bool,
    /// Seconds since the member joined on this node, or since this node knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    /// The address of its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Round-trip time of the last Ping, in milliseconds. Only an idle connection is sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    ping_rtt_ms: Option<f64>,
    /// The candidate type of its last call, as the client reported it: `host`, `srflx`, `relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'static str>,
}

impl From<MemberSnapshot> for MemberBody {
    fn from(snapshot: MemberSnapshot) -> Self {
        let MemberSnapshot { peer, node, is_detached, age, address, ping_rtt, path } = snapshot;
        Self {
            client_id: peer.client_id.to_string(),
            username: peer.username.to_string(),
            name: peer.name.map(|name| name.to_string()),
            node: node.map(|node| node.to_string()),
            is_detached,
            seconds: Some(age.as_secs()),
            address: address.map(|address| address.to_string()),
            ping_rtt_ms: ping_rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            path: path.map(|path| path.as_str()),
        }
    }
}

/// The rooms that have members: all of them, or a page with one of the parameters.
#[utoipa::path(
    get, path = "/admin/api/rooms", tag = "Administration", security(("admin" = [])),
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rooms in a page; 1000 where only another parameter is given"),
        ("after" = Option<String>, Query, description = "The page that follows this cursor, as the `Link` of the page before has it: by name, a `room_id`"),
        ("search" = Option<String>, Query, description = "Only rooms whose id contains this text, in any case"),
        ("sort" = Option<String>, Query, description = "`room_id` (default), or `connected_users`: most members first"),
    ),
    responses(
        AdminErrors,
        (status = 200, description = "Of all nodes. A page has `X-Total-Count`, and where another follows a `Link` to it (RFC 8288). A list of many rooms may be a second old", body = [ManagedRoomBody]),
        (status = 422, description = "`limit` is no number from 1 to 1000, or `sort` is no order", body = InvalidBody),
        (status = 503, description = "Redis (`REDIS_URL`) cannot be reached, or too many complete lists of very many rooms are being sent", body = ErrorBody),
    )
)]
async fn list_rooms(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    query: ListQuery,
) -> Result<Response, ApiError> {
    let shown = app.clone();
    let body = move |room: &Arc<str>, members| room_body(&shown, room.to_string(), members);
    let answer = if query.is_page() {
        let list = app.room_list().await?;
        // Off the workers, which serve calls: a search looks at all rooms.
        let answer = tokio::task::spawn_blocking(move || query.answer(&list, body)).await;
        answer.map_err(|error| ApiError::Internal(error.into()))?
    } else {
        complete_list(&app, client.address, ListAudience::Administrators, body).await?
    };
    Ok((NO_STORE, answer).into_response())
}

/// A closed room.
#[derive(Serialize, ToSchema)]
struct ClosedRoomBody {
    room_id: String,
    /// Seconds since its last member left.
    closed_for_seconds: u64,
}

/// Closed rooms whose timeline is still kept (`TIMELINE_SECONDS`).
#[utoipa::path(
    get, path = "/admin/api/closed", tag = "Administration", security(("admin" = [])),
    responses(AdminErrors, (status = 200, description = "Of this node, the last closed first", body = [ClosedRoomBody]))
)]
async fn list_closed_rooms(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    let closed = app.rooms.closed_rooms().into_iter().map(|(room, closed_for)| ClosedRoomBody {
        room_id: room.to_string(),
        closed_for_seconds: closed_for.as_secs(),
    });
    (NO_STORE, Json(closed.collect::<Vec<_>>()))
}

fn room_body(app: &AppState, room_id: String, connected_users: usize) -> ManagedRoomBody {
    let capacity = app.rooms.capacity_of(&room_id);
    let is_locked = app.moderation_rules.is_locked(&room_id, unix_now());
    ManagedRoomBody { room_id, connected_users, capacity, is_locked }
}

/// One room, its members, and its moderation rules.
#[utoipa::path(
    get, path = "/admin/api/rooms/{room_id}", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        AdminErrors, ClusterErrors,
        (status = 200, description = "The room; less is known of members on other nodes", body = WholeRoomBody),
        (status = 404, description = "The room has neither members nor rules, or `ADMIN_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn get_room(
    State(app): State<AppState>,
    _: Administrator,
    room: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let RoomId(room) = room.try_into()?;
    let members = members_of(&app, &room).await?;
    let mut rules = app.moderation_rules.active(unix_now());
    rules.retain(|rule| rule.about.room().is_none_or(|of| of == room));
    let has_rules = rules.iter().any(|rule| rule.about.room().is_some());
    if members.is_empty() && !has_rules {
        return Err(ApiError::RoomNotFound);
    }
    let room = room_body(&app, room, members.len());
    Ok((
        NO_STORE,
        Json(WholeRoomBody {
            room,
            members,
            rules: rules.into_iter().map(RuleBody::from).collect(),
        }),
    ))
}

/// The members of a room: as this node sees them, or as the cluster does where this node has none.
pub(super) async fn members_of(app: &AppState, room: &str) -> Result<Vec<MemberBody>, ApiError> {
    let local = app.rooms.member_snapshots(room);
    if !local.is_empty() {
        return Ok(local.into_iter().map(MemberBody::from).collect());
    }
    let mut members: Vec<_> = app
        .rooms
        .backend()
        .members(room)
        .await?
        .into_iter()
        .map(|record| MemberBody {
            client_id: record.peer.client_id.to_string(),
            username: record.peer.username.to_string(),
            name: record.peer.name.map(|name| name.to_string()),
            node: Some(record.connection.node.to_string()),
            ..MemberBody::default()
        })
        .collect();
    members.sort_by(|one, other| one.client_id.cmp(&other.client_id));
    Ok(members)
}

/// The events of a room, without the content of any message.
#[utoipa::path(
    get, path = "/admin/api/rooms/{room_id}/timeline", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        AdminErrors,
        (status = 200, description = "The events on this node, the oldest first", body = Object),
        (status = 404, description = "The room has no members, and had none within `TIMELINE_SECONDS`; or `ADMIN_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn get_timeline(
    State(app): State<AppState>,
    _: Administrator,
    room: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let RoomId(room) = room.try_into()?;
    let timeline = app.rooms.timeline(&room, unix_now_ms()).ok_or(ApiError::RoomNotFound)?;
    Ok((NO_STORE, Json(timeline)))
}
