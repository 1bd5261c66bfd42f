//! Access tokens: JSON Web Tokens (RFC 7519) that authenticate a user for `ACCESS_TOKEN_EXPIRE_MINUTES`.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    claims::{IssuerRules, PresentedClaims},
    issuer_keys::{Candidates, IssuerKeys},
    jws::UnverifiedToken,
    permissions::{CapabilitySet, Permissions},
    token_hash::TokenHash,
    token_rejection::TokenRejection,
};

/// The `iss` claim of our tokens.
const ISSUER: &str = "signaling-server";

/// Issues tokens and verifies them (contract section 1; RFC 7519).
///
/// Tokens that other services issue with the same key are accepted, if they carry `sub` and `exp`.
/// As RFC 8725 advises, the server chooses the algorithm and not the token.
pub struct AccessTokens {
    signing: EncodingKey,
    /// The current key, and the previous one where that still verifies.
    verifying: Vec<DecodingKey>,
    lifetime: Duration,
    max_lifetime: Option<Duration>,
    /// The algorithms that are accepted.
    algorithms: Vec<Algorithm>,
    rules: IssuerRules,
    /// Replaced as a whole; `None` until they are known.
    issuer_keys: RwLock<Option<Arc<IssuerKeys>>>,
}

/// Whose key has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// `JWT_SECRET_KEY`: this server, or a service that shares the key.
    Secret,
    /// A key of the issuer.
    Issuer,
}

/// The claims of a valid token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The user that it authenticates; callers check that there is such an account.
    pub username: Arc<str>,
    /// When it expires, in whole seconds since the Unix epoch.
    pub expires_at: u64,
    /// Identifies this token.
    pub fingerprint: TokenHash,
    /// The [`Account::stamp`](super::users::Account::stamp) at the login that it was issued for; `None`
    /// where another service issued it.
    pub stamp: Option<String>,
    /// Whether a key of the issuer has signed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_from_issuer: bool,
    /// When it was issued, in whole seconds since the Unix epoch, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// The session that it belongs to with those that it was refreshed from; only our tokens have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The hash of its `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TokenHash>,
    /// What it allows; `None` for what all tokens allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Box<Permissions>>,
}

impl Claims {
    /// What the user may do in the rooms that the token allows.
    pub fn capabilities(&self) -> CapabilitySet {
        self.permissions.as_ref().map_or(CapabilitySet::MEMBER, |permissions| permissions.can)
    }

    /// Whether media may go through TURN servers only.
    pub fn is_relay_only(&self) -> bool {
        self.permissions.as_ref().is_some_and(|permissions| permissions.is_relay_only)
    }

    /// What the members of a room see beside the username.
    pub fn display_name(&self) -> Option<&str> {
        self.permissions.as_ref().and_then(|permissions| permissions.name.as_deref())
    }

    /// Whether the user may be a member of `room`.
    pub fn allow_membership(&self, room: &str) -> bool {
        self.capabilities().has_all(CapabilitySet::JOIN)
            && self.permissions.as_ref().is_none_or(|permissions| permissions.allow_room(room))
    }
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    iss: &'a str,
    pwd_stamp: &'a str,
    fam: &'a str,
}

/// A token for any user, as an administrator asks for it.
#[derive(Clone, Debug)]
pub struct MintRequest {
    /// The user.
    pub username: String,
    /// How long it is valid; `None` for as long as a login.
    pub lifetime: Option<Duration>,
    /// The claim `signaling`; `None` for none.
    pub signaling: Option<serde_json::Value>,
}

/// Why a token is not minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Its own server would refuse it.
    #[error("such a token would be refused: {0}")]
    Refused(#[from] TokenRejection),
    /// Signing failed.
    #[error(transparent)]
    Signing(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signaling: Option<&'a serde_json::Value>,
}

/// What a new token says.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// The account.
    pub username: &'a str,
    /// Its [`Account::stamp`](super::users::Account::stamp).
    pub stamp: &'a str,
    /// The session that it continues; `None` for a new one.
    pub family: Option<&'a str>,
    /// When it is issued, in whole seconds since the Unix epoch.
    pub issued_at: u64,
    /// From when on its lifetime counts, in whole seconds since the Unix epoch.
    pub now: u64,
}

