//! Rooms, for users.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        error::{ApiError, ErrorBody},
        extract::token::CurrentUser,
        responses::RoomsErrors,
    },
    state::AppState,
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
struct RoomsAccess;

impl FromRequestParts<AppState> for RoomsAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        if app.config.auth.rooms_api_require_auth {
            CurrentUser::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

/// Lists all rooms that have members.
#[utoipa::path(
    get, path = "/api/rooms", tag = "Rooms", security((), ("token" = [])),
    responses(
        RoomsErrors,
        (status = 200, description = "By name", body = [RoomBody]),
    )
)]
async fn list(State(app): State<AppState>, _: RoomsAccess) -> Result<Response, ApiError> {
    let rooms = app.rooms.backend().list(&app.rooms).await?;
    // Off the workers, which serve calls: the list may be long.
    let list = tokio::task::spawn_blocking(move || {
        let rooms = rooms.iter().map(|(room_id, users)| body(room_id, *users));
        Json(rooms.collect::<Vec<_>>()).into_response()
    });
    list.await.map_err(|error| ApiError::Internal(error.into()))
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
    _: RoomsAccess,
    room: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RoomBody>, ApiError> {
    let Path(room) = room.map_err(|_| ApiError::RoomNotFound)?;
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
