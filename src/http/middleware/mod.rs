//! The layers around the router, which apply to every URL.

pub(super) mod client;
pub(super) mod cors;
pub(super) mod head;
pub(super) mod rate_limit;
pub(super) mod request;
