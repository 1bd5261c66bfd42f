//! For administrators: who is where and what has happened, and what is to be done about it. Each act is a line in the log.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody, InvalidBody},
    extract::{Administrator, DescribeBody, JsonBody},
    layers::NO_STORE,
};
use crate::{
    app::AppState,
    auth::users_file::check_username,
    clock::{unix_now, unix_now_ms},
    forwarded::Client,
    moderation::{MAX_DURATION_SECONDS, ModerationRule, RuleKind, Subject},
    rooms::{MemberSnapshot, is_room_id},
    telemetry,
    wire::is_client_id,
};

/// The room of a path, which need not exist.
struct RoomId(String);

impl TryFrom<Result<Path<String>, PathRejection>> for RoomId {
    type Error = ApiError;

    fn try_from(path: Result<Path<String>, PathRejection>) -> Result<Self, ApiError> {
        let room = path.ok().map(|Path(room)| room).filter(|room| is_room_id(room));
        room.map(Self).ok_or(ApiError::RoomNotFound)
    }
}

/// How this server is.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusBody {
    version: &'static str,
    uptime_seconds: u64,
    /// Its name among the servers of a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Whether what they share can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_cluster_up: Option<bool>,
    /// It lets nobody in any more, and stops.
    is_draining: bool,
    /// Open WebSockets on this server.
    connections: usize,
    /// Members of the rooms that this server knows.
    members: usize,
    rooms: usize,
    /// Warnings and errors of the log, the oldest first.
    recent: Vec<telemetry::Line>,
}

/// How this server is, and what it has complained of.
#[utoipa::path(
    get, path = "/admin/api/status", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "As this server sees it", body = StatusBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn status(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    let backend = app.rooms.backend();
    let body = StatusBody {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: app.started.elapsed().as_secs(),
        node: backend.node().map(ToString::to_string),
        is_cluster_up: backend.node().map(|_| backend.is_up()),
        is_draining: app.is_closing(),
        connections: app.sessions.len(),
        members: app.rooms.member_total(),
        rooms: app.rooms.room_count(),
        recent: telemetry::recent(),
    };
    (NO_STORE, Json(body))
}

/// A room.
#[derive(Serialize, ToSchema)]
pub(super) struct ManagedRoomBody {
    room_id: String,
    connected_users: usize,
    /// How many it holds.
    capacity: usize,
    is_locked: bool,
}

/// A room and who is in it.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeRoomBody {
    #[serde(flatten)]
    room: ManagedRoomBody,
    members: Vec<MemberBody>,
    /// Bans, locks and capacities that stand for this room, and bans from all.
    #[schema(value_type = Vec<Object>)]
    orders: Vec<ModerationRule>,
}

/// A member of a room.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct MemberBody {
    client_id: String,
    username: String,
    /// The server that it is on, where that is another one; that one knows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Its connection is gone, and it may come back.
    is_away: bool,
    /// How long it has been on this server, or known to it, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<u64>,
    /// From where its connection comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// How long it took to answer the last Ping, in milliseconds. Only a silent connection is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    ping_rtt_ms: Option<f64>,
    /// By which way its last call went, as it said itself: `host`, `srflx`, `relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'static str>,
}

impl From<MemberSnapshot> for MemberBody {
    fn from(sitting: MemberSnapshot) -> Self {
        let MemberSnapshot { peer, node, is_detached: is_away, age, address, ping_rtt, path } =
            sitting;
        Self {
            client_id: peer.client_id.to_string(),
            username: peer.username.to_string(),
            node: node.map(|node| node.to_string()),
            is_away,
            seconds: Some(age.as_secs()),
            address: address.map(|address| address.to_string()),
            ping_rtt_ms: ping_rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            path: path.map(|path| path.as_str()),
        }
    }
}

/// All rooms with somebody in them.
#[utoipa::path(
    get, path = "/admin/api/rooms", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "By name, of all servers that share rooms", body = [ManagedRoomBody]),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows all rooms", body = ErrorBody),
    )
)]
pub(super) async fn rooms(
    State(app): State<AppState>,
    _: Administrator,
) -> Result<impl IntoResponse, ApiError> {
    let counted = app.rooms.backend().list(&app.rooms).await?.into_iter();
    let rooms = counted.map(|(room, members)| room_body(&app, room.to_string(), members));
    Ok((NO_STORE, Json(rooms.collect::<Vec<_>>())))
}

/// A room that is over.
#[derive(Serialize, ToSchema)]
pub(super) struct PastRoomBody {
    room_id: String,
    /// For how long it has been over.
    over_for_seconds: u64,
}

