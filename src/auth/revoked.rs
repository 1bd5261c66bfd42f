//! Tokens that were logged out before their time, remembered across restarts.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::{PoisonError, RwLock},
};

use super::token::{Claims, TokenHash};
use crate::storage::line_file::LineFile;

/// How many tokens of one user may be logged out and not expired yet. With more, those that expire
/// soonest are good again for what is left of their time: a user can only do that to itself.
const MAX_TOKENS_PER_USER: usize = 1024;

/// The tokens that no longer count, in memory and in a file beside the users file.
///
/// The file holds a line for each: when it would have expired, its [`Fingerprint`] in hexadecimal,
/// and whose it was. Nobody gets in with what it says.
pub struct RevokedTokens {
    file: LineFile,
    users: RwLock<HashMap<String, EndedTokens>>,
}

/// One user's, those first that expire first.
type EndedTokens = BTreeSet<(u64, TokenHash)>;

impl RevokedTokens {
    /// Reads what was logged out before. `now` in whole seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// What the system says of a file that is there and cannot be read, or that it is no such file:
    /// tokens that were logged out would come back to life.
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

    /// From now on the token of these claims is refused; [`Revoked::save`] makes it last.
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

    /// The same from a line that another server made; whose token it was, and which.
    pub fn insert_line(&self, line: &str) -> Option<(String, TokenHash)> {
        let (username, token) = read_line(line)?;
        self.add(username, token);
        Some((username.to_owned(), token.1))
    }

    /// Everything that counts, for other servers.
    pub fn lines(&self) -> Vec<String> {
        lines_of(&self.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this token was logged out.
    pub fn contains(&self, claims: &Claims) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        let ended = users.get(&claims.username);
        ended.is_some_and(|ended| ended.contains(&(claims.expires_at, claims.fingerprint)))
    }

    /// Drops tokens that have expired anyway. `now` in whole seconds since the Unix epoch.
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
    /// What the system says; the tokens stay refused for as long as this process runs.
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

/// A token as a line: for the file, and for other servers.
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
    fn one_user_takes_no_more_room_than_his() {
        let folder = tempfile::tempdir().unwrap();
        let revoked = RevokedTokens::load(&folder.path().join("users.csv"), NOW).unwrap();
        revoked.insert(&claims("bob", 1, NOW + 1));

        for number in 0..2000 {
            revoked.insert(&claims("alice", 1, NOW + 1 + number));
        }

        assert_eq!(revoked.users.read().unwrap()["alice"].len(), MAX_TOKENS_PER_USER);
        assert!(revoked.contains(&claims("alice", 1, NOW + 2000)), "the last to expire");
        assert!(revoked.contains(&claims("bob", 1, NOW + 1)), "nobody else's");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named_and_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.csv.revoked");
        for text in ["x", "1 aa bob", &format!("1 {} ", "é".repeat(32)), "\n"] {
            fs::write(&file, text).unwrap();

            let error = RevokedTokens::load(&folder.path().join("users.csv"), NOW).err().unwrap();

            assert!(error.to_string().contains("users.csv.revoked: line 1"), "{error}");
        }
    }
}
