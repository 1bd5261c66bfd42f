//! Rooms, for users.

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::access_token::Claims,
    client_ip::ClientEndpoint,
    http::{
        error::{ApiError, ErrorBody, InvalidBody},
        extract::token::CurrentUser,
        list::{ListQuery, complete_list},
        responses::RoomsErrors,
    },
    state::{AppState, ListAudience},
};

pub(in crate::http) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(info, info_by_post))
}

/// A room that has members.
#[derive(Serialize, ToSchema)]
struct RoomBody {
    room_id: String,
    connected_users: usize,
    /// Always true: a room without members does not exist.
    is_active: bool,
}

/// Permission to list rooms: every client has it, or with `ROOMS_API_REQUIRE_AUTH=true` those with an access token.
struct RoomsAccess(Option<Claims>);

impl RoomsAccess {
    /// Whether the token is for some rooms only.
    fn is_limited(&self) -> bool {
        let permissions = self.0.as_ref().and_then(|claims| claims.permissions.as_ref());
        permissions.is_some_and(|permissions| permissions.rooms.is_some())
    }

    /// Whether the token, where there is one, is for this room.
    fn allow(&self, room: &str) -> bool {
        let permissions = self.0.as_ref().and_then(|claims| claims.permissions.as_ref());
        permissions.is_none_or(|permissions| permissions.allow_room(room))
    }
}

impl FromRequestParts<AppState> for RoomsAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        if !app.config.auth.rooms_api_require_auth {
            return Ok(Self(None));
        }
        let CurrentUser(_, claims) = CurrentUser::from_request_parts(parts, app).await?;
        Ok(Self(Some(claims)))
    }
}

/// Lists the rooms that have members: all of them, or a page with `limit` and `after`.
#[utoipa::path(
    get, path = "/api/rooms", tag = "Rooms", security((), ("token" = [])),
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Rooms in a page; 1000 where only `after` is given"),
        ("after" = Option<String>, Query, description = "The last `room_id` of the page before"),
    ),
    responses(
        RoomsErrors,
        (status = 200, description = "By name. A page has `X-Total-Count`, and where another follows a `Link` to it (RFC 8288). A list of many rooms may be a second old", body = [RoomBody]),
        (status = 422, description = "`limit` is no number from 1 to 1000", body = InvalidBody),
        (status = 503, description = "Redis (`REDIS_URL`) cannot be reached, or too many complete lists of very many rooms are being sent", body = ErrorBody),
    )
)]
async fn list(
    State(app): State<AppState>,
    access: RoomsAccess,
    Extension(client): Extension<ClientEndpoint>,
    query: ListQuery,
) -> Result<Response, ApiError> {
    let query = query.for_users();
    if access.is_limited() {
        // Few rooms: neither a page nor the list that all clients share.
        let list = app.room_list().await?;
        let rooms = list.rooms.iter().filter(|(room, _)| access.allow(room));
        let rooms: Vec<_> = rooms.map(|(room, users)| body(room, *users)).collect();
        return Ok(Json(rooms).into_response());
    }
    if query.is_page() {
        let list = app.room_list().await?;
        return Ok(query.answer(&list, |room, users| body(room, users)));
    }
    complete_list(&app, client.address, ListAudience::Users, |room, users| body(room, users)).await
}

/// Returns one room.
#[utoipa::path(
    get, path = "/api/rooms/{room_id}/info", tag = "Rooms", security((), ("token" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        RoomsErrors,
        (status = 200, description = "The room", body = RoomBody),
        (status = 404, description = "The room has no members", body = ErrorBody),
    )
)]
async fn info(
    State(app): State<AppState>,
    access: RoomsAccess,
    room: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RoomBody>, ApiError> {
    let Path(room) = room.map_err(|_| ApiError::RoomNotFound)?;
    if !access.allow(&room) {
        return Err(ApiError::RoomNotPermitted);
    }
    let users = app.rooms.backend().member_count(&app.rooms, &room).await?;
    let users = users.ok_or(ApiError::RoomNotFound)?;
    Ok(Json(body(&room, users)))
}

/// Returns one room, by the method that older clients use.
#[utoipa::path(
    post, path = "/api/rooms/{room_id}/info", tag = "Rooms", security((), ("token" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        RoomsErrors,
        (status = 200, description = "The room", body = RoomBody),
        (status = 404, description = "The room has no members", body = ErrorBody),
    )
)]
async fn info_by_post(
    app: State<AppState>,
    access: RoomsAccess,
    room: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RoomBody>, ApiError> {
    info(app, access, room).await
}

fn body(room_id: &str, connected_users: usize) -> RoomBody {
    RoomBody { room_id: room_id.to_owned(), connected_users, is_active: true }
}
