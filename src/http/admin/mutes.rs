//! Moderation rules that mute members, on all nodes.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::audit,
    room_id::RoomId,
    rule_body::RuleBody,
    rules::{checked_duration, remove, subject_of},
    server::DoneBody,
};
use crate::{
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, ErrorBody},
        extract::{
            body::{DescribeBody, JsonBody},
            token::Administrator,
        },
        responses::{AdminErrors, BodyErrors, NO_STORE, RoomErrors, RuleErrors},
    },
    moderation::{MAX_DURATION_SECONDS, RuleKind},
    state::AppState,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(mute)).routes(routes!(unmute))
}

/// The members to mute.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Mute {
    /// Either one client id,
    client_id: Option<String>,
    /// or the username of an account or a guest.
    username: Option<String>,
    /// For how long. Default: until it is taken back.
    #[schema(minimum = 1, maximum = 315_360_000)]
    seconds: Option<u64>,
}

impl DescribeBody for Mute {
    const ACCEPTED: &str = "an object with \"client_id\" or \"username\" (a string), and perhaps \"seconds\" (1 to 315360000)";
}

/// Mutes members of a room: what they send to everyone, and their messages, are not passed on.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/mute", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Mute,
    responses(
        AdminErrors, RoomErrors, BodyErrors, RuleErrors,
        (status = 200, description = "The rule, which applies on all nodes", body = RuleBody),
    )
)]
async fn mute(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Mute { client_id, username, seconds }): JsonBody<Mute>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let subject = subject_of(username, client_id).ok_or(Mute::fault())?;
    let duration = checked_duration(seconds.unwrap_or(MAX_DURATION_SECONDS));
    let duration = duration.filter(|seconds| *seconds > 0).ok_or(Mute::fault())?;
    audit(&client, "mute", Some(&room), Some(&subject), seconds);
    let is_known = app.is_known(Some(&room), &subject);
    let rule = app.mute(room, subject, duration).await?;
    Ok((NO_STORE, Json(RuleBody::from(rule).with_is_known(is_known))).into_response())
}

/// The members to unmute.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Unmute {
    /// Either one client id,
    client_id: Option<String>,
    /// or the username of an account or a guest.
    username: Option<String>,
}

impl DescribeBody for Unmute {
    const ACCEPTED: &str = "an object with \"client_id\" or \"username\" (a string)";
}

/// Unmutes members of a room.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/unmute", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = Unmute,
    responses(
        AdminErrors, BodyErrors,
        (status = 200, description = "They are unmuted on all nodes", body = DoneBody),
        (status = 404, description = "No such rule is active, or `ADMIN_TOKEN` is not set", body = ErrorBody),
        (status = 503, description = "The rule is removed, but that could not be written to disk: a restart would undo it", body = ErrorBody),
    )
)]
async fn unmute(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(Unmute { client_id, username }): JsonBody<Unmute>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let subject = subject_of(username, client_id).ok_or(Unmute::fault())?;
    remove(&app, &client, RuleKind::Mute { room, subject }).await
}
