//! Checks and hashes passwords.

use secrecy::{ExposeSecret, SecretString};

/// bcrypt reads no more bytes than this. A new password is not longer; a longer one matches a hash of another tool by its first
/// 72 bytes, as it did there.
pub const MAX_PASSWORD_BYTES: usize = 72;

/// The highest cost of a hash from another tool: four seconds for a login, where cost 31 would take days.
const MAX_COST: u32 = 16;

/// The cost of a new hash: 2^12 rounds, about a quarter of a second.
pub const COST: u32 = 12;

/// Salt and digest of a hash that matches no password.
const DUMMY_HASH_TAIL: &str = "......................jP/28M6YW2E1359Y/g1FSSGagH9uPr2";

/// A hash that matches no password, so that a login without an account takes as long as one with.
pub fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}${DUMMY_HASH_TAIL}")
}

/// The cost of a bcrypt hash, if `hash` is one.
pub fn cost_of(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

/// Whether `password` matches this bcrypt hash. Blocks for a quarter of a second.
pub fn has_hash(password: &SecretString, hash: &str) -> bool {
    let bytes = password.expose_secret().as_bytes();
    // bcrypt reads 72 bytes, in all tools alike; at a NUL some of them end.
    let readable = !bytes.contains(&0);
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

/// Whether `hash` is a bcrypt hash that can be checked within the time of a login: `$2a$`, `$2b$` or
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
            let is_cut = password.len() >= MAX_PASSWORD_BYTES;
            assert_eq!(has_hash(&format!("{password}x").into(), hash), is_cut, "{hash}");
        }
    }

    #[test]
    fn a_long_password_matches_by_what_bcrypt_reads_of_it() {
        let exact = "x".repeat(MAX_PASSWORD_BYTES);
        let hash = bcrypt::hash(&exact, 4).unwrap();

        assert!(has_hash(&exact.clone().into(), &hash));
        assert!(has_hash(&format!("{exact}tail").into(), &hash), "as with the tool that made it");
        assert!(!has_hash(&exact[1..].into(), &hash));
        assert!(!has_hash(&"a\0b".into(), &bcrypt::hash("a", 4).unwrap()));
    }

    #[test]
    fn the_dummy_hash_costs_as_much_as_a_new_one() {
        let (new, dummy) = (hash(&"secret".into()).unwrap(), dummy_hash(COST));

        assert!(is_hash(&new) && is_hash(&dummy));
        assert_eq!((cost_of(&new), cost_of(&dummy)), (Some(COST), Some(COST)));
    }

    #[test]
    fn anything_but_a_bcrypt_hash_is_recognised() {
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

    #[test]
    fn no_password_matches_the_dummy_hash() {
        for password in ["", "x", DUMMY_HASH_TAIL] {
            assert!(!has_hash(&password.into(), &dummy_hash(4)));
        }
    }
}
