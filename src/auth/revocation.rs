//! Access tokens that were ended before they expired, in memory and in a file (`users.csv.revoked`): single ones, all of a
//! session family, and all that were issued before a time.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{PoisonError, RwLock},
};

use super::{access_token::Claims, token_hash::TokenHash};
use crate::storage::line_file::LineFile;

/// How many revoked tokens of one user are kept until they expire. With more, those that expire soonest become valid again
/// for the rest of their time: a user can do that only to itself.
const MAX_TOKENS_PER_USER: usize = 1024;

/// Stands for any user: where a token is ended by its `jti` alone.
const ANY_USER: &str = "";

/// The revoked tokens, in memory and in a file beside the users file.
///
/// The file has a line for each [`Revocation`]. The file authenticates no one.
pub struct RevokedTokens {
    file: LineFile,
    users: RwLock<HashMap<String, UserRevocations>>,
}

/// The revoked tokens of one user.
#[derive(Default)]
struct UserRevocations {
    /// Tokens, families and `jti`, each with the time until which it is kept.
    hashes: BTreeMap<TokenHash, u64>,
    /// Tokens that were issued before the first time are ended; the second is until when that is kept.
    issued_before: Option<(u64, u64)>,
}

/// Ends one token, one family, or all tokens of a user that were issued before a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    username: String,
    /// Until when it is kept, in whole seconds since the Unix epoch.
    until: u64,
    ended: EndedTokens,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EndedTokens {
    Hash(TokenHash),
    IssuedBefore(u64),
}

impl Revocation {
    /// Ends the token of these claims and all tokens of its family, which expire at `until` at the latest.
    pub fn of_session(claims: &Claims, until: u64) -> Self {
        let hash = claims.family.as_deref().map_or(claims.fingerprint, TokenHash::of_family);
        let (username, until) = (claims.username.to_string(), until.max(claims.expires_at));
        Self { username, until, ended: EndedTokens::Hash(hash) }
    }

    /// Ends the token with this `jti`, of any user.
    pub fn of_id(jti: &str, until: u64) -> Self {
        let ended = EndedTokens::Hash(TokenHash::of_id(jti));
        Self { username: ANY_USER.to_owned(), until, ended }
    }

    /// Ends all tokens of a user that were issued before `time`.
    pub fn of_issued_before(username: &str, time: u64, until: u64) -> Self {
        Self { username: username.to_owned(), until, ended: EndedTokens::IssuedBefore(time) }
    }

    /// The line of the file, which other nodes get as well: until when it is kept, a hash in hexadecimal or a time, and the
    /// username.
    pub fn to_line(&self) -> String {
        let Self { username, until, ended } = self;
        match ended {
            EndedTokens::Hash(TokenHash(bytes)) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{until} {hex} {username}")
            }
            EndedTokens::IssuedBefore(time) => format!("{until} before={time} {username}"),
        }
    }

    /// Reads such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut cells = line.splitn(3, ' ');
        let until = cells.next()?.parse().ok()?;
        let what = cells.next()?;
        let ended = match what.strip_prefix("before=") {
            Some(time) => EndedTokens::IssuedBefore(time.parse().ok()?),
            None => EndedTokens::Hash(parse_hash(what)?),
        };
        Some(Self { username: cells.next()?.to_owned(), until, ended })
    }

    /// The user whose sessions it may end; `None` for any.
    pub fn username(&self) -> Option<&str> {
        Some(self.username.as_str()).filter(|name| *name != ANY_USER)
    }
}

fn parse_hash(hex: &str) -> Option<TokenHash> {
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(TokenHash(bytes))
}

impl UserRevocations {
    fn add(&mut self, until: u64, ended: &EndedTokens) {
        match *ended {
            EndedTokens::Hash(hash) => {
                let known = self.hashes.entry(hash).or_default();
                *known = until.max(*known);
                if self.hashes.len() > MAX_TOKENS_PER_USER {
                    let first = self.hashes.iter().min_by_key(|(_, until)| **until);
                    let first = first.map(|(hash, _)| *hash);
                    if let Some(hash) = first {
                        self.hashes.remove(&hash);
                    }
                }
            }
            EndedTokens::IssuedBefore(time) => {
                let (known, kept) = self.issued_before.unwrap_or_default();
                self.issued_before = Some((time.max(known), until.max(kept)));
            }
        }
    }

    fn contains(&self, claims: &Claims) -> bool {
        let has = |hash| self.hashes.contains_key(&hash);
        has(claims.fingerprint)
            || claims.family.as_deref().is_some_and(|family| has(TokenHash::of_family(family)))
            || self
                .issued_before
                .is_some_and(|(time, _)| claims.issued_at.is_some_and(|at| at < time))
    }

    fn evict_expired(&mut self, now: u64) {
        self.hashes.retain(|_, until| *until > now);
        self.issued_before = self.issued_before.filter(|(_, until)| *until > now);
    }

    fn len(&self) -> usize {
        self.hashes.len() + usize::from(self.issued_before.is_some())
    }

    fn of<'a>(&'a self, username: &'a str) -> impl Iterator<Item = Revocation> + 'a {
        let hashes = self.hashes.iter().map(|(hash, until)| (*until, EndedTokens::Hash(*hash)));
        let before =
            self.issued_before.map(|(time, until)| (until, EndedTokens::IssuedBefore(time)));
        hashes.chain(before).map(move |(until, ended)| Revocation {
            username: username.to_owned(),
            until,
            ended,
        })
    }
}

