//! Which rooms there are.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, ErrorBody},
    extract::CurrentUser,
};
use crate::app::AppState;

/// A room with somebody in it.
#[derive(Serialize, ToSchema)]
pub(super) struct RoomBody {
    room_id: String,
    connected_users: usize,
    /// Always true: a room without members is gone.
    is_active: bool,
}

/// Passes everybody, or with `ROOMS_API_REQUIRE_AUTH=true` those with a token.
pub(super) struct MaySeeRooms;

impl FromRequestParts<AppState> for MaySeeRooms {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        if app.config.rooms_api_require_auth {
            CurrentUser::from_request_parts(parts, app).await?;
        }
        Ok(Self)
    }
}

/// All rooms with somebody in them.
#[utoipa::path(
    get, path = "/api/rooms", tag = "Rooms", security((), ("token" = [])),
    responses(
        (status = 200, description = "By name", body = [RoomBody]),
        (status = 401, description = "`ROOMS_API_REQUIRE_AUTH=true` and no good token", body = ErrorBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows all rooms", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<AppState>,
    _: MaySeeRooms,
) -> Result<Response, ApiError> {
    let rooms = app.rooms.backend().list(&app.rooms).await?;
    // Away from the workers, which have calls to carry: the list may be long.
    let list = tokio::task::spawn_blocking(move || {
        let rooms = rooms.iter().map(|(room_id, users)| body(room_id, *users));
        Json(rooms.collect::<Vec<_>>()).into_response()
    });
    list.await.map_err(|error| ApiError::Internal(error.into()))
}

/// One room.
#[utoipa::path(
    get, path = "/api/rooms/{room_id}/info", tag = "Rooms", security((), ("token" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "The room", body = RoomBody),
        (status = 401, description = "`ROOMS_API_REQUIRE_AUTH=true` and no good token", body = ErrorBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows all rooms", body = ErrorBody),
        (status = 404, description = "Nobody is there", body = ErrorBody),
    )
)]
pub(super) async fn info(
    State(app): State<AppState>,
    _: MaySeeRooms,
    room: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RoomBody>, ApiError> {
    let Path(room) = room.map_err(|_| ApiError::RoomNotFound)?;
    let users = app.rooms.backend().member_count(&app.rooms, &room).await?;
    let users = users.ok_or(ApiError::RoomNotFound)?;
    Ok(Json(body(&room, users)))
}

/// One room, as clients of the first server ask.
#[utoipa::path(
    post, path = "/api/rooms/{room_id}/info", tag = "Rooms", security((), ("token" = [])),
    params(("room_id" = String, Path, description = "Percent-encoded")),
    responses(
        (status = 200, description = "The room", body = RoomBody),
        (status = 401, description = "`ROOMS_API_REQUIRE_AUTH=true` and no good token", body = ErrorBody),
        (status = 503, description = "`REDIS_URL` cannot be reached, so nobody knows all rooms", body = ErrorBody),
        (status = 404, description = "Nobody is there", body = ErrorBody),
    )
)]
pub(super) async fn info_by_post(
    app: State<AppState>,
    may: MaySeeRooms,
    room: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<RoomBody>, ApiError> {
    info(app, may, room).await
}

fn body(room_id: &str, connected_users: usize) -> RoomBody {
    RoomBody { room_id: room_id.to_owned(), connected_users, is_active: true }
}
