//! Moderation rules: kicks, bans, locks, mutes, closed rooms and capacities, on all nodes.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::{audit, audit_capacity},
    room_id::RoomId,
    rooms::{MemberBody, members_of},
    rule_body::{RuleBody, RuleTarget},
    server::{DoneBody, done_response},
};
use crate::{
    auth::users::is_possible_username,
    client_ip::ClientEndpoint,
    clock::unix_now,
    http::{
        error::{ApiError, ErrorBody},
        extract::{
            body::{DescribeBody, JsonBody},
            token::Administrator,
        },
        responses::{AdminErrors, BodyErrors, ClusterErrors, NO_STORE, RoomErrors, RuleErrors},
    },
    moderation::{MAX_DURATION_SECONDS, RuleKind, Subject},
    protocol::is_client_id,
    rooms::is_room_id,
    state::{AppState, PublishedRule, RemovedRule},
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_rules))
        .routes(routes!(ban))
        .routes(routes!(remove_rule))
        .routes(routes!(kick))
        .routes(routes!(lock_room))
        .routes(routes!(unlock_room))
        .routes(routes!(close_room))
        .routes(routes!(set_capacity))
}

/// Active rules.
#[derive(Serialize, ToSchema)]
struct RulesBody {
    /// Bans, locks, mutes and capacities.
    rules: Vec<RuleBody>,
}

/// Active bans, locks, mutes and capacities.
#[utoipa::path(
    get, path = "/admin/api/rules", tag = "Administration", security(("admin" = [])),
    responses(AdminErrors, (status = 200, description = "Of all nodes", body = RulesBody))
)]
async fn list_rules(State(app): State<AppState>, _: Administrator) -> impl IntoResponse {
    let rules = app.moderation_rules.active(unix_now());
    (NO_STORE, Json(RulesBody { rules: rules.into_iter().map(RuleBody::from).collect() }))
}

/// The members to remove from a room.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Kick {
    /// Either one client id,
    client_id: Option<String>,
    /// or the username of an account or a guest.
    username: Option<String>,
    /// How long they may not join again. Default 0: only their `resume` is refused.
    #[serde(default)]
    #[schema(maximum = 315_360_000)]
    ban_seconds: u64,
}

impl DescribeBody for Kick {
    const ACCEPTED: &str = "an object with \"client_id\" or \"username\" (a string), and perhaps \"ban_seconds\" (0 to 315360000)";
}

/// Removes members from a room, and optionally bans them from it.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/kick", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Kick,
    responses(
        AdminErrors, BodyErrors, ClusterErrors, RuleErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
        (status = 404, description = "No such member is in the room and `ban_seconds` is 0, or `ADMIN_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn kick(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(kick): JsonBody<Kick>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let Kick { client_id, username, ban_seconds } = kick;
    let subject = subject_of(username, client_id).ok_or(Kick::fault())?;
    let seconds = checked_duration(ban_seconds).ok_or(Kick::fault())?;
    if seconds == 0 {
        let matches = |member: &MemberBody| match &subject {
            Subject::Everyone => true,
            Subject::Username(name) => *name == member.username,
            Subject::ClientId(id) => *id == member.client_id,
        };
        if !members_of(&app, &room).await?.iter().any(matches) {
            return Err(ApiError::MemberNotFound);
        }
    }
    audit(&client, "kick", Some(&room), Some(&subject), Some(seconds));
    ban_response(&app, Some(room), subject, seconds).await
}

/// The users or clients to ban.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ban {
    /// Either one client id, with `room_id`,
    client_id: Option<String>,
    /// or the username of an account or a guest.
    username: Option<String>,
    /// The room. Default: all rooms.
    room_id: Option<String>,
    /// How long they may not join.
    #[schema(minimum = 1, maximum = 315_360_000)]
    seconds: u64,
}

impl DescribeBody for Ban {
    const ACCEPTED: &str = "an object with \"seconds\" (1 to 315360000) and \"username\", or \"client_id\" and \"room_id\" (strings)";
}

/// Removes members from one room or from all rooms, and bans them.
#[utoipa::path(
    post, path = "/admin/api/ban", tag = "Administration", security(("admin" = [])),
    request_body = Ban,
    responses(
        AdminErrors, RuleErrors, BodyErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
    )
)]
async fn ban(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    JsonBody(ban): JsonBody<Ban>,
) -> Result<Response, ApiError> {
    let Ban { client_id, username, room_id: room, seconds } = ban;
    // A client id is unique in its room only.
    let subject = subject_of(username, client_id)
        .filter(|subject| room.is_some() || matches!(subject, Subject::Username(_)))
        .filter(|_| room.as_deref().is_none_or(is_room_id))
        .ok_or(Ban::fault())?;
    let seconds = checked_duration(seconds).filter(|seconds| *seconds > 0).ok_or(Ban::fault())?;
    audit(&client, "ban", room.as_deref(), Some(&subject), Some(seconds));
    ban_response(&app, room, subject, seconds).await
}

/// The rule to remove.
#[derive(Deserialize, ToSchema)]
struct RemoveRule {
    /// As `/admin/api/rules` returns it; its other fields are ignored.
    #[serde(flatten)]
    target: RuleTarget,
}

