//! Accounts, passwords and tokens, and what revokes them.

pub mod access_token;
pub mod claims;
pub mod issuer_keys;
pub mod jws;
pub mod key_variant;
pub mod password;
pub mod permissions;
pub mod probe_token;
pub mod resume_token;
pub mod revocation;
pub mod token_hash;
pub mod token_rejection;
pub mod token_sessions;
pub mod users;
