//! The room of an administrator's path.

use axum::extract::{Path, rejection::PathRejection};

use crate::{http::error::ApiError, rooms::is_room_id};

/// A valid room id; the room need not exist.
pub(super) struct RoomId(pub(super) String);

impl TryFrom<Result<Path<String>, PathRejection>> for RoomId {
    type Error = ApiError;

    fn try_from(path: Result<Path<String>, PathRejection>) -> Result<Self, ApiError> {
        let room = path.ok().map(|Path(room)| room).filter(|room| is_room_id(room));
        room.map(Self).ok_or(ApiError::RoomNotFound)
    }
}
