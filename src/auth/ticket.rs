//! What a client shows to come back to its membership: the resume token.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::token::{Claims, InvalidToken, MAX_TOKEN_BYTES, signature_only};

/// Which membership it is, and what it stands on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ResumeToken {
    /// The room.
    pub room: String,
    /// The client id in it.
    pub client_id: String,
    /// The account, or the guest's name.
    pub username: String,
    /// Tells this membership from all others, also of the same client.
    pub key: u128,
    /// The access token that it stands on; `None` for a guest.
    pub claims: Option<Claims>,
    /// When the membership began, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub since: u64,
}

/// Signs tickets and reads them. The key is not the one of access tokens, and what is signed has none of
/// their fields: neither passes for the other.
pub struct ResumeTokenSigner {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

impl ResumeTokenSigner {
    /// Tickets signed with `secret`.
    pub fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            // A ticket is worth what the membership is, and that is looked up.
            validation: signature_only(),
        }
    }

    /// The ticket as a client gets it.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn sign(&self, ticket: &ResumeToken) -> Result<SecretString, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), ticket, &self.signing)
            .map(SecretString::from)
    }

    /// What a ticket says, if it is one of ours. Whether there is such a membership, and whether what it
    /// stands on still counts, is for others to say.
    ///
    /// # Errors
    ///
    /// [`BadToken`].
    pub fn verify(&self, ticket: &str) -> Result<ResumeToken, InvalidToken> {
        if ticket.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken);
        }
        let decoded = jsonwebtoken::decode(ticket, &self.verifying, &self.validation);
        decoded.map(|ticket| ticket.claims).map_err(|_| InvalidToken)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::token::AccessTokens;

    fn ticket() -> ResumeToken {
        let tokens = AccessTokens::new(&"jwt".into(), None, Duration::from_secs(60));
        let token = tokens.issue("zoë", "stamp", 1_000).unwrap();
        ResumeToken {
            room: "Zimmer 7/é".into(),
            client_id: "a:b".into(),
            username: "zoë".into(),
            key: u128::MAX,
            claims: Some(tokens.verify(token.expose_secret(), 1_000).unwrap()),
            since: 1_000_000,
        }
    }

    #[test]
    fn a_ticket_says_what_was_signed_and_nobody_else_signs_one() {
        let tickets = ResumeTokenSigner::new(&"secret".into());
        let ticket = ticket();
        let signed = tickets.sign(&ticket).unwrap();

        assert_eq!(tickets.verify(signed.expose_secret()), Ok(ticket));
        assert_eq!(
            ResumeTokenSigner::new(&"other".into()).verify(signed.expose_secret()),
            Err(InvalidToken)
        );
        let (head, _) = signed.expose_secret().rsplit_once('.').unwrap();
        assert_eq!(tickets.verify(&format!("{head}.")), Err(InvalidToken));
        assert_eq!(tickets.verify(&"x".repeat(MAX_TOKEN_BYTES + 1)), Err(InvalidToken));
    }

    #[test]
    fn a_ticket_is_no_access_token_and_an_access_token_no_ticket() {
        let tokens = AccessTokens::new(&"same".into(), None, Duration::from_secs(60));
        let tickets = ResumeTokenSigner::new(&"same".into());

        let signed = tickets.sign(&ticket()).unwrap();
        let token = tokens.issue("zoë", "stamp", 1_000).unwrap();

        assert_eq!(tokens.verify(signed.expose_secret(), 1_000), Err(InvalidToken));
        assert_eq!(tickets.verify(token.expose_secret()), Err(InvalidToken));
    }
}
