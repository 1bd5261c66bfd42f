//! The routes for users, monitors and browsers. Each file declares its routes in its `router`.

pub(super) mod auth;
pub(super) mod client_library;
pub(super) mod connection;
pub(super) mod docs;
pub(super) mod examples;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod rooms;
pub(super) mod turn;
pub(super) mod websocket;