/// Rooms that are over and still have a timeline, `TIMELINE_SECONDS` long.
#[utoipa::path(
    get, path = "/admin/api/past", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "On this server, the latest first", body = [PastRoomBody]),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn past(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    let past = app.rooms.closed_rooms().into_iter().map(|(room, over_for)| PastRoomBody {
        room_id: room.to_string(),
        over_for_seconds: over_for.as_secs(),
    });
    (NO_STORE, Json(past.collect::<Vec<_>>()))
}

fn room_body(app: &AppState, room_id: String, connected_users: usize) -> ManagedRoomBody {
    let capacity = app.rooms.capacity_of(&room_id);
    let is_locked = app.moderation_rules.is_locked(&room_id, unix_now());
    ManagedRoomBody { room_id, connected_users, capacity, is_locked }
}

/// One room, its members, and the orders about it.
#[utoipa::path(
    get, path = "/admin/api/rooms/{room_id}", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "The room; of members on other servers less is known", body = WholeRoomBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "Nobody is there and no order is about it, or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows who is there", body = ErrorBody),
    )
)]
pub(super) async fn room(
    State(app): State<AppState>,
    _: Administrator,
    room: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let RoomId(room) = room.try_into()?;
    let members = members(&app, &room).await?;
    let mut orders = app.moderation_rules.active(unix_now());
    orders.retain(|order| order.about.room().is_none_or(|of| of == room));
    let is_about_it = orders.iter().any(|order| order.about.room().is_some());
    if members.is_empty() && !is_about_it {
        return Err(ApiError::RoomNotFound);
    }
    let room = room_body(&app, room, members.len());
    Ok((NO_STORE, Json(WholeRoomBody { room, members, orders })))
}

/// Who is in a room, by what this server sees of it, or else by what all share.
async fn members(app: &AppState, room: &str) -> Result<Vec<MemberBody>, ApiError> {
    let seen = app.rooms.member_snapshots(room);
    if !seen.is_empty() {
        return Ok(seen.into_iter().map(MemberBody::from).collect());
    }
    let mut members: Vec<_> = app
        .rooms
        .backend()
        .members(room)
        .await?
        .into_iter()
        .map(|holder| MemberBody {
            client_id: holder.peer.client_id.to_string(),
            username: holder.peer.username.to_string(),
            node: Some(holder.connection.node.to_string()),
            ..MemberBody::default()
        })
        .collect();
    members.sort_by(|one, other| one.client_id.cmp(&other.client_id));
    Ok(members)
}

/// What has happened in a room, never what was said.
#[utoipa::path(
    get, path = "/admin/api/rooms/{room_id}/timeline", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "On this server, the oldest event first", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "Nobody is or was there, or `TIMELINE_SECONDS` ago; or there is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn timeline(
    State(app): State<AppState>,
    _: Administrator,
    room: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let RoomId(room) = room.try_into()?;
    let story = app.rooms.timeline(&room, unix_now_ms()).ok_or(ApiError::RoomNotFound)?;
    Ok((NO_STORE, Json(story)))
}

/// What stands.
#[derive(Serialize, ToSchema)]
pub(super) struct OrdersBody {
    /// Bans, locks and capacities, each with when it was given (`at`, milliseconds) and ends (`until`, seconds).
    #[schema(value_type = Vec<Object>)]
    orders: Vec<ModerationRule>,
}

/// Bans, locks and capacities that stand.
#[utoipa::path(
    get, path = "/admin/api/orders", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "On all servers that share rooms", body = OrdersBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn orders(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    (NO_STORE, Json(OrdersBody { orders: app.moderation_rules.active(unix_now()) }))
}

/// Whom to throw out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    /// Either this,
    client_id: Option<String>,
    /// or everybody with this account or guest's name.
    username: Option<String>,
    /// For how long they do not come in again. Default 0: only their `resume` is refused.
    #[serde(default)]
    #[schema(maximum = 315_360_000)]
    ban_seconds: u64,
}

impl DescribeBody for Kick {
    const ACCEPTED: &str = "an object with \"client_id\" or \"username\" (a string), and perhaps \"ban_seconds\" (0 to 315360000)";
}

/// Throws somebody out of a room, and keeps them out where that is asked for.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/kick", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Kick,
    responses(
        (status = 200, description = "The order, which holds on all servers", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "Nobody like that is in the room, and no ban was asked for; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 409, description = "As many orders stand as are kept", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows who is there", body = ErrorBody),
    )
)]
pub(super) async fn kick(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(kick): JsonBody<Kick>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let Kick { client_id, username, ban_seconds } = kick;
    let who = subject_of(username, client_id).ok_or(Kick::fault())?;
    let seconds = until_seconds(ban_seconds).ok_or(Kick::fault())?;
    if seconds == 0 {
        let is_meant = |member: &MemberBody| match &who {
            Subject::Everyone => true,
            Subject::Username(name) => *name == member.username,
            Subject::ClientId(id) => *id == member.client_id,
        };
        if !members(&app, &room).await?.iter().any(is_meant) {
            return Err(ApiError::NobodyThere);
        }
    }
    audit(&client, "kick", Some(&room), Some(&who), Some(seconds));
    rule_response(app.ban(Some(room), who, seconds).await?)
}

