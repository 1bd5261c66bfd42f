//! Names a token, a session family or a `jti` in files and between nodes, without the token itself.

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Identifies a token: the SHA-256 of what is signed. It does not authenticate.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash that stands for a session family.
    pub(super) fn of_family(family: &str) -> Self {
        Self::of(&format!("family:{family}"))
    }

    /// The hash that stands for a `jti`.
    pub(super) fn of_id(jti: &str) -> Self {
        Self::of(&format!("jti:{jti}"))
    }

    /// The hash of what is signed: header and claims.
    pub(super) fn of(signed: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, signed.as_bytes()).as_ref());
        Self(hash)
    }
}

impl From<TokenHash> for String {
    fn from(fingerprint: TokenHash) -> Self {
        BASE64_URL_SAFE_NO_PAD.encode(fingerprint.0)
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a fingerprint is 32 bytes in base64")
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}
