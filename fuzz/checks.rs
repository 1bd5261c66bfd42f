//! What must hold for every input: one function for each fuzz target.
//!
//! The targets in `fuzz_targets/` call these with inputs that libFuzzer invents, and
//! `tests/corpus.rs` calls them with the inputs that are kept in `corpus/`.

#![allow(dead_code, unused_imports, reason = "a target includes all of this and calls one")]

#[path = "checks/addresses.rs"]
mod addresses;
#[path = "checks/doors.rs"]
mod doors;
#[path = "checks/environment.rs"]
mod environment;
#[path = "checks/frames.rs"]
mod frames;
#[path = "checks/json.rs"]
mod json;
#[path = "checks/members.rs"]
mod members;
#[path = "checks/pieces.rs"]
mod pieces;
#[path = "checks/tokens.rs"]
mod tokens;
#[path = "checks/users.rs"]
mod users;

pub use addresses::forwarded;
pub use doors::room_id;
pub use environment::settings;
pub use frames::client_frame;
pub use members::registry;
pub use pieces::websocket;
pub use tokens::auth_message;
pub use users::users_file;
