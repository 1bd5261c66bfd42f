//! HTTP: every URL, its handlers, and the layers around them (contract section 1).
//!
//! The only place that knows HTTP status codes.

mod admin;
mod error;
mod extract;
mod list;
mod middleware;
mod responses;
mod router;
mod routes;

pub use router::{http_service, metrics_service};
pub use routes::websocket::serve_stream;
