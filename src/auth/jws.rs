//! Signed tokens in their compact form (RFC 7515 section 7.1), apart from what they claim.

use std::str::FromStr;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::token_rejection::TokenRejection;

/// The longest token that is read, in bytes. Neither tokens of this server nor those of a reasonable issuer are longer.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A token whose header was read and whose signature was not verified.
pub struct UnverifiedToken<'a> {
    /// The algorithm that the header names. It selects among the keys, and is never trusted beyond that.
    pub algorithm: Algorithm,
    /// The name of the key. It selects among known keys, and is never looked up anywhere else.
    pub key_id: Option<String>,
    /// What is signed: header and claims.
    pub signed: &'a str,
    claims: &'a str,
    signature: &'a str,
    is_critical: bool,
}

/// The parts of a header that count (RFC 7515 section 4.1). What it says of keys beside `kid` (`jku`, `jwk`, `x5u`, `x5c`)
/// is not read, as RFC 8725 section 3.10 advises.
#[derive(Deserialize)]
struct Header {
    alg: Option<Value>,
    kid: Option<Value>,
    crit: Option<Value>,
}

/// The value of a field that is there: also `null`.
pub(super) fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(field).map(Some)
}

impl<'a> UnverifiedToken<'a> {
    /// Reads the header of `token`.
    ///
    /// # Errors
    ///
    /// It is too long, no such token, or names no known algorithm.
    pub fn parse(token: &'a str) -> Result<Self, TokenRejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRejection::TooLong { bytes: token.len() });
        }
        let parts: Vec<_> = token.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else {
            return Err(TokenRejection::Malformed("it is not three parts with dots between them"));
        };
        let (signed, _) = token.rsplit_once('.').unwrap_or_default();
        let Header { alg, kid, crit } = decode_part(header)
            .ok_or(TokenRejection::Malformed("its first part is no JSON object in base64url"))?;
        let algorithm = alg.as_ref().and_then(Value::as_str).map(Algorithm::from_str);
        let algorithm = algorithm.and_then(Result::ok).ok_or(TokenRejection::UnknownAlgorithm)?;
        let key_id = kid.as_ref().and_then(Value::as_str).map(str::to_owned);
        Ok(Self { algorithm, key_id, signed, claims, signature, is_critical: crit.is_some() })
    }

    /// Whether its algorithm is one of a secret, not of a private key.
    pub fn is_signed_with_secret(&self) -> bool {
        AlgorithmFamily::Hmac.algorithms().contains(&self.algorithm)
    }

    /// Whether `key` has signed it with the algorithm of its header.
    pub fn is_signed_by(&self, key: &DecodingKey) -> bool {
        // One algorithm family a key: a public key is never taken for the secret of an HMAC (RFC 8725 section 3.1).
        key.family().algorithms().contains(&self.algorithm)
            && crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm)
                .unwrap_or(false)
    }

    /// Refuses extensions that must be understood.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::CriticalExtension`].
    pub fn check_critical(&self) -> Result<(), TokenRejection> {
        if self.is_critical { Err(TokenRejection::CriticalExtension) } else { Ok(()) }
    }

    /// The claims. They count only where the signature was verified.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::NoClaims`].
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, TokenRejection> {
        decode_part(self.claims).ok_or(TokenRejection::NoClaims)
    }
}

/// The JSON object of a part. serde would also read an array as the fields of a struct in their order.
fn decode_part<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    let is_object = json.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(&json).ok().filter(|_| is_object)
}
