//! What a token claims (RFC 7519 section 4.1), and whether it counts.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    jws::present,
    permissions::Permissions,
    token_rejection::{FIRST_MILLISECONDS, TokenRejection, unit_of},
};

/// How far in the future a token's `nbf` may lie, in seconds: the clocks of two machines differ.
const CLOCK_SKEW: f64 = 5.0;

/// The longest name of a user without an account, in characters.
const MAX_FOREIGN_NAME: usize = 128;

/// The claims that count, of any JSON type. A token with one of the first four twice is refused.
#[derive(Deserialize)]
pub struct PresentedClaims {
    #[serde(default, deserialize_with = "present")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    pwd_stamp: Option<Value>,
    /// All others.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What the tokens of an issuer must say beside the claims that all tokens have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerRules {
    /// `JWT_ISSUER`: the only `iss`; `None` for any.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`: one of these is in `aud`; empty for any.
    pub audience: Vec<String>,
    /// `JWT_USER_CLAIM`: the claim with the name of the user.
    pub user_claim: String,
}

impl PresentedClaims {
    /// The user: `sub`.
    ///
    /// # Errors
    ///
    /// It is missing or no text.
    pub fn user(&self) -> Result<&str, TokenRejection> {
        let sub = self.sub.as_ref().ok_or(TokenRejection::MissingClaim("sub"))?;
        sub.as_str().ok_or_else(|| wrong_type("sub", "a text", sub))
    }

    /// The user of an issuer: the claim that `JWT_USER_CLAIM` names. An email address counts if the issuer has verified it.
    ///
    /// # Errors
    ///
    /// It is missing, no text, or no name.
    pub fn issuer_user(&self, rules: &IssuerRules) -> Result<&str, TokenRejection> {
        let claim = rules.user_claim.as_str();
        let name = if claim == "sub" {
            self.user()?
        } else {
            let value = self.others.get(claim);
            let value = value.ok_or_else(|| TokenRejection::NoUser(claim.to_owned()))?;
            value.as_str().ok_or_else(|| TokenRejection::NoUser(claim.to_owned()))?
        };
        // Some issuers write it as a text.
        let is_verified = match self.others.get("email_verified") {
            Some(Value::Bool(is_verified)) => *is_verified,
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        if claim == "email" && !is_verified {
            return Err(TokenRejection::EmailNotVerified);
        }
        Ok(name)
    }

    /// Whether the token is of the issuer that `rules` name.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn check_issuer(&self, rules: &IssuerRules) -> Result<(), TokenRejection> {
        let Some(issuer) = &rules.issuer else { return Ok(()) };
        let found = self.others.get("iss").ok_or(TokenRejection::MissingClaim("iss"))?;
        if found.as_str() == Some(issuer) {
            return Ok(());
        }
        Err(TokenRejection::OtherIssuer(found.as_str().unwrap_or_default().to_owned()))
    }

    /// Whether the token is for the audience that `rules` name.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn check_audience(&self, rules: &IssuerRules) -> Result<(), TokenRejection> {
        if rules.audience.is_empty() {
            return Ok(());
        }
        let found = match self.others.get("aud") {
            None => return Err(TokenRejection::MissingClaim("aud")),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(one) => Vec::from_iter(one.as_str()),
        };
        if found.iter().any(|one| rules.audience.iter().any(|wanted| wanted == one)) {
            return Ok(());
        }
        Err(TokenRejection::OtherAudience(found.join(", ")))
    }

    /// What the token allows; `None` where it does not say.
    ///
    /// # Errors
    ///
    /// The claim is not understood.
    pub fn permissions(&self) -> Result<Option<Permissions>, TokenRejection> {
        let claim = self.others.get("signaling").map(Permissions::parse);
        claim.transpose().map_err(TokenRejection::Permissions)
    }

    /// When the token was issued, in whole seconds since the Unix epoch; `None` where it does not say so as a number.
    pub fn issued_at(&self) -> Option<u64> {
        let iat = self.others.get("iat")?.as_f64()?;
        (0.0..FIRST_MILLISECONDS).contains(&iat).then(|| whole(iat))
    }

    /// The claim of this name, if it is a text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.others.get(claim)?.as_str()
    }

    /// The stamp of the account at the login, in tokens of this server.
    ///
    /// # Errors
    ///
    /// It is no text.
    pub fn stamp(&self) -> Result<Option<&str>, TokenRejection> {
        match &self.pwd_stamp {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(stamp)) => Ok(Some(stamp)),
            Some(other) => Err(wrong_type("pwd_stamp", "a text", other)),
        }
    }

    /// When the token expires, in whole seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// `exp` is missing, no number of seconds, not later than `now`, or more than `max_lifetime` after it. All in whole
    /// seconds.
    pub fn expires_at(&self, now: u64, max_lifetime: Option<u64>) -> Result<u64, TokenRejection> {
        let exp = self.exp.as_ref().ok_or(TokenRejection::MissingClaim("exp"))?;
        let (exp, time) = (number("exp", exp)?, seconds(now));
        if exp >= FIRST_MILLISECONDS {
            return Err(TokenRejection::Milliseconds { claim: "exp", unit: unit_of(exp) });
        }
        if exp <= time {
            return Err(TokenRejection::Expired { seconds: whole(time - exp) });
        }
        let left = exp - time;
        if let Some(allowed) = max_lifetime
            && left > seconds(allowed) + CLOCK_SKEW
        {
            return Err(TokenRejection::TooLongLived { seconds: whole(left), allowed });
        }
        Ok(whole(exp))
    }

    /// Whether the token is valid already.
    ///
    /// # Errors
    ///
    /// `nbf` is no number of seconds, or later than `now` by more than clocks differ.
    pub fn check_not_before(&self, now: u64) -> Result<(), TokenRejection> {
        let Some(nbf) = &self.nbf else { return Ok(()) };
        let (nbf, time) = (number("nbf", nbf)?, seconds(now));
        if nbf >= FIRST_MILLISECONDS {
            return Err(TokenRejection::Milliseconds { claim: "nbf", unit: unit_of(nbf) });
        }
        if nbf > time + CLOCK_SKEW {
            return Err(TokenRejection::NotYetValid { seconds: whole(nbf - time) });
        }
        Ok(())
    }
}

/// The name of a user who needs no account: longer ones than accounts have, with `:` and `|`, as issuers make them.
///
/// # Errors
///
/// [`TokenRejection::BadName`].
pub fn check_foreign_name(name: &str) -> Result<(), TokenRejection> {
    let fits = (1..=MAX_FOREIGN_NAME).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && name.trim() == name;
    if fits { Ok(()) } else { Err(TokenRejection::BadName) }
}

/// RFC 7519 section 2, NumericDate: seconds, possibly with a fraction.
fn number(claim: &'static str, value: &Value) -> Result<f64, TokenRejection> {
    value.as_f64().ok_or_else(|| wrong_type(claim, "a number of seconds", value))
}

fn wrong_type(claim: &'static str, expected: &'static str, value: &Value) -> TokenRejection {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    TokenRejection::ClaimType { claim, expected, found }
}

#[expect(clippy::cast_precision_loss, reason = "exact until the year 285 million")]
fn seconds(whole: u64) -> f64 {
    whole as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and none of these times is negative"
)]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}
