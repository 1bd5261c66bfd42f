//! Access tokens that were revoked by a logout, in memory and in a file (`users.csv.revoked`).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::{PoisonError, RwLock},
};

use super::access_token::{Claims, TokenHash};
use crate::storage::line_file::LineFile;

/// How many revoked tokens of one user are kept until they expire. With more, those that expire soonest become valid again
/// for the rest of their time: a user can do that only to itself.
const MAX_TOKENS_PER_USER: usize = 1024;

/// The revoked tokens, in memory and in a file beside the users file.
///
/// The file has a line for each: its expiry, its [`TokenHash`] in hexadecimal, and its username. The file
/// authenticates no one.
pub struct RevokedTokens {
    file: LineFile,
    users: RwLock<HashMap<String, EndedTokens>>,
}

/// The revoked tokens of one user, ordered by expiry.
type EndedTokens = BTreeSet<(u64, TokenHash)>;

impl RevokedTokens {
    /// Loads the revoked tokens. `now` in whole seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the file exists and cannot be read, or a line is invalid: revoked tokens would become valid again.
    pub fn load(users_csv: &Path, now: u64) -> io::Result<Self> {
        let holds = "the tokens that were logged out";
        let owned =
            |line: &str| read_line(line).map(|(username, token)| (username.to_owned(), token));
        let (file, tokens) = LineFile::load(users_csv, ".revoked", holds, owned)?;
        let mut users = HashMap::<String, EndedTokens>::new();
        for (username, token) in tokens {
            users.entry(username).or_default().insert(token);
        }
        let revoked = Self { file, users: RwLock::new(users) };
        revoked.evict_expired(now);
        Ok(revoked)
    }

    /// Revokes the token of these claims; [`save`](Self::save) writes it to disk.
    pub fn insert(&self, claims: &Claims) {
        self.add(&claims.username, (claims.expires_at, claims.fingerprint));
    }

    fn add(&self, username: &str, token: (u64, TokenHash)) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let ended = users.entry(username.to_owned()).or_default();
        ended.insert(token);
        if ended.len() > MAX_TOKENS_PER_USER {
            ended.pop_first();
        }
        drop(users);
        self.file.mark_dirty();
    }

    /// Revokes the token of a line that another node made. Returns its username and hash.
    pub fn insert_line(&self, line: &str) -> Option<(String, TokenHash)> {
        let (username, token) = read_line(line)?;
        self.add(username, token);
        Some((username.to_owned(), token.1))
    }

    /// All revoked tokens as lines, for other nodes.
    pub fn lines(&self) -> Vec<String> {
        lines_of(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this token was revoked.
    pub fn contains(&self, claims: &Claims) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        let ended = users.get(&claims.username);
        ended.is_some_and(|ended| ended.contains(&(claims.expires_at, claims.fingerprint)))
    }

    /// Drops tokens that have expired. `now` in whole seconds since the Unix epoch.
    pub fn evict_expired(&self, now: u64) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = false;
        users.retain(|_, ended| {
            let before = ended.len();
            ended.retain(|(expires_at, _)| *expires_at > now);
            dropped |= ended.len() < before;
            !ended.is_empty()
        });
        users.shrink_to_fit();
        drop(users);
        if dropped {
            self.file.mark_dirty();
        }
    }

    /// Brings the file up to date. Blocks while the disk works.
    ///
    /// # Errors
    ///
    /// The error of the system; the tokens stay revoked for as long as this process runs.
    pub fn save(&self) -> io::Result<()> {
        self.file.save(|| self.lines())
    }
}

/// Sorted, so that the same tokens always make the same file.
fn lines_of(users: &HashMap<String, EndedTokens>) -> Vec<String> {
    let each = users.iter().flat_map(|(username, ended)| {
        ended
            .iter()
            .map(move |(expires_at, fingerprint)| line_of(username, *expires_at, fingerprint))
    });
    let mut lines: Vec<_> = each.collect();
    lines.sort_unstable();
    lines
}

/// A revoked token as a line, for the file and for other nodes.
pub fn line_of(username: &str, expires_at: u64, TokenHash(bytes): &TokenHash) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{expires_at} {hex} {username}")
}

fn read_line(line: &str) -> Option<(&str, (u64, TokenHash))> {
    let mut cells = line.splitn(3, ' ');
    let expires_at = cells.next()?.parse().ok()?;
    let hex = cells.next().filter(|hex| hex.len() == 64)?;
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((cells.next()?, (expires_at, TokenHash(bytes))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn claims(username: &str, number: u8, expires_at: u64) -> Claims {
        let fingerprint = TokenHash([number; 32]);
        Claims { username: username.to_owned(), expires_at, fingerprint, stamp: None }
    }

    #[test]
    fn a_revocation_lasts_as_long_as_the_token_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        let (ended, other) = (claims("zoë b", 1, NOW + 10), claims("zoë b", 2, NOW + 10));

        let first = RevokedTokens::load(&users_csv, NOW).unwrap();
        first.insert(&ended);
        first.save().unwrap();
        let second = RevokedTokens::load(&users_csv, NOW + 9).unwrap();
        let third = RevokedTokens::load(&users_csv, NOW + 10).unwrap();
        third.save().unwrap();

        assert!(first.contains(&ended) && second.contains(&ended));
        assert!(!first.contains(&other) && !second.contains(&other));
        assert!(third.users.read().unwrap().is_empty());
        assert_eq!(fs::read_to_string(folder.path().join("users.csv.revoked")).unwrap(), "");
    }

    #[test]
    fn one_user_displaces_only_its_own_revocations() {
        let folder = tempfile::tempdir().unwrap();
        let revoked = RevokedTokens::load(&folder.path().join("users.csv"), NOW).unwrap();
        revoked.insert(&claims("bob", 1, NOW + 1));

        for number in 0..2000 {
            revoked.insert(&claims("alice", 1, NOW + 1 + number));
        }

        assert_eq!(revoked.users.read().unwrap()["alice"].len(), MAX_TOKENS_PER_USER);
        assert!(revoked.contains(&claims("alice", 1, NOW + 2000)), "the last to expire");
        assert!(revoked.contains(&claims("bob", 1, NOW + 1)), "another account's");
    }

    #[test]
    fn an_invalid_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.csv.revoked");
        for text in ["x", "1 aa bob", &format!("1 {} ", "é".repeat(32)), "\n"] {
            fs::write(&file, text).unwrap();

            let error = RevokedTokens::load(&folder.path().join("users.csv"), NOW).err().unwrap();

            assert!(error.to_string().contains("users.csv.revoked: line 1"), "{error}");
        }
    }
}