impl DescribeBody for RemoveRule {
    const ACCEPTED: &str = "a rule as /admin/api/rules returns it, such as {\"rule\":\"ban\",\"room\":\"den\",\"who\":{\"username\":\"bob\"}}";
}

/// Removes a rule.
#[utoipa::path(
    post, path = "/admin/api/remove", tag = "Administration", security(("admin" = [])),
    request_body = RemoveRule,
    responses(
        AdminErrors, BodyErrors,
        (status = 200, description = "The rule is no longer active on any node", body = DoneBody),
        (status = 404, description = "No such rule is active, or `ADMIN_TOKEN` is not set", body = ErrorBody),
        (status = 503, description = "The rule is removed, but that could not be written to disk: a restart would undo it", body = ErrorBody),
    )
)]
async fn remove_rule(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    JsonBody(RemoveRule { target }): JsonBody<RemoveRule>,
) -> Result<Response, ApiError> {
    remove(&app, &client, target.into()).await
}

/// Removes a rule on all nodes.
pub(super) async fn remove(
    app: &AppState,
    client: &ClientEndpoint,
    about: RuleKind,
) -> Result<Response, ApiError> {
    let (act, subject) = match &about {
        RuleKind::Ban { subject, .. } => ("remove ban", Some(subject)),
        RuleKind::Lock { .. } => ("unlock", None),
        RuleKind::Mute { subject, .. } => ("unmute", Some(subject)),
        RuleKind::Capacity { .. } => ("remove capacity", None),
    };
    audit(client, act, about.room(), subject, None);
    let RemovedRule { reach } = app.remove_rule(about).await?.ok_or(ApiError::RuleNotFound)?;
    done_response(act, reach)
}

/// Locks a room: no further members may join.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/lock", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        AdminErrors, RoomErrors, RuleErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
    )
)]
async fn lock_room(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    audit(&client, "lock", Some(&room), None, None);
    rule_response(app.lock(room).await?)
}

/// Unlocks a room.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/unlock", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        AdminErrors,
        (status = 200, description = "The room is unlocked on all nodes", body = DoneBody),
        (status = 404, description = "The room is not locked, or `ADMIN_TOKEN` is not set", body = ErrorBody),
        (status = 503, description = "The rule is removed, but that could not be written to disk: a restart would undo it", body = ErrorBody),
    )
)]
async fn unlock_room(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    remove(&app, &client, RuleKind::Lock { room }).await
}

/// How to close a room.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Close {
    /// How long no members may join. Default 0: the room may be opened again at once.
    #[schema(maximum = 315_360_000)]
    seconds: u64,
}

impl DescribeBody for Close {
    const ACCEPTED: &str = "nothing, or an object with \"seconds\" (0 to 315360000)";
}

/// Closes a room: removes all its members.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/close", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Close,
    responses(
        AdminErrors, RoomErrors, RuleErrors, BodyErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
    )
)]
async fn close_room(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Close { seconds }): JsonBody<Close>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let seconds = checked_duration(seconds).ok_or(Close::fault())?;
    audit(&client, "close", Some(&room), None, Some(seconds));
    rule_response(app.ban(Some(room), Subject::Everyone, seconds).await?)
}

/// How many members a room may have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Capacity {
    /// `null`: the default, `MAX_CONNECTIONS_PER_ROOM`.
    #[schema(minimum = 1, maximum = 1_000_000)]
    members: Option<usize>,
}

impl DescribeBody for Capacity {
    const ACCEPTED: &str =
        "an object with \"members\" (1 to 1000000, or null for as many as others)";
}

/// Sets how many members a room may have. Members that are already in it stay.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/capacity", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Capacity,
    responses(
        AdminErrors, RuleErrors, BodyErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
        (status = 404, description = "The room id is invalid, or the room has no capacity of its own, or `ADMIN_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn set_capacity(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
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
    audit_capacity(&client, &room, members);
    rule_response(app.set_capacity(room, members).await?)
}

/// The subject of a rule, where a user or a client may have that name: rules about others would be kept for nothing.
pub(super) fn subject_of(username: Option<String>, client_id: Option<String>) -> Option<Subject> {
    let subject = match (username, client_id) {
        (Some(username), None) => Subject::Username(username),
        (None, Some(client_id)) => Subject::ClientId(client_id),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let is_valid = match &subject {
        Subject::Everyone => true,
        Subject::Username(name) => is_possible_username(name),
        Subject::ClientId(id) => is_client_id(id),
    };
    is_valid.then_some(subject)
}

/// A duration that a rule may have.
pub(super) fn checked_duration(seconds: u64) -> Option<u64> {
    Some(seconds).filter(|seconds| *seconds <= MAX_DURATION_SECONDS)
}

async fn ban_response(
    app: &AppState,
    room: Option<String>,
    subject: Subject,
    seconds: u64,
) -> Result<Response, ApiError> {
    let is_known = app.is_known(room.as_deref(), &subject);
    let rule = app.ban(room, subject, seconds).await?;
    Ok((NO_STORE, Json(RuleBody::from(rule).with_is_known(is_known))).into_response())
}

fn rule_response(rule: PublishedRule) -> Result<Response, ApiError> {
    Ok((NO_STORE, Json(RuleBody::from(rule))).into_response())
}
