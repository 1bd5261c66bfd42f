//! REST for administrators (`ADMIN_TOKEN`): rooms, members and timelines, moderation rules, and the server itself.
//!
//! Each file declares its routes in its `router`. Every command is a line in the log.

mod audit;
mod message;
mod mutes;
pub(super) mod page;
mod room_id;
mod rooms;
mod rule_body;
mod rules;
mod server;
mod sessions;
mod tokens;

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// The routes below `/admin/api/`.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(server::router())
        .merge(rooms::router())
        .merge(rules::router())
        .merge(mutes::router())
        .merge(message::router())
        .merge(sessions::router())
        .merge(tokens::router())
}