impl RevokedTokens {
    /// Loads the revoked tokens. `now` in whole seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the file exists and cannot be read, or a line is invalid: revoked tokens would become valid again.
    pub fn load(users_csv: &Path, now: u64) -> io::Result<Self> {
        let holds = "the tokens that were logged out";
        let (file, revocations) = LineFile::load(users_csv, ".revoked", holds, Revocation::parse)?;
        let mut users = HashMap::<String, UserRevocations>::new();
        for Revocation { username, until, ended } in revocations {
            users.entry(username).or_default().add(until, &ended);
        }
        let revoked = Self { file, users: RwLock::new(users) };
        revoked.evict_expired(now);
        Ok(revoked)
    }

    /// Applies a revocation; [`save`](Self::save) writes it to disk.
    pub fn insert(&self, revocation: &Revocation) {
        let Revocation { username, until, ended } = revocation;
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        users.entry(username.clone()).or_default().add(*until, ended);
        drop(users);
        self.file.mark_dirty();
    }

    /// All revocations as lines, sorted, for other nodes.
    pub fn lines(&self) -> Vec<String> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> =
            users.iter().flat_map(|(username, revoked)| revoked.of(username)).collect();
        // Every token that is checked waits for the lock.
        drop(users);
        let mut lines: Vec<_> = all.iter().map(Revocation::to_line).collect();
        lines.sort_unstable();
        lines
    }

    /// Whether the token of these claims was ended.
    pub fn contains(&self, claims: &Claims) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(&*claims.username).is_some_and(|revoked| revoked.contains(claims))
            || claims.id.is_some_and(|id| {
                users.get(ANY_USER).is_some_and(|revoked| revoked.hashes.contains_key(&id))
            })
    }

    /// The time that a new token of this user must not be issued before; 0 where there is none.
    pub fn earliest_issue(&self, username: &str) -> u64 {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(username).and_then(|revoked| revoked.issued_before).map_or(0, |(time, _)| time)
    }

    /// Drops tokens that have expired. `now` in whole seconds since the Unix epoch.
    pub fn evict_expired(&self, now: u64) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = false;
        users.retain(|_, revoked| {
            let before = revoked.len();
            revoked.evict_expired(now);
            dropped |= revoked.len() < before;
            revoked.len() > 0
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn claims(username: &str, number: u8, expires_at: u64) -> Claims {
        Claims {
            username: username.into(),
            expires_at,
            fingerprint: TokenHash([number; 32]),
            stamp: None,
            is_from_issuer: false,
            issued_at: None,
            family: None,
            id: None,
            permissions: None,
        }
    }

    fn end(revoked: &RevokedTokens, claims: &Claims) {
        revoked.insert(&Revocation::of_session(claims, 0));
    }

    #[test]
    fn a_revocation_lasts_as_long_as_the_token_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        let (ended, other) = (claims("zoë b", 1, NOW + 10), claims("zoë b", 2, NOW + 10));

        let first = RevokedTokens::load(&users_csv, NOW).unwrap();
        end(&first, &ended);
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
    fn a_family_a_time_and_an_id_end_tokens_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        let of = |number, issued_at, family: &str, id: &str| Claims {
            issued_at,
            family: Some(family.to_owned()),
            id: Some(TokenHash::of_id(id)),
            ..claims("alice", number, NOW + 10)
        };
        let revoked = RevokedTokens::load(&users_csv, NOW).unwrap();
        let first = of(1, Some(NOW), "family", "one");
        revoked.insert(&Revocation::of_session(&first, NOW + 100));
        revoked.insert(&Revocation::of_issued_before("alice", NOW - 5, NOW + 100));
        revoked.insert(&Revocation::of_id("stolen", NOW + 100));
        revoked.save().unwrap();

        for revoked in [&revoked, &RevokedTokens::load(&users_csv, NOW).unwrap()] {
            let is_ended = |claims: Claims| revoked.contains(&claims);
            assert!(is_ended(of(2, Some(NOW), "family", "two")), "of the same session");
            assert!(!is_ended(of(3, Some(NOW), "other", "three")));
            assert!(is_ended(of(4, Some(NOW - 6), "other", "four")), "issued before");
            assert!(!is_ended(of(5, Some(NOW - 5), "other", "five")));
            assert!(!is_ended(of(6, None, "other", "six")), "it does not say when");
            let other = Claims { username: "bob".into(), ..of(7, None, "x", "stolen") };
            assert!(is_ended(other), "by its id");
            assert_eq!(
                (revoked.earliest_issue("alice"), revoked.earliest_issue("bob")),
                (NOW - 5, 0)
            );
        }
    }

    #[test]
    fn one_user_displaces_only_its_own_revocations() {
        let folder = tempfile::tempdir().unwrap();
        let revoked = RevokedTokens::load(&folder.path().join("users.csv"), NOW).unwrap();
        end(&revoked, &claims("bob", 1, NOW + 1));
        let alice = |number: u64| {
            let bytes = number.to_be_bytes().repeat(4).try_into().unwrap();
            Claims { fingerprint: TokenHash(bytes), ..claims("alice", 1, NOW + 1 + number) }
        };

        for number in 0..2000 {
            end(&revoked, &alice(number));
        }

        assert_eq!(revoked.users.read().unwrap()["alice"].len(), MAX_TOKENS_PER_USER);
        assert!(revoked.contains(&alice(1999)), "the last to expire");
        assert!(revoked.contains(&claims("bob", 1, NOW + 1)), "another account's");
    }

    #[test]
    fn an_invalid_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.csv.revoked");
        for text in ["x", "1 aa bob", "1 before=x bob", &format!("1 {} ", "é".repeat(32)), "\n"] {
            fs::write(&file, text).unwrap();

            let error = RevokedTokens::load(&folder.path().join("users.csv"), NOW).err().unwrap();

            assert!(error.to_string().contains("users.csv.revoked: line 1"), "{error}");
        }
    }
}