impl AccessTokens {
    /// Signs tokens with `secret`, valid for `lifetime`; tokens signed with `previous` stay valid.
    pub fn new(secret: &SecretString, previous: Option<&SecretString>, lifetime: Duration) -> Self {
        let key =
            |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            signing: EncodingKey::from_secret(secret.expose_secret().as_bytes()),
            verifying: [Some(secret), previous].into_iter().flatten().map(key).collect(),
            lifetime,
            max_lifetime: None,
            algorithms: vec![Algorithm::HS256],
            rules: IssuerRules::default(),
            issuer_keys: RwLock::new(None),
        }
    }

    /// Refuses tokens that are valid for more than `max_lifetime`.
    pub fn with_max_lifetime(self, max_lifetime: Option<Duration>) -> Self {
        Self { max_lifetime, ..self }
    }

    /// Accepts these algorithms, and the tokens of an issuer that follow `rules`.
    pub fn with_issuer(self, algorithms: Vec<Algorithm>, rules: IssuerRules) -> Self {
        Self { algorithms, rules, ..self }
    }

    /// Replaces the keys of the issuer.
    pub fn set_issuer_keys(&self, keys: IssuerKeys) {
        let mut current = self.issuer_keys.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::new(keys));
    }

    /// Whether `token` would need a key that is not known, and that the issuer may have by now.
    pub fn needs_unknown_key(&self, token: &str) -> bool {
        let Ok(token) = UnverifiedToken::parse(token) else { return false };
        if token.is_signed_with_secret() || self.check_algorithm(&token).is_err() {
            return false;
        }
        let keys = self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        keys.is_none_or(|keys| {
            keys.candidates(token.algorithm, token.key_id.as_deref()).keys.is_empty()
        })
    }

    /// How long a new token is valid.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Issues a token for `username`, who logged in when the account had this `stamp`, in a session of its own. `now` in whole
    /// seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue(
        &self,
        username: &str,
        stamp: &str,
        now: u64,
    ) -> Result<SecretString, jsonwebtoken::errors::Error> {
        self.issue_in(NewToken { username, stamp, family: None, issued_at: now, now })
    }

    /// Issues a token, perhaps in the session of another one.
    ///
    /// # Errors
    ///
    /// Only if signing itself fails.
    pub fn issue_in(
        &self,
        NewToken { username, stamp, family, issued_at, now }: NewToken<'_>,
    ) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let new_family;
        let fam = match family {
            Some(family) => family,
            None => {
                new_family = uuid::Uuid::new_v4().simple().to_string();
                new_family.as_str()
            }
        };
        let claims = IssuedClaims {
            sub: username,
            exp: now + self.lifetime.as_secs(),
            iat: issued_at,
            jti: uuid::Uuid::new_v4().to_string(),
            iss: ISSUER,
            pwd_stamp: stamp,
            fam,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .map(SecretString::from)
    }

    /// Mints a token that is no login: it ends with no password, and is not refreshed. Returns it and how long it is valid.
    ///
    /// # Errors
    ///
    /// [`MintError`].
    pub fn mint(
        &self,
        request: &MintRequest,
        now: u64,
    ) -> Result<(SecretString, Duration), MintError> {
        let lifetime = request.lifetime.unwrap_or(self.lifetime);
        let claims = MintedClaims {
            sub: &request.username,
            exp: now + lifetime.as_secs(),
            iat: now,
            jti: uuid::Uuid::new_v4().to_string(),
            iss: ISSUER,
            signaling: request.signaling.as_ref(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)?;
        let token = SecretString::from(token);
        self.verify(token.expose_secret(), now)?;
        Ok((token, lifetime))
    }

    /// The claims of `token`, if it is valid at `now` (whole seconds since the Unix epoch).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it, for the log; clients are not told.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenRejection> {
        let token = UnverifiedToken::parse(token)?;
        self.check_algorithm(&token)?;
        let origin = self.check_signature(&token)?;
        token.check_critical()?;
        let presented: PresentedClaims = token.claims()?;
        let expires_at = self.check_expiry(&presented, now)?;
        presented.check_not_before(now)?;
        let username = self.user_of(&presented, origin)?.to_owned();
        let is_from_issuer = origin == TokenOrigin::Issuer;
        // The stamp is ours alone: an issuer's claim of that name is another thing.
        let stamp = if is_from_issuer { None } else { presented.stamp()?.map(str::to_owned) };
        let fingerprint = TokenHash::of(token.signed);
        let family = presented.text("fam").filter(|_| stamp.is_some()).map(str::to_owned);
        let (issued_at, id) = (presented.issued_at(), presented.text("jti").map(TokenHash::of_id));
        let permissions = presented.permissions()?.map(Box::new);
        Ok(Claims {
            username: username.into(),
            expires_at,
            fingerprint,
            stamp,
            is_from_issuer,
            issued_at,
            family,
            id,
            permissions,
        })
    }

    /// The user that the claims name, where a token of `origin` may name one.
    ///
    /// # Errors
    ///
    /// The claim is missing or no text; or the token is of another issuer, or for another audience.
    pub fn user_of<'a>(
        &self,
        presented: &'a PresentedClaims,
        origin: TokenOrigin,
    ) -> Result<&'a str, TokenRejection> {
        match self.rules_of(origin) {
            None => presented.user(),
            Some(rules) => {
                presented.check_issuer(rules)?;
                presented.check_audience(rules)?;
                presented.issuer_user(rules)
            }
        }
    }

    /// What tokens of `origin` must say beside the claims that all tokens have.
    pub fn rules_of(&self, origin: TokenOrigin) -> Option<&IssuerRules> {
        (origin == TokenOrigin::Issuer).then_some(&self.rules)
    }

    /// Whether the algorithm of the header is accepted.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::Algorithm`].
    pub fn check_algorithm(&self, token: &UnverifiedToken<'_>) -> Result<(), TokenRejection> {
        if self.algorithms.contains(&token.algorithm) {
            return Ok(());
        }
        let accepted = self.algorithms.clone();
        Err(TokenRejection::Algorithm { found: token.algorithm, accepted })
    }

    /// Whose key has signed the token.
    ///
    /// # Errors
    ///
    /// [`TokenRejection::WrongKey`], and that the issuer's key is not known.
    pub fn check_signature(
        &self,
        token: &UnverifiedToken<'_>,
    ) -> Result<TokenOrigin, TokenRejection> {
        if token.is_signed_with_secret() {
            let is_signed = self.verifying.iter().any(|key| token.is_signed_by(key));
            return if is_signed { Ok(TokenOrigin::Secret) } else { Err(TokenRejection::WrongKey) };
        }
        let keys = self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = keys.ok_or(TokenRejection::NoKeys)?;
        let Candidates { keys, count } = keys.candidates(token.algorithm, token.key_id.as_deref());
        if keys.is_empty() {
            return Err(TokenRejection::UnknownKey);
        }
        let tried = keys.len();
        if keys.into_iter().any(|key| token.is_signed_by(key)) {
            return Ok(TokenOrigin::Issuer);
        }
        if count > tried {
            return Err(TokenRejection::TooManyKeys { tried, count });
        }
        Err(TokenRejection::WrongKey)
    }

    /// When the token expires, in whole seconds since the Unix epoch, as is `now`.
    ///
    /// # Errors
    ///
    /// As [`PresentedClaims::expires_at`].
    pub fn check_expiry(
        &self,
        presented: &PresentedClaims,
        now: u64,
    ) -> Result<u64, TokenRejection> {
        presented.expires_at(now, self.max_lifetime.map(|lifetime| lifetime.as_secs()))
    }
}

#[cfg(test)]
mod tests;