/// Whom to keep out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    /// Either this, of one room,
    client_id: Option<String>,
    /// or everybody with this account or guest's name.
    username: Option<String>,
    /// Out of this room, or of all where it is missing.
    room_id: Option<String>,
    /// For how long.
    #[schema(minimum = 1, maximum = 315_360_000)]
    seconds: u64,
}

impl DescribeBody for Ban {
    const ACCEPTED: &str = "an object with \"seconds\" (1 to 315360000) and \"username\", or \"client_id\" and \"room_id\" (strings)";
}

/// Throws somebody out of a room, or of all, and keeps them out.
#[utoipa::path(
    post, path = "/admin/api/ban", tag = "Administration", security(("admin" = [])),
    request_body = Ban,
    responses(
        (status = 200, description = "The order, which holds on all servers", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 409, description = "As many orders stand as are kept", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
    )
)]
pub(super) async fn ban(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    JsonBody(ban): JsonBody<Ban>,
) -> Result<Response, ApiError> {
    let Ban { client_id, username, room_id: room, seconds } = ban;
    // A client id means something in its room only.
    let who = subject_of(username, client_id)
        .filter(|who| room.is_some() || matches!(who, Subject::Username(_)))
        .filter(|_| room.as_deref().is_none_or(is_room_id))
        .ok_or(Ban::fault())?;
    let seconds = until_seconds(seconds).filter(|seconds| *seconds > 0).ok_or(Ban::fault())?;
    audit(&client, "ban", room.as_deref(), Some(&who), Some(seconds));
    rule_response(app.ban(room, who, seconds).await?)
}

/// What to take back.
#[derive(Deserialize, ToSchema)]
pub(super) struct Lift {
    /// As `/admin/api/orders` shows it; other fields of it may stand there, too.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    about: RuleKind,
}

impl DescribeBody for Lift {
    const ACCEPTED: &str = "an order as /admin/api/orders shows it, such as {\"order\":\"ban\",\"room\":\"den\",\"who\":{\"username\":\"bob\"}}";
}

/// Takes an order back.
#[utoipa::path(
    post, path = "/admin/api/lift", tag = "Administration", security(("admin" = [])),
    request_body = Lift,
    responses(
        (status = 200, description = "It does not stand any more, on any server", body = DoneBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "No such order stands; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
    )
)]
pub(super) async fn lift(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    JsonBody(Lift { about }): JsonBody<Lift>,
) -> Result<Response, ApiError> {
    remove(&app, &client, about).await
}

async fn remove(app: &AppState, client: &Client, about: RuleKind) -> Result<Response, ApiError> {
    let (act, who) = match &about {
        RuleKind::Ban { subject: who, .. } => ("lift ban", Some(who)),
        RuleKind::Lock { .. } => ("unlock", None),
        RuleKind::Capacity { .. } => ("lift capacity", None),
    };
    audit(client, act, about.room(), who, None);
    if app.remove_rule(about).await { done_response(act) } else { Err(ApiError::NoSuchOrder) }
}

/// Lets nobody into a room who is not in.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/lock", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "The order, which holds on all servers", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "No room can be called so; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 409, description = "As many orders stand as are kept", body = ErrorBody),
    )
)]
pub(super) async fn lock(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    audit(&client, "lock", Some(&room), None, None);
    rule_response(app.lock(room).await?)
}

/// Lets people into a room again.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/unlock", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "On all servers", body = DoneBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "It is not locked; or there is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn unlock(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    remove(&app, &client, RuleKind::Lock { room }).await
}

/// How to close a room.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Close {
    /// For how long nobody comes in. Default 0: it may be opened again at once.
    #[schema(maximum = 315_360_000)]
    seconds: u64,
}

impl DescribeBody for Close {
    const ACCEPTED: &str = "nothing, or an object with \"seconds\" (0 to 315360000)";
}

/// Throws everybody out of a room.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/close", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Close,
    responses(
        (status = 200, description = "The order, which holds on all servers", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "No room can be called so; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 409, description = "As many orders stand as are kept", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
    )
)]
pub(super) async fn close(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Close { seconds }): JsonBody<Close>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let seconds = until_seconds(seconds).ok_or(Close::fault())?;
    audit(&client, "close", Some(&room), None, Some(seconds));
    rule_response(app.ban(Some(room), Subject::Everyone, seconds).await?)
}

