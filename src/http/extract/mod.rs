//! What handlers take from a request: the fields of its body, and who sent its token.

pub(super) mod body;
pub(super) mod login;
pub(super) mod token;
