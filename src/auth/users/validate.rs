//! What a username, a password and an email address may be (contract section 4).

use icu_properties::{CodePointMapData, props::GeneralCategory};
use secrecy::{ExposeSecret, SecretString};

use super::error::EditError;
use crate::auth::password::MAX_PASSWORD_BYTES;

/// Checks a username (contract section 4).
///
/// # Errors
///
/// Says what is accepted.
pub fn check_username(username: &str) -> Result<(), EditError> {
    if let Some(char) = username.chars().find(|char| is_invisible(*char)) {
        let code = u32::from(char);
        return Err(EditError::Refused(format!(
            "a username has no invisible and no unassigned characters; this one has U+{code:04X}"
        )));
    }
    let fits = (3..=64).contains(&username.chars().count())
        && username.trim() == username
        && !username.chars().any(|char| char == ':' || char.is_control());
    if fits {
        return Ok(());
    }
    Err(EditError::Refused(
        "a username has 3 to 64 characters, no \":\", no control characters and no space at either end".into(),
    ))
}

/// Whether a user may have this name: an account, a guest, or a user of an issuer. Accounts that exist already keep names that
/// [`check_username`] would refuse for a new one.
pub fn is_possible_username(username: &str) -> bool {
    (1..=128).contains(&username.chars().count()) && !username.chars().any(char::is_control)
}

/// Format characters, such as zero-width ones and those that turn the direction of a text, separators of lines, and characters
/// that Unicode has not assigned: names with them look like others.
fn is_invisible(char: char) -> bool {
    matches!(
        CodePointMapData::<GeneralCategory>::new().get(char),
        GeneralCategory::Format
            | GeneralCategory::Unassigned
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

/// Checks a new password (contract section 4).
///
/// # Errors
///
/// Says what is accepted.
pub fn check_password(password: &SecretString) -> Result<(), EditError> {
    let bytes = password.expose_secret().as_bytes();
    if (6..=MAX_PASSWORD_BYTES).contains(&bytes.len()) && !bytes.contains(&0) {
        return Ok(());
    }
    Err(EditError::Refused(format!(
        "a password has 6 to {MAX_PASSWORD_BYTES} bytes (bcrypt reads no more) and no NUL; this one has {}",
        bytes.len()
    )))
}

/// Checks an email address: text on both sides of an `@`, and no spaces.
///
/// # Errors
///
/// Says what is accepted.
pub fn check_email(email: &str) -> Result<(), EditError> {
    let fits =
        email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            && !email.chars().any(|char| char.is_whitespace() || char.is_control());
    if fits {
        Ok(())
    } else {
        Err(EditError::Refused(format!("\"{email}\" is no email address (name@host)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_passwords_and_emails_have_limits() {
        for good in ["abc", "zoë", "a b", &"é".repeat(64)] {
            assert!(check_username(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "a:b",
            " abc",
            "abc ",
            "a\nb",
            "ad\u{200b}min",
            "a\u{202e}nimda",
            "abc\u{378}",
            &"a".repeat(65),
        ] {
            assert!(check_username(bad).is_err(), "{bad}");
        }
        for (password, fits) in [
            ("12345", false),
            ("123456", true),
            (&*"é".repeat(36), true),
            (&*"é".repeat(37), false),
            ("123456\0", false),
        ] {
            assert_eq!(check_password(&password.into()).is_ok(), fits, "{password}");
        }
        assert!(
            check_email("a@b").is_ok()
                && check_email("@b").is_err()
                && check_email("a b@c").is_err()
                && check_email("ab").is_err()
        );
    }
}