/// How many a room holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Capacity {
    /// `null`: as many as others.
    #[schema(minimum = 1, maximum = 1_000_000)]
    members: Option<usize>,
}

impl DescribeBody for Capacity {
    const ACCEPTED: &str =
        "an object with \"members\" (1 to 1000000, or null for as many as others)";
}

/// Has a room hold more or fewer than others. Who is in stays.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/capacity", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Capacity,
    responses(
        (status = 200, description = "The order, which holds on all servers", body = Object),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "No room can be called so, or it holds as many as others; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 409, description = "As many orders stand as are kept", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
    )
)]
pub(super) async fn capacity(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Capacity { members }): JsonBody<Capacity>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let Some(members) = members else {
        return remove(&app, &client, RuleKind::Capacity { room }).await;
    };
    if !(1..=1_000_000).contains(&members) {
        return Err(Capacity::fault());
    }
    let address = client.address;
    tracing::info!(target: "signaling::audit", act = "capacity", room, members, %address, "administrator");
    rule_response(app.set_capacity(room, members).await?)
}

/// What to say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Announcement {
    /// Any JSON; clients get it as the `data` of a `server_message`.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// The client id of one member; everybody where it is missing.
    to: Option<String>,
}

impl DescribeBody for Announcement {
    const ACCEPTED: &str = "an object with \"data\" (any JSON), and perhaps \"to\" (a client id)";
}

/// What was done.
#[derive(Serialize, ToSchema)]
pub(super) struct DoneBody {
    #[schema(example = "unlock")]
    done: &'static str,
}

/// Says something to a room, or to one of its members.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/message", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Announcement,
    responses(
        (status = 200, description = "It is on its way", body = DoneBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "Nobody like that is in the room; or there is no `ADMIN_TOKEN`", body = ErrorBody),
        (status = 422, description = "What the body should be", body = InvalidBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows who is there", body = ErrorBody),
    )
)]
pub(super) async fn say(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Announcement { data, to }): JsonBody<Announcement>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let is_meant = |member: &MemberBody| to.as_ref().is_none_or(|to| *to == member.client_id);
    if !members(&app, &room).await?.iter().any(is_meant) {
        return Err(ApiError::NobodyThere);
    }
    let who = to.clone().map_or(Subject::Everyone, Subject::ClientId);
    audit(&client, "message", Some(&room), Some(&who), None);
    app.announce(room, to, &data).await;
    done_response("message")
}

/// Stops this server as a signal would: nobody comes in any more, clients are told when to come back (to another server
/// with the same `REDIS_URL`, they take their seats along), and the process ends.
#[utoipa::path(
    post, path = "/admin/api/drain", tag = "Administration", security(("admin" = [])),
    responses(
        (status = 200, description = "It has begun", body = DoneBody),
        (status = 401, description = "Not the bearer token of `ADMIN_TOKEN`", body = ErrorBody),
        (status = 404, description = "There is no `ADMIN_TOKEN`", body = ErrorBody),
    )
)]
pub(super) async fn drain(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<Client>,
) -> Result<Response, ApiError> {
    audit(&client, "drain", None, None, None);
    app.stop.cancel();
    done_response("drain")
}

/// Somebody who can be there: no other is worth an order.
fn subject_of(username: Option<String>, client_id: Option<String>) -> Option<Subject> {
    let who = match (username, client_id) {
        (Some(username), None) => Subject::Username(username),
        (None, Some(client_id)) => Subject::ClientId(client_id),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let can_be = match &who {
        Subject::Everyone => true,
        Subject::Username(name) => check_username(name).is_ok(),
        Subject::ClientId(id) => is_client_id(id),
    };
    can_be.then_some(who)
}

fn until_seconds(seconds: u64) -> Option<u64> {
    Some(seconds).filter(|seconds| *seconds <= MAX_DURATION_SECONDS)
}

fn rule_response(order: ModerationRule) -> Result<Response, ApiError> {
    Ok((NO_STORE, Json(order)).into_response())
}

fn done_response(done: &'static str) -> Result<Response, ApiError> {
    Ok((NO_STORE, Json(DoneBody { done })).into_response())
}

/// What an administrator does stands in the log, also where it comes to nothing.
fn audit(
    client: &Client,
    act: &'static str,
    room: Option<&str>,
    who: Option<&Subject>,
    seconds: Option<u64>,
) {
    let (address, who) = (client.address, who.map(ToString::to_string));
    let who = who.as_deref();
    tracing::info!(target: "signaling::audit", act, room, who, seconds, %address, "administrator");
}
