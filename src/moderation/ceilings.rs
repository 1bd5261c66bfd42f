//! How many rules may be active: over all, of all moderators, of one, and for one room.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::{ModerationRule, RuleKind};

/// Rules that may be active at once.
pub const MAX_ACTIVE_RULES: usize = 10_000;

/// Those that moderators may have made, all together: administrators can always make some.
pub(super) const MAX_RULES_OF_MODERATORS: usize = 8_000;

/// Those that one moderator may have made.
pub(super) const MAX_RULES_OF_MODERATOR: usize = 500;

/// Those that moderators may have made for one room.
pub(super) const MAX_RULES_OF_ROOM: usize = 200;

/// As many rules are active as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleLimitReached {
    /// Of all.
    #[error("the limit of 10,000 active moderation rules is reached; remove one first")]
    All,
    /// Of those that moderators have made.
    #[error("the limit of 8,000 active moderation rules of moderators is reached")]
    Moderators,
    /// Of those that this moderator has made.
    #[error(
        "the limit of 500 active moderation rules of one moderator is reached; unmute or unlock first"
    )]
    Moderator,
    /// Of those that moderators have made for this room.
    #[error(
        "the limit of 200 active moderation rules of one room is reached; unmute or unlock first"
    )]
    Room,
}

/// How many rules are active, of whom and for which room.
#[derive(Default)]
pub(super) struct ActiveRules {
    /// Each with its moderator, if it has one; those that are over first come first.
    by_end: BTreeMap<(u64, RuleKind), Option<String>>,
    of_moderators: usize,
    of_moderator: HashMap<String, usize>,
    /// Those that moderators have made.
    of_room: HashMap<String, usize>,
}

impl ActiveRules {
    /// Counts a rule until it is over. Another one about the same does not count any more.
    pub(super) fn replace(&mut self, old: Option<&ModerationRule>, new: &ModerationRule) {
        if let Some(old) = old {
            self.remove(&(old.until, old.about.clone()));
        }
        if new.is_removed {
            return;
        }
        if let Some(moderator) = &new.moderator {
            self.of_moderators += 1;
            *self.of_moderator.entry(moderator.clone()).or_default() += 1;
            *self.of_room.entry(room_of(&new.about)).or_default() += 1;
        }
        self.by_end.insert((new.until, new.about.clone()), new.moderator.clone());
    }

    /// Counts those no more that are over at `now`, in seconds since the Unix epoch.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some(first) = self.by_end.first_entry()
            && first.key().0 <= now
        {
            let key = first.key().clone();
            self.remove(&key);
        }
    }

    /// Says whether there may be one more: a rule about `about` that `moderator` makes, or nothing where an administrator does.
    /// `known` is the active rule about that, which it replaces.
    ///
    /// # Errors
    ///
    /// Which limit is reached.
    pub(super) fn check(
        &self,
        about: &RuleKind,
        moderator: Option<&str>,
        known: Option<&ModerationRule>,
    ) -> Result<(), RuleLimitReached> {
        let is_below =
            |count: usize, limit, reached| if count < limit { Ok(()) } else { Err(reached) };
        if known.is_none() {
            is_below(self.by_end.len(), MAX_ACTIVE_RULES, RuleLimitReached::All)?;
        }
        let Some(moderator) = moderator else { return Ok(()) };
        let known = known.and_then(|known| known.moderator.as_deref());
        if known != Some(moderator) {
            let count = self.of_moderator.get(moderator).copied().unwrap_or_default();
            is_below(count, MAX_RULES_OF_MODERATOR, RuleLimitReached::Moderator)?;
        }
        if known.is_none() {
            let count = self.of_room.get(&room_of(about)).copied().unwrap_or_default();
            is_below(count, MAX_RULES_OF_ROOM, RuleLimitReached::Room)?;
            is_below(self.of_moderators, MAX_RULES_OF_MODERATORS, RuleLimitReached::Moderators)?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &(u64, RuleKind)) {
        if let Some(Some(moderator)) = self.by_end.remove(key) {
            self.of_moderators -= 1;
            decrement(&mut self.of_moderator, &moderator);
            decrement(&mut self.of_room, &room_of(&key.1));
        }
    }
}

/// The room of a moderator's rule. It always has one; a rule of a file may have none.
fn room_of(about: &RuleKind) -> String {
    about.room().unwrap_or_default().to_owned()
}

fn decrement<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
