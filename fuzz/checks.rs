//! The properties that must hold for every input: one function for each fuzz target.
//!
//! The targets in `fuzz_targets/` call these functions with inputs that libFuzzer generates, and `tests/corpus.rs`
//! calls them with the inputs in `corpus/`.

#![allow(dead_code, unused_imports, reason = "a target includes all of this and calls one")]

#[path = "checks/addresses.rs"]
mod addresses;
#[path = "checks/environment.rs"]
mod environment;
#[path = "checks/frames.rs"]
mod frames;
#[path = "checks/json.rs"]
mod json;
#[path = "checks/proxy_headers.rs"]
mod proxy_headers;
#[path = "checks/registry.rs"]
mod registry;
#[path = "checks/room_ids.rs"]
mod room_ids;
#[path = "checks/tokens.rs"]
mod tokens;
#[path = "checks/users.rs"]
mod users;
#[path = "checks/websocket.rs"]
mod websocket;

pub use addresses::forwarded;
pub use environment::settings;
pub use frames::client_frame;
pub use proxy_headers::proxy_header;
pub use registry::registry;
pub use room_ids::room_id;
pub use tokens::auth_message;
pub use users::users_file;
pub use websocket::websocket;
