//! Access tokens: JSON Web Tokens (RFC 7519) that authenticate a user for `ACCESS_TOKEN_EXPIRE_MINUTES`.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    claims::{IssuerRules, PresentedClaims},
    issuer_keys::IssuerKeys,
    jws::UnverifiedToken,
    permissions::{CapabilitySet, Permissions},
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
    pub username: String,
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

    /// Whether the user may be a member of `room`.
    pub fn allow_membership(&self, room: &str) -> bool {
        self.capabilities().has_all(CapabilitySet::JOIN)
            && self.permissions.as_ref().is_none_or(|permissions| permissions.allow_room(room))
    }
}

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
    fn of(signed: &str) -> Self {
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
        matches!(
            self.check_algorithm(&token).and_then(|()| self.check_signature(&token)),
            Err(TokenRejection::NoKeys | TokenRejection::UnknownKey)
        )
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
            username,
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
        match origin {
            TokenOrigin::Secret => presented.user(),
            TokenOrigin::Issuer => {
                presented.check_issuer(&self.rules)?;
                presented.issuer_user(&self.rules)
            }
        }
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
        if AlgorithmFamily::Hmac.algorithms().contains(&token.algorithm) {
            let is_signed = self.verifying.iter().any(|key| token.is_signed_by(key));
            return if is_signed { Ok(TokenOrigin::Secret) } else { Err(TokenRejection::WrongKey) };
        }
        let keys = self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = keys.ok_or(TokenRejection::NoKeys)?;
        let candidates = keys.candidates(token.algorithm, token.key_id.as_deref());
        if candidates.is_empty() {
            return Err(TokenRejection::UnknownKey);
        }
        let is_signed = candidates.into_iter().any(|key| token.is_signed_by(key));
        if is_signed { Ok(TokenOrigin::Issuer) } else { Err(TokenRejection::WrongKey) }
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
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn tokens(secret: &str) -> AccessTokens {
        AccessTokens::new(&secret.into(), None, Duration::from_secs(1800))
    }

    /// A token with given header and claims, signed without the crate under test.
    fn minted(secret: &str, header: &str, claims: &str) -> String {
        let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn a_token_authenticates_its_user_until_it_expires() {
        let tokens = tokens("secret");
        let token = tokens.issue("zoë", "stamp", NOW).unwrap();
        let token = token.expose_secret();

        let claims = tokens.verify(token, NOW + 1799).unwrap();

        assert_eq!((claims.username.as_str(), claims.expires_at), ("zoë", NOW + 1800));
        assert_eq!(claims.stamp.as_deref(), Some("stamp"));
        assert_eq!(tokens.verify(token, NOW + 1800), Err(TokenRejection::Expired { seconds: 0 }));
    }

    #[test]
    fn a_key_that_was_replaced_still_verifies_and_no_longer_signs() {
        let (old, lifetime) = (tokens("old"), Duration::from_secs(1800));
        let rotated = AccessTokens::new(&"new".into(), Some(&"old".into()), lifetime);
        let before = old.issue("alice", "", NOW).unwrap();
        let after = rotated.issue("alice", "", NOW).unwrap();

        assert!(rotated.verify(before.expose_secret(), NOW).is_ok());
        assert!(rotated.verify(after.expose_secret(), NOW).is_ok());
        assert_eq!(old.verify(after.expose_secret(), NOW), Err(TokenRejection::WrongKey));
        assert_eq!(
            tokens("new").verify(before.expose_secret(), NOW),
            Err(TokenRejection::WrongKey)
        );
    }

    /// RFC 7515 appendix A.1: key, header and claims of an HS256 token, as published.
    #[test]
    fn the_token_of_the_standard_has_our_signature() {
        let key = BASE64_URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
            .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
            .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let tokens = tokens("unused");
        let tokens = AccessTokens { verifying: vec![DecodingKey::from_secret(&key)], ..tokens };

        assert_eq!(
            tokens.verify(token, 0),
            Err(TokenRejection::MissingClaim("sub")),
            "the signature is good"
        );
    }

    #[test]
    fn a_token_from_elsewhere_with_only_sub_and_exp_is_as_good() {
        for exp in ["1700000001", "1700000000.5", "99999999999", "99999999999.9"] {
            let token = minted("secret", HS256, &format!(r#"{{"sub":"alice","exp":{exp}}}"#));

            assert_eq!(tokens("secret").verify(&token, NOW).unwrap().username, "alice", "{exp}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_claims_is_said() {
        let good = r#""sub":"alice","exp":1700000001"#;
        let bad_claims = [
            (r#"{"sub":"alice"}"#.to_owned(), "`exp` is missing"),
            (r#"{"exp":1700000001}"#.to_owned(), "`sub` is missing"),
            (r#"{"sub":"alice","exp":1699983800}"#.to_owned(), "it expired 4 h 30 min ago"),
            (r#"{"sub":"alice","exp":-1}"#.to_owned(), "it expired 19675 days ago"),
            (
                r#"{"sub":"alice","exp":"9999999999"}"#.to_owned(),
                "`exp` is a text; it must be a number of seconds",
            ),
            (r#"{"sub":"alice","exp":null}"#.to_owned(), "`exp` is null; it must"),
            (r#"{"sub":"alice","exp":true}"#.to_owned(), "`exp` is a boolean; it must"),
            (r#"{"sub":"alice","exp":[1700000001]}"#.to_owned(), "`exp` is an array; it must"),
            (r#"{"sub":"alice","exp":1e400}"#.to_owned(), "no JSON object"),
            (r#"{"sub":"alice","exp":1700000300000}"#.to_owned(), "`exp` is in milliseconds"),
            (r#"{"sub":"alice","exp":100000000000}"#.to_owned(), "`exp` is in milliseconds"),
            (r#"{"sub":"alice","exp":1e300}"#.to_owned(), "`exp` is in milliseconds"),
            (r#"{"sub":1,"exp":1700000001}"#.to_owned(), "`sub` is a number; it must be a text"),
            (r#"{"sub":["alice"],"exp":1700000001}"#.to_owned(), "`sub` is an array"),
            (r#"{"sub":"alice","sub":"bob","exp":1700000001}"#.to_owned(), "each claim once"),
            (format!(r#"{{{good},"nbf":1700000006}}"#), "`nbf` lies 6 s in the future"),
            (format!(r#"{{{good},"nbf":1700000000000}}"#), "`nbf` is in milliseconds"),
            (format!(r#"{{{good},"nbf":"1700000000"}}"#), "`nbf` is a text"),
            (format!(r#"{{{good},"nbf":null}}"#), "`nbf` is null"),
            (format!(r#"{{{good},"pwd_stamp":7}}"#), "`pwd_stamp` is a number"),
            ("[]".to_owned(), "no JSON object"),
            ("not json".to_owned(), "no JSON object"),
        ];
        for (claims, reason) in bad_claims {
            let token = minted("secret", HS256, &claims);

            let rejection = tokens("secret").verify(&token, NOW).unwrap_err().to_string();

            assert!(rejection.contains(reason), "{claims}: {rejection}");
        }
        let early = minted("secret", HS256, &format!(r#"{{{good},"nbf":1700000005}}"#));
        assert!(tokens("secret").verify(&early, NOW).is_ok(), "within the leeway");
    }

    #[test]
    fn a_token_that_is_valid_for_longer_than_allowed_is_refused() {
        let tokens = tokens("secret").with_max_lifetime(Some(Duration::from_secs(3600)));
        let verify = |exp: u64| {
            let token = minted("secret", HS256, &format!(r#"{{"sub":"alice","exp":{exp}}}"#));
            tokens.verify(&token, NOW).map(|claims| claims.expires_at)
        };

        assert_eq!(verify(NOW + 3605), Ok(NOW + 3605), "clocks differ by so much");
        assert_eq!(
            verify(NOW + 7200).unwrap_err().to_string(),
            "it is valid for another 2 h 0 min; MAX_TOKEN_LIFETIME allows 1 h 0 min"
        );
    }

    #[test]
    fn only_our_key_and_our_algorithm_count() {
        let claims = r#"{"sub":"alice","exp":1700000001}"#;
        let good = minted("secret", HS256, claims);
        let (signed, _) = good.rsplit_once('.').unwrap();
        let forged = [
            (minted("other", HS256, claims), "signed with another key"),
            (minted("", HS256, claims), "signed with another key"),
            (minted("secret", r#"{"alg":"none"}"#, claims), "`alg` is missing, \"none\""),
            (minted("secret", r#"{"alg":"HS512"}"#, claims), "`alg` is HS512; accepted: HS256"),
            (minted("secret", r#"{"alg":"RS256"}"#, claims), "`alg` is RS256; accepted: HS256"),
            (minted("secret", r#"{}"#, claims), "`alg` is missing"),
            (minted("secret", r#"{"alg":"HS256","crit":["exp"]}"#, claims), "`crit`"),
            (format!("{signed}."), "signed with another key"),
            (signed.to_owned(), "three parts"),
            (format!("{good}A"), "signed with another key"),
            (format!("{good} "), "signed with another key"),
            (format!("{good}."), "three parts"),
            (String::new(), "three parts"),
            ("..".to_owned(), "first part"),
            ("é.é.é".to_owned(), "first part"),
            ("a".repeat(1024 * 1024), "1048576 bytes"),
        ];
        for (token, reason) in forged {
            let rejection = tokens("secret").verify(&token, NOW).unwrap_err().to_string();

            assert!(rejection.contains(reason), "{token:.60}: {rejection}");
        }
        assert!(tokens("secret").verify(&good, NOW).is_ok());
    }
}
