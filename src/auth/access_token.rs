//! Access tokens: JSON Web Tokens (RFC 7519) that authenticate a user for `ACCESS_TOKEN_EXPIRE_MINUTES`.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, TokenData, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

/// The `iss` claim of our tokens.
const ISSUER: &str = "signaling-server";

/// How far in the future a token's `nbf` may lie, in seconds: the clocks of two machines differ.
const CLOCK_SKEW: f64 = 5.0;

/// The longest token that is read, in bytes. Neither tokens of this server nor those of a reasonable issuer are longer.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Issues tokens and verifies them (contract section 1; RFC 7519).
///
/// Tokens that other services issue with the same key are accepted, if they carry `sub` and `exp`.
/// As RFC 8725 advises, the server chooses the algorithm and not the token, and a header's claims about keys
/// (`kid`, `jku`, `jwk`, `x5u`, `x5c`) are not read.
pub struct AccessTokens {
    signing: EncodingKey,
    /// The current key, and the previous one where that still verifies.
    verifying: Vec<DecodingKey>,
    validation: Validation,
    lifetime: Duration,
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
}

/// Identifies a token: the SHA-256 of what is signed. It does not authenticate.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash(pub [u8; 32]);

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

/// The token is forged, expired, not valid yet, or not a token at all. Deliberately does not say which.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Could not validate credentials")]
pub struct InvalidToken;

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: &'a str,
    exp: u64,
    iat: u64,
    jti: String,
    iss: &'a str,
    pwd_stamp: &'a str,
}

/// RFC 7519 section 2, NumericDate: seconds, possibly with a fraction.
#[derive(Deserialize)]
struct PresentedClaims {
    sub: String,
    exp: f64,
    #[serde(default, deserialize_with = "number")]
    nbf: Option<f64>,
    pwd_stamp: Option<String>,
}

/// A number, where the field is present: `null` is not a number.
fn number<'de, D: Deserializer<'de>>(claim: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(claim).map(Some)
}

