//! Checking and hashing passwords, off the async threads and a few at a time.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// bcrypt reads no more than this; what is longer is refused, never cut.
pub const MAX_PASSWORD_BYTES: usize = 72;

/// What a hash from elsewhere may cost at most: four seconds a login, where 31 would take days.
const MAX_COST: u32 = 16;

/// What a new hash costs: 2^12 rounds, about a quarter of a second.
pub const COST: u32 = 12;

/// Salt and digest of a hash that no password has.
const DUMMY_HASH_TAIL: &str = "......................jP/28M6YW2E1359Y/g1FSSGagH9uPr2";

/// Checks passwords.
///
/// A check costs a quarter of a second of one core: it runs on the blocking threads, and on all but
/// one core at most, so that a flood of logins never takes the cores that carry calls.
#[derive(Clone)]
pub struct Passwords {
    at_once: usize,
    permits: Arc<Semaphore>,
}

impl Passwords {
    /// Checks on `cores - 1` threads at once, and on one at least.
    pub fn new(cores: usize) -> Self {
        let at_once = cores.saturating_sub(1).max(1);
        Self { at_once, permits: Arc::new(Semaphore::new(at_once)) }
    }

    /// How many may check at once.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Whether `password` has `hash`.
    ///
    /// Waits for its turn first, then asks `still_allowed`, so that those who queued while a lock
    /// was being earned do not slip past it.
    ///
    /// # Errors
    ///
    /// What `still_allowed` answers.
    pub async fn check<E>(
        &self,
        password: SecretString,
        hash: String,
        still_allowed: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        #[expect(clippy::expect_used, reason = "see the message")]
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        still_allowed()?;
        tracing::trace!("checking a password");
        let checked = tokio::task::spawn_blocking(move || has_hash(&password, &hash));
        #[expect(clippy::expect_used, reason = "see the message")]
        Ok(checked.await.expect("bcrypt does not panic, and the task is never aborted"))
    }
}

/// A hash that no password has, so that a name without an account costs as much as one with.
pub fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}${DUMMY_HASH_TAIL}")
}

/// The cost of a bcrypt hash, where it is one.
pub fn cost_of(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

/// Whether `password` has this bcrypt hash. Blocks for a quarter of a second.
pub fn has_hash(password: &SecretString, hash: &str) -> bool {
    let bytes = password.expose_secret().as_bytes();
    // bcrypt would cut both at 72 bytes and take the NUL for the end.
    let readable = bytes.len() <= MAX_PASSWORD_BYTES && !bytes.contains(&0);
    let matches = bcrypt::verify(bytes, hash).unwrap_or(false);
    readable && matches
}

/// The hash of a new password, `$2b$12$…`. Blocks for a quarter of a second.
///
/// # Errors
///
/// Only if the system gives no random salt.
pub fn hash(password: &SecretString) -> Result<String, bcrypt::BcryptError> {
    bcrypt::hash(password.expose_secret(), COST)
}

/// Whether `hash` looks like a bcrypt hash that can be checked in a login's time: `$2a$`, `$2b$` or
/// `$2y$`, a cost up to 16, salt and digest.
pub fn is_hash(hash: &str) -> bool {
    let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| hash.strip_prefix(prefix))
    else {
        return false;
    };
    let Some((cost, digest)) = rest.split_once('$') else { return false };
    cost.len() == 2
        && cost.bytes().all(|byte| byte.is_ascii_digit())
        && cost.parse().is_ok_and(|cost: u32| (4..=MAX_COST).contains(&cost))
        && digest.len() == 53
        && digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From passlib 1.7.4 and Python's bcrypt 4.0.1; the last is spelled as PHP and htpasswd do.
    const FROM_ELSEWHERE: [(&str, &str); 5] = [
        ("password123", "$2b$12$qosdASkcgVz5u2OISmsHteC0pgEIIiA5NyWgi.tosFNo/AilfMfra"),
        ("pässwörd:1", "$2b$04$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy"),
        ("admin123", "$2a$05$q3WyfoiMtrFyuH0xCuoQuO5x2XxzSzk7XSobGZ35VrXFE8VmLFq2S"),
        (
            "0123456789012345678901234567890123456789012345678901234567890123456789ab",
            "$2b$04$7AICZTFkz8L2XsnRc6ovk.Y.My00aagX36ZKFkzrpBEcK1K/vVDJ.",
        ),
        ("user2pass", "$2y$04$o/P2.h5gSVCCYwWfALFmVeme/oacuQV5Tp0JlnYwozZ5MeKgFvMC6"),
    ];

    #[test]
    fn hashes_of_other_tools_verify() {
        for (password, hash) in FROM_ELSEWHERE {
            assert!(is_hash(hash));
            assert!(has_hash(&password.into(), hash), "{hash}");
            assert!(!has_hash(&format!("{password}x").into(), hash), "{hash}");
        }
    }

    #[test]
    fn a_password_is_read_whole_or_refused() {
        let exact = "x".repeat(MAX_PASSWORD_BYTES);
        let hash = bcrypt::hash(&exact, 4).unwrap();

        assert!(has_hash(&exact.clone().into(), &hash));
        assert!(!has_hash(&format!("{exact}tail").into(), &hash));
        assert!(!has_hash(&"a\0b".into(), &bcrypt::hash("a", 4).unwrap()));
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash_that_costs_as_much_as_a_new_one() {
        let (new, nobodys) = (hash(&"secret".into()).unwrap(), dummy_hash(COST));

        assert!(is_hash(&new) && is_hash(&nobodys));
        assert_eq!((cost_of(&new), cost_of(&nobodys)), (Some(COST), Some(COST)));
    }

    #[test]
    fn what_is_no_bcrypt_hash_is_told_apart() {
        let digest = "a".repeat(53);
        for bad in [
            "",
            "secret",
            "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
            &format!("$2x$12${digest}"),
            &format!("$2b$3${digest}"),
            &format!("$2b$+4${digest}"),
            &format!("$2b$99${digest}"),
            &format!("$2b$12${digest}a"),
            &format!("$2b$12${}é", "a".repeat(51)),
        ] {
            assert!(!is_hash(bad), "{bad}");
            assert!(!has_hash(&"secret".into(), bad), "{bad}");
        }
        assert!(!is_hash(&format!("$2b$31${digest}")) && is_hash(&format!("$2b$16${digest}")));
    }

    #[tokio::test]
    async fn nobody_has_nobodys_hash() {
        for password in ["", "x", DUMMY_HASH_TAIL] {
            let checked =
                Passwords::new(2).check(password.into(), dummy_hash(4), || Ok::<_, ()>(())).await;

            assert_eq!(checked, Ok(false));
        }
    }

    #[tokio::test]
    async fn whoever_is_locked_out_while_waiting_is_not_checked() {
        let hash = bcrypt::hash("x", 4).unwrap();

        let checked = Passwords::new(1).check("x".into(), hash, || Err("locked")).await;

        assert_eq!(checked, Err("locked"));
    }
}
