//! What a token claims (RFC 7519 section 4.1), and whether it counts.

use serde::Deserialize;
use serde_json::Value;

use super::{
    jws::present,
    token_rejection::{FIRST_MILLISECONDS, TokenRejection},
};

/// How far in the future a token's `nbf` may lie, in seconds: the clocks of two machines differ.
const CLOCK_SKEW: f64 = 5.0;

/// The claims that count, of any JSON type. A claim that stands there twice is refused; unknown ones are ignored.
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
            return Err(TokenRejection::Milliseconds { claim: "exp" });
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
            return Err(TokenRejection::Milliseconds { claim: "nbf" });
        }
        if nbf > time + CLOCK_SKEW {
            return Err(TokenRejection::NotYetValid { seconds: whole(nbf - time) });
        }
        Ok(())
    }
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