/// Validates the signature and the algorithm, and no claim.
pub(super) fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl AccessTokens {
    /// Signs tokens with `secret`, valid for `lifetime`; tokens signed with `previous` stay valid.
    pub fn new(secret: &SecretString, previous: Option<&SecretString>, lifetime: Duration) -> Self {
        let key =
            |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            signing: EncodingKey::from_secret(secret.expose_secret().as_bytes()),
            verifying: [Some(secret), previous].into_iter().flatten().map(key).collect(),
            // `exp` and `nbf` are compared below, with the time that the caller gives.
            validation: signature_only(),
            lifetime,
        }
    }

    /// How long a new token is valid.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Issues a token for `username`, who logged in when the account had this `stamp`. `now` in whole
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
        let claims = IssuedClaims {
            sub: username,
            exp: now + self.lifetime.as_secs(),
            iat: now,
            jti: uuid::Uuid::new_v4().to_string(),
            iss: ISSUER,
            pwd_stamp: stamp,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .map(SecretString::from)
    }

    /// The claims of `token`, if it is valid at `now` (whole seconds since the Unix epoch).
    ///
    /// # Errors
    ///
    /// [`InvalidToken`], whatever is wrong with it.
    pub fn verify(&self, token: &str, now: u64) -> Result<Claims, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken);
        }
        let decode =
            |key| jsonwebtoken::decode::<PresentedClaims>(token, key, &self.validation).ok();
        let decoded = self.verifying.iter().find_map(decode);
        let TokenData { header, claims: presented, .. } = decoded.ok_or(InvalidToken)?;
        if header.crit.is_some() {
            return Err(InvalidToken); // an extension that must be understood, and is not (RFC 7515 section 4.1.11)
        }
        #[expect(clippy::cast_precision_loss, reason = "exact until the year 285 million")]
        let time = now as f64;
        if presented.exp <= time || presented.nbf.is_some_and(|nbf| nbf > time + CLOCK_SKEW) {
            return Err(InvalidToken);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "later than now, and `as` saturates"
        )]
        let expires_at = presented.exp as u64;
        let (signed, _signature) = token.rsplit_once('.').ok_or(InvalidToken)?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, signed.as_bytes()).as_ref());
        Ok(Claims {
            username: presented.sub,
            expires_at,
            fingerprint: TokenHash(fingerprint),
            stamp: presented.pwd_stamp,
        })
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
        assert_eq!(tokens.verify(token, NOW + 1800), Err(InvalidToken));
    }

    #[test]
    fn a_key_that_was_replaced_still_verifies_and_no_longer_signs() {
        let (old, lifetime) = (tokens("old"), Duration::from_secs(1800));
        let rotated = AccessTokens::new(&"new".into(), Some(&"old".into()), lifetime);
        let before = old.issue("alice", "", NOW).unwrap();
        let after = rotated.issue("alice", "", NOW).unwrap();

        assert!(rotated.verify(before.expose_secret(), NOW).is_ok());
        assert!(rotated.verify(after.expose_secret(), NOW).is_ok());
        assert_eq!(old.verify(after.expose_secret(), NOW), Err(InvalidToken));
        assert_eq!(tokens("new").verify(before.expose_secret(), NOW), Err(InvalidToken));
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

        let decoded = jsonwebtoken::decode::<serde_json::Value>(
            token,
            &tokens.verifying[0],
            &tokens.validation,
        )
        .unwrap();

        assert_eq!(decoded.claims["iss"], "joe");
        assert_eq!(tokens.verify(token, 0), Err(InvalidToken), "it has no sub");
    }

    #[test]
    fn a_token_from_elsewhere_with_only_sub_and_exp_is_as_good() {
        for exp in ["1700000001", "1700000000.5", "99999999999999999999", "1e300"] {
            let token = minted("secret", HS256, &format!(r#"{{"sub":"alice","exp":{exp}}}"#));

            assert_eq!(tokens("secret").verify(&token, NOW).unwrap().username, "alice", "{exp}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_makes_no_difference() {
        let good = r#""sub":"alice","exp":1700000001"#;
        let bad_claims = [
            r#"{"sub":"alice"}"#.to_owned(),
            r#"{"exp":1700000001}"#.to_owned(),
            r#"{"sub":"alice","exp":1700000000}"#.to_owned(),
            r#"{"sub":"alice","exp":"9999999999"}"#.to_owned(),
            r#"{"sub":"alice","exp":null}"#.to_owned(),
            r#"{"sub":"alice","exp":true}"#.to_owned(),
            r#"{"sub":"alice","exp":[1700000001]}"#.to_owned(),
            r#"{"sub":"alice","exp":1e400}"#.to_owned(),
            r#"{"sub":1,"exp":1700000001}"#.to_owned(),
            r#"{"sub":["alice"],"exp":1700000001}"#.to_owned(),
            format!(r#"{{{good},"nbf":1700000006}}"#),
            format!(r#"{{{good},"nbf":"1700000000"}}"#),
            format!(r#"{{{good},"nbf":null}}"#),
            "[]".to_owned(),
            "not json".to_owned(),
        ];
        for claims in bad_claims {
            let token = minted("secret", HS256, &claims);

            assert_eq!(tokens("secret").verify(&token, NOW), Err(InvalidToken), "{claims}");
        }
        let early = minted("secret", HS256, &format!(r#"{{{good},"nbf":1700000005}}"#));
        assert!(tokens("secret").verify(&early, NOW).is_ok(), "within the leeway");
    }

    #[test]
    fn only_our_key_and_our_algorithm_count() {
        let claims = r#"{"sub":"alice","exp":1700000001}"#;
        let good = minted("secret", HS256, claims);
        let (signed, _) = good.rsplit_once('.').unwrap();
        let forged = [
            minted("other", HS256, claims),
            minted("", HS256, claims),
            minted("secret", r#"{"alg":"none"}"#, claims),
            minted("secret", r#"{"alg":"HS512"}"#, claims),
            minted("secret", r#"{"alg":"RS256"}"#, claims),
            minted("secret", r#"{}"#, claims),
            minted("secret", r#"{"alg":"HS256","crit":["exp"]}"#, claims),
            format!("{signed}."),
            signed.to_owned(),
            format!("{good}A"),
            format!("{good} "),
            format!("{good}."),
            String::new(),
            "..".to_owned(),
            "é.é.é".to_owned(),
            "a".repeat(1024 * 1024),
        ];
        for token in forged {
            assert_eq!(tokens("secret").verify(&token, NOW), Err(InvalidToken), "{token:.60}");
        }
        assert!(tokens("secret").verify(&good, NOW).is_ok());
    }
}
