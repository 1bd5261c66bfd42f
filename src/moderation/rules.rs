//! All moderation rules that are kept, in memory and in a file.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    EntryDenied, MAX_ACTIVE_RULES, ModerationRule, RuleKind, RuleLimitReached, Subject,
    ceilings::ActiveRules,
};
use crate::storage::line_file::LineFile;

/// Rules that are kept at once, with those that are over and remembered.
pub(super) const MAX_KEPT_RULES: usize = 2 * MAX_ACTIVE_RULES;

/// How many that are over are dropped at once where too many are kept: looking for the oldest takes a while.
const EVICTED_AT_ONCE: usize = MAX_ACTIVE_RULES / 10;

/// Every rule that is kept, in memory and in a file beside the users file.
pub struct ModerationRules {
    file: LineFile,
    rules: RwLock<BTreeMap<RuleKind, ModerationRule>>,
    /// How many of them mute and are not removed: every message asks for that.
    mutes: AtomicUsize,
    /// Those that count against the limits.
    active: Mutex<ActiveRules>,
}

impl ModerationRules {
    /// Reads the rules of earlier processes.
    ///
    /// # Errors
    ///
    /// What the system says of a file that is there and cannot be read, or that it is no such file: without it, banned users
    /// would come in.
    pub fn load(users_csv: &Path) -> io::Result<Self> {
        let holds = "the moderation rules of administrators (bans, locks, capacities)";
        let (file, rules) = LineFile::load(users_csv, ".orders", holds, ModerationRule::parse)?;
        let rules: BTreeMap<_, _> =
            rules.into_iter().map(|rule| (rule.about.clone(), rule)).collect();
        let mutes = AtomicUsize::new(count_mutes(&rules));
        let mut active = ActiveRules::default();
        rules.values().for_each(|rule| active.replace(None, rule));
        Ok(Self { file, rules: RwLock::new(rules), mutes, active: Mutex::new(active) })
    }

    /// A rule that `moderator` makes, or an administrator, at `now`, in milliseconds since the Unix epoch, for so many seconds:
    /// newer than any about the same.
    ///
    /// # Errors
    ///
    /// [`RuleLimitReached`].
    pub fn create(
        &self,
        about: RuleKind,
        moderator: Option<&str>,
        now: u64,
        seconds: u64,
    ) -> Result<ModerationRule, RuleLimitReached> {
        let rules = self.read();
        let known = rules.get(&about);
        // A kick, or the removal of an active rule, adds none.
        if seconds > 0 {
            let mut active = self.lock_active();
            active.expire(now / 1000);
            let replaced = known.filter(|rule| rule.is_active(now / 1000));
            active.check(&about, moderator, replaced)?;
        }
        let at = now.max(known.map_or(0, |rule| rule.at.saturating_add(1)));
        let until = now / 1000 + seconds;
        let moderator = moderator.map(str::to_owned);
        Ok(ModerationRule { about, at, until, is_removed: false, members: None, moderator })
    }

    /// Whether there is a rule about this that applies at `now`, in seconds since the Unix epoch.
    pub fn is_active(&self, about: &RuleKind, now: u64) -> bool {
        self.read().get(about).is_some_and(|rule| rule.is_active(now))
    }

