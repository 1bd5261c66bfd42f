//! Messages of an administrator to the members of a room.

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    audit::audit,
    room_id::RoomId,
    rooms::{MemberBody, members_of},
    server::{DoneBody, done_response},
};
use crate::{
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, ErrorBody},
        extract::{
            body::{DescribeBody, JsonBody},
            token::Administrator,
        },
        responses::{AdminErrors, BodyErrors, ClusterErrors},
    },
    moderation::Subject,
    state::AppState,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(send_message))
}

/// A message to members of a room.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MessageRequest {
    /// Any JSON; clients get it as the `data` of a `server_message`.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// The client id of one member. Default: all members.
    to: Option<String>,
}

impl DescribeBody for MessageRequest {
    const ACCEPTED: &str = "an object with \"data\" (any JSON), and perhaps \"to\" (a client id)";
}

/// Sends a message to all members of a room, or to one of them.
#[utoipa::path(
    post, path = "/admin/api/rooms/{room_id}/message", tag = "Administration", security(("admin" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    request_body = MessageRequest,
    responses(
        AdminErrors, BodyErrors, ClusterErrors,
        (status = 200, description = "The message was sent", body = DoneBody),
        (status = 404, description = "No such member is in the room, or `ADMIN_TOKEN` is not set", body = ErrorBody),
    )
)]
async fn send_message(
    State(app): State<AppState>,
    _: Administrator,
    Extension(client): Extension<ClientEndpoint>,
    room: Result<Path<String>, PathRejection>,
    JsonBody(MessageRequest { data, to }): JsonBody<MessageRequest>,
) -> Result<Response, ApiError> {
    let RoomId(room) = room.try_into()?;
    let is_receiver = |member: &MemberBody| to.as_ref().is_none_or(|to| *to == member.client_id);
    if !members_of(&app, &room).await?.iter().any(is_receiver) {
        return Err(ApiError::MemberNotFound);
    }
    let subject = to.clone().map_or(Subject::Everyone, Subject::ClientId);
    audit(&client, "message", Some(&room), Some(&subject), None);
    let reach = app.announce(room, to, &data).await;
    done_response("message", reach)
}
