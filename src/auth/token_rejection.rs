//! Why an access token is refused: for the log and for `doctor`. Clients are not told, so that no attacker learns from it how to
//! forge one.

use std::fmt;

use jsonwebtoken::Algorithm;
use strum::IntoStaticStr;

/// Times from here on are milliseconds, which `Date.now()` and its relatives give: in seconds it is the year 5138.
pub(super) const FIRST_MILLISECONDS: f64 = 100_000_000_000.0;

/// The unit of a time that is at least [`FIRST_MILLISECONDS`], where it means a time of this century.
pub(super) fn unit_of(time: f64) -> &'static str {
    if time < 1000.0 * FIRST_MILLISECONDS {
        "milliseconds"
    } else if time < 1_000_000.0 * FIRST_MILLISECONDS {
        "microseconds"
    } else {
        "nanoseconds"
    }
}

/// The most characters of a name that are repeated.
const MAX_SHOWN_CHARACTERS: usize = 128;

/// Why an access token is refused. Its text repeats nothing of the token but its algorithm, its times, and the name of a
/// user that a valid signature vouches for.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TokenRejection {
    /// It is longer than any token that is read.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not three parts in base64url with a JSON object as header (RFC 7515 section 3.1).
    Malformed(&'static str),
    /// The header names no algorithm that this server knows.
    UnknownAlgorithm,
    /// The header names an algorithm that is not accepted.
    Algorithm {
        /// The one that it names.
        found: Algorithm,
        /// Those that are accepted.
        accepted: Vec<Algorithm>,
    },
    /// It has an extension that must be understood, and is not (RFC 7515 section 4.1.11).
    CriticalExtension,
    /// It is signed with another key.
    WrongKey,
    /// No key of the issuer could be fetched yet.
    NoKeys,
    /// The issuer has no key of that name or kind.
    UnknownKey,
    /// Its `kid` names no key, and the issuer has more keys of its kind than are tried. None of those has signed it.
    TooManyKeys {
        /// How many were tried.
        tried: usize,
        /// How many there are.
        count: usize,
    },
    /// Its claims are no JSON object, or one of them stands there twice.
    NoClaims,
    /// A claim is missing.
    MissingClaim(&'static str),
    /// A claim has another JSON type.
    ClaimType {
        /// The claim.
        claim: &'static str,
        /// The type that it must have.
        expected: &'static str,
        /// The type that it has.
        found: &'static str,
    },
    /// A time is in milliseconds, or in a smaller unit.
    Milliseconds {
        /// The claim.
        claim: &'static str,
        /// The unit.
        unit: &'static str,
    },
    /// It has expired.
    Expired {
        /// How long ago, in seconds.
        seconds: u64,
    },
    /// It is not valid yet.
    NotYetValid {
        /// For how long, in seconds.
        seconds: u64,
    },
    /// It is valid for longer than `MAX_TOKEN_LIFETIME`.
    TooLongLived {
        /// For how much longer it is valid, in seconds.
        seconds: u64,
        /// What is allowed, in seconds.
        allowed: u64,
    },
    /// It is of another issuer than `JWT_ISSUER`.
    OtherIssuer(String),
    /// It is for another audience than `JWT_AUDIENCE`.
    OtherAudience(String),
    /// The claim of `JWT_USER_CLAIM` is missing or no text.
    NoUser(String),
    /// The user is an email address that the issuer has not verified.
    EmailNotVerified,
    /// The user is no name that a member can have.
    BadName,
    /// An account of the users file has the name, so a user of an issuer cannot have it.
    NameTaken(String),
    /// Its claim `signaling` is not understood.
    Permissions(&'static str),
    /// It was ended: by a logout, with its account, or by an administrator.
    LoggedOut,
    /// The users file has no such account.
    UnknownUser(String),
    /// The account is disabled.
    DisabledUser(String),
    /// The password of the account was changed after the login.
    PasswordChanged,
}

impl fmt::Display for TokenRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "it has {bytes} bytes; tokens of more than 8192 are not read")
            }
            Self::Malformed(problem) => f.write_str(problem),
            Self::UnknownAlgorithm => f.write_str("`alg` is missing, \"none\" or unknown"),
            Self::Algorithm { found, accepted } => {
                let accepted: Vec<_> = accepted.iter().map(|it| format!("{it:?}")).collect();
                write!(f, "`alg` is {found:?}; accepted: {}", accepted.join(", "))
            }
            Self::CriticalExtension => {
                f.write_str("`crit` asks for an extension that is not known")
            }
            Self::WrongKey => f.write_str("it is signed with another key"),
            Self::NoKeys => f.write_str("the keys of its issuer could not be fetched yet"),
            Self::UnknownKey => f.write_str("the issuer has no key of its `kid` and `alg`"),
            Self::TooManyKeys { tried, count } => write!(
                f,
                "its `kid` names no key; the issuer has {count} for its `alg`, and the first {tried} of them, which are tried, have \
                 not signed it"
            ),
            Self::NoClaims => f.write_str("its claims are no JSON object with each claim once"),
            Self::MissingClaim(claim) => write!(f, "`{claim}` is missing"),
            Self::ClaimType { claim, expected, found } => {
                write!(f, "`{claim}` is {found}; it must be {expected}")
            }
            Self::Milliseconds { claim, unit } => {
                write!(f, "`{claim}` is in {unit}; it must be in seconds")
            }
            Self::Expired { seconds } => write!(f, "it expired {} ago", Span(*seconds)),
            Self::NotYetValid { seconds } => {
                write!(f, "`nbf` lies {} in the future; compare the clocks", Span(*seconds))
            }
            Self::TooLongLived { seconds, allowed } => {
                let (left, allowed) = (Span(*seconds), Span(*allowed));
                write!(f, "it is valid for another {left}; MAX_TOKEN_LIFETIME allows {allowed}")
            }
            Self::OtherIssuer(found) => {
                write!(f, "`iss` is \"{}\", JWT_ISSUER is another one", shown(found))
            }
            Self::OtherAudience(found) => {
                write!(f, "`aud` is \"{}\", JWT_AUDIENCE is another one", shown(found))
            }
            Self::NoUser(claim) => {
                write!(f, "`{}`, which JWT_USER_CLAIM names, is no text in it", shown(claim))
            }
            Self::EmailNotVerified => f.write_str("`email_verified` is not true"),
            Self::BadName => f.write_str(
                "its user has not 1 to 128 characters, or control characters or spaces at the ends",
            ),
            Self::NameTaken(name) => write!(
                f,
                "\"{}\" is an account of the users file, so the issuer's user cannot have that name",
                shown(name)
            ),
            Self::Permissions(problem) => f.write_str(problem),
            Self::LoggedOut => f.write_str(
                "it was ended: by a logout, when its account was disabled, or by an administrator",
            ),
            Self::UnknownUser(name) => {
                write!(f, "the users file has no account \"{}\"", shown(name))
            }
            Self::DisabledUser(name) => write!(f, "the account \"{}\" is disabled", shown(name)),
            Self::PasswordChanged => f.write_str("the password was changed after the login"),
        }
    }
}

impl std::error::Error for TokenRejection {}

impl TokenRejection {
    /// The name of the variant, without what it says of this token.
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

/// A name on one line, and not endless.
fn shown(name: &str) -> String {
    let start = name.chars().take(MAX_SHOWN_CHARACTERS);
    start.map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

/// Seconds as people say them: `4 h 30 min`.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(seconds) = self;
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..172_800 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_in_the_units_of_people() {
        let spans = [0, 59, 60, 3599, 16_200, 172_800].map(|seconds| Span(seconds).to_string());

        assert_eq!(spans, ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "4 h 30 min", "2 days"]);
    }

    #[test]
    fn a_name_cannot_break_the_line() {
        let rejection = TokenRejection::UnknownUser(format!("a\n{}", "b".repeat(200)));

        let text = rejection.to_string();

        assert!(text.len() < 180 && !text.contains('\n'), "{text}");
    }
}
