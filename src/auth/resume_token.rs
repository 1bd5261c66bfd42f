//! Resume tokens: with one, a client resumes its membership after its connection was lost.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{access_token::Claims, jws::MAX_TOKEN_BYTES};

/// The longest resume token that is read, in bytes: it repeats what an access token allows.
const MAX_RESUME_TOKEN_BYTES: usize = 2 * MAX_TOKEN_BYTES;

/// Names a membership, and the access token that it was joined with.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ResumeToken {
    /// The room.
    pub room: String,
    /// The client id in it.
    pub client_id: String,
    /// The account, or the guest's name.
    pub username: String,
    /// The display name of the member. The access token that it was refreshed with may have another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Identifies this membership, also among those of the same client.
    pub key: u128,
    /// The access token that the member joined with; `None` for a guest.
    pub claims: Option<Claims>,
    /// When the membership began, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub since: u64,
}

/// The resume token is not one that this server signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resume token is not valid")]
pub struct InvalidResumeToken;

/// Signs and verifies resume tokens. Their key is not the one of access tokens, and they share no field with them: neither
/// passes for the other.
pub struct ResumeTokenSigner {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

/// Validates the signature and the algorithm, and no claim: a resume token does not expire, it is valid as long as its
/// membership, which is looked up.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl ResumeTokenSigner {
    /// Signs resume tokens with `secret`.
    pub fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            validation: signature_only(),
        }
    }

    /// The signed resume token, as a client gets it.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn sign(&self, token: &ResumeToken) -> Result<SecretString, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), token, &self.signing)
            .map(SecretString::from)
    }

    /// The content of a resume token that this server signed. Callers check that the membership exists, and that its access
    /// token is still valid.
    ///
    /// # Errors
    ///
    /// [`InvalidResumeToken`].
    pub fn verify(&self, token: &str) -> Result<ResumeToken, InvalidResumeToken> {
        if token.len() > MAX_RESUME_TOKEN_BYTES {
            return Err(InvalidResumeToken);
        }
        let decoded = jsonwebtoken::decode(token, &self.verifying, &self.validation);
        decoded.map(|token| token.claims).map_err(|_| InvalidResumeToken)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::access_token::AccessTokens;

    fn resume_token() -> ResumeToken {
        let tokens = AccessTokens::new(&"jwt".into(), None, Duration::from_secs(60));
        let token = tokens.issue("zoë", "stamp", 1_000).unwrap();
        ResumeToken {
            room: "Zimmer 7/é".into(),
            client_id: "a:b".into(),
            username: "zoë".into(),
            name: Some("Zoë".into()),
            key: u128::MAX,
            claims: Some(tokens.verify(token.expose_secret(), 1_000).unwrap()),
            since: 1_000_000,
        }
    }

    #[test]
    fn a_resume_token_verifies_only_with_the_key_that_signed_it() {
        let signer = ResumeTokenSigner::new(&"secret".into());
        let token = resume_token();
        let signed = signer.sign(&token).unwrap();

        assert_eq!(signer.verify(signed.expose_secret()), Ok(token));
        assert_eq!(
            ResumeTokenSigner::new(&"other".into()).verify(signed.expose_secret()),
            Err(InvalidResumeToken)
        );
        let (head, _) = signed.expose_secret().rsplit_once('.').unwrap();
        assert_eq!(signer.verify(&format!("{head}.")), Err(InvalidResumeToken));
        assert_eq!(signer.verify(&"x".repeat(MAX_RESUME_TOKEN_BYTES + 1)), Err(InvalidResumeToken));
    }

    #[test]
    fn resume_tokens_and_access_tokens_are_not_interchangeable() {
        let tokens = AccessTokens::new(&"same".into(), None, Duration::from_secs(60));
        let signer = ResumeTokenSigner::new(&"same".into());

        let signed = signer.sign(&resume_token()).unwrap();
        let token = tokens.issue("zoë", "stamp", 1_000).unwrap();

        assert!(tokens.verify(signed.expose_secret(), 1_000).is_err());
        assert_eq!(signer.verify(token.expose_secret()), Err(InvalidResumeToken));
    }
}