    /// Adds a rule, also another node's, unless a newer one about the same is known; whether it was added. `now` in seconds
    /// since the Unix epoch: where too many are kept, the oldest that are over by then make room, kicks before others.
    pub fn merge(&self, rule: ModerationRule, now: u64) -> bool {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let known = rules.get(&rule.about);
        if known.is_some_and(|known| known.rank() >= rule.rank()) {
            return false;
        }
        match (known.is_some_and(is_mute), is_mute(&rule)) {
            (false, true) => drop(self.mutes.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.mutes.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
        let mut active = self.lock_active();
        active.replace(known, &rule);
        active.expire(now);
        drop(active);
        rules.insert(rule.about.clone(), rule);
        if rules.len() > MAX_KEPT_RULES {
            evict_oldest(&mut rules, now);
            self.mutes.store(count_mutes(&rules), Ordering::Relaxed);
        }
        drop(rules);
        self.file.mark_dirty();
        true
    }

    /// Why a client may not enter `room` at `now`, in seconds since the Unix epoch.
    pub fn check_entry(
        &self,
        room: &str,
        username: &str,
        client_id: &str,
        now: u64,
    ) -> Option<EntryDenied> {
        let rules = self.read();
        // Nearly always.
        if rules.is_empty() {
            return None;
        }
        let is_active = |about: &RuleKind| rules.get(about).is_some_and(|rule| rule.is_active(now));
        if ban_kinds(room, username, client_id).iter().any(is_active) {
            return Some(EntryDenied::Banned);
        }
        drop(rules);
        self.is_locked(room, now).then_some(EntryDenied::Locked)
    }

    /// Whether a room is locked at `now`, in seconds since the Unix epoch.
    pub fn is_locked(&self, room: &str, now: u64) -> bool {
        self.is_active(&RuleKind::Lock { room: room.to_owned() }, now)
    }

    /// Whether there is a rule that mutes a member. It may have expired.
    pub fn has_mutes(&self) -> bool {
        self.mutes.load(Ordering::Relaxed) > 0
    }

    /// Whether a member of `room` is muted at `now`, in seconds since the Unix epoch.
    pub fn is_muted(&self, room: &str, username: &str, client_id: &str, now: u64) -> bool {
        let rules = self.read();
        let subjects =
            [Subject::Username(username.to_owned()), Subject::ClientId(client_id.to_owned())];
        let mut kinds =
            subjects.into_iter().map(|subject| RuleKind::Mute { room: room.to_owned(), subject });
        kinds.any(|about| rules.get(&about).is_some_and(|rule| rule.is_active(now)))
    }

    /// Whether a rule has ended a membership that began at `since`, in milliseconds since the Unix epoch.
    pub fn has_ended(&self, room: &str, username: &str, client_id: &str, since: u64) -> bool {
        let rules = self.read();
        !rules.is_empty()
            && ban_kinds(room, username, client_id).iter().any(|about| {
                rules.get(about).is_some_and(|rule| !rule.is_removed && since <= rule.at)
            })
    }

    /// The rules that apply at `now`, in seconds since the Unix epoch.
    pub fn active(&self, now: u64) -> Vec<ModerationRule> {
        self.read().values().filter(|rule| rule.is_active(now)).cloned().collect()
    }

    /// All of them, also those that are over and remembered, for other nodes.
    pub fn all(&self) -> Vec<ModerationRule> {
        self.read().values().cloned().collect()
    }

    /// Drops rules that have been over for long enough; `now` in seconds since the Unix epoch. Returns them.
    pub fn evict_expired(&self, now: u64) -> Vec<ModerationRule> {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let mut evicted = Vec::new();
        rules.retain(|_, rule| {
            let is_retained = rule.retained_until() > now;
            if !is_retained {
                evicted.push(rule.clone());
            }
            is_retained
        });
        self.mutes.store(count_mutes(&rules), Ordering::Relaxed);
        drop(rules);
        if !evicted.is_empty() {
            self.file.mark_dirty();
        }
        evicted
    }

    /// Brings the file up to date. Blocks while the disk works.
    ///
    /// # Errors
    ///
    /// What the system says; the rules apply for as long as this process runs.
    pub fn save(&self) -> io::Result<()> {
        // The lines are made of a copy: every join and message waits for the lock.
        self.file.save(|| self.all().iter().map(ModerationRule::to_line).collect())
    }

    fn lock_active(&self) -> MutexGuard<'_, ActiveRules> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<RuleKind, ModerationRule>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_mutes(rules: &BTreeMap<RuleKind, ModerationRule>) -> usize {
    rules.values().filter(|rule| is_mute(rule)).count()
}

/// Whether a rule is a mute that is not removed.
fn is_mute(rule: &ModerationRule) -> bool {
    matches!(rule.about, RuleKind::Mute { .. }) && !rule.is_removed
}

/// Drops some of the rules that are over.
fn evict_oldest(rules: &mut BTreeMap<RuleKind, ModerationRule>, now: u64) {
    let over = rules.values().filter(|rule| !rule.is_active(now));
    let mut over: Vec<_> =
        over.map(|rule| (!rule.is_kick(), rule.at, rule.about.clone())).collect();
    over.sort_unstable();
    for (.., about) in over.into_iter().take(EVICTED_AT_ONCE) {
        rules.remove(&about);
    }
}

/// Every ban that could be about a client.
fn ban_kinds(room: &str, username: &str, client_id: &str) -> [RuleKind; 4] {
    let of_room = |subject| RuleKind::Ban { room: Some(room.to_owned()), subject };
    [
        of_room(Subject::Everyone),
        of_room(Subject::Username(username.to_owned())),
        of_room(Subject::ClientId(client_id.to_owned())),
        RuleKind::Ban { room: None, subject: Subject::Username(username.to_owned()) },
    ]
}
