//! What holds for every URL, as layers around the router.

pub(super) mod client;
pub(super) mod cors;
pub(super) mod head;
pub(super) mod rate_limit;
pub(super) mod request;
