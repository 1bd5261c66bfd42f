//! What administrators have ordered: who may not be in which room, which rooms let nobody in, how many a room holds.
//!
//! An order stands until its time is over, or until a newer one about the same replaces it, also one that takes it back.
//! So servers that tell each other their orders, in whatever sequence, come to the same.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, io,
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use serde::{Deserialize, Serialize};

use crate::auth::kept::Kept;

/// Orders that may stand at once.
pub const MAX_RULES: usize = 10_000;

/// How long an order is remembered that is over, in seconds: longer than a membership may be on its way, or a server
/// cut off from the others.
const RETENTION_SECONDS: u64 = 86_400;

/// The longest that an order may stand, in seconds: ten years.
pub const MAX_DURATION_SECONDS: u64 = 10 * 365 * 86_400;

/// What is no time: JSON has no whole numbers beyond it (RFC 8259 section 6).
const MAX_TIMESTAMP: u64 = (1 << 53) - 1;

/// One order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ModerationRule {
    /// What it is about; a newer one about the same replaces it.
    #[serde(flatten)]
    pub about: RuleKind,
    /// When it was given, in milliseconds since the Unix epoch.
    pub at: u64,
    /// When it is over by itself, in seconds since the Unix epoch.
    pub until: u64,
    /// It was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lifted: bool,
    /// How many the room holds, where it is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
}

/// What an order is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum RuleKind {
    /// They are thrown out, and come neither in nor back until it is over. One that is over at once is a kick.
    Ban {
        /// Of this room, or of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// Whom it is about.
        who: Subject,
    },
    /// Who is not in does not come in.
    Lock {
        /// This room.
        room: String,
    },
    /// The room holds more, or fewer, than others.
    Capacity {
        /// This room.
        room: String,
    },
}

impl RuleKind {
    /// Which room it is about; `None` for all.
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::Ban { room, .. } => room.as_deref(),
            Self::Lock { room } | Self::Capacity { room } => Some(room),
        }
    }
}

/// Whom a ban is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Everybody: the room is closed.
    Everyone,
    /// An account, or a guest by its name.
    Username(String),
    /// Whoever has this client id.
    ClientId(String),
}

/// As the log has it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Username(name) => write!(f, "username {name}"),
            Self::ClientId(id) => write!(f, "client_id {id}"),
        }
    }
}

/// Why somebody does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryDenied {
    /// Banned, or the room is closed.
    Banned,
    /// The room is locked.
    Locked,
}

/// There are [`MOST_ORDERS`] already.
#[derive(Debug, thiserror::Error)]
#[error("as many orders stand as are kept; lift one first")]
pub struct RuleLimitReached;

/// Every order that counts, in memory and in a file beside the users file.
pub struct ModerationRules {
    kept: Kept,
    orders: RwLock<BTreeMap<RuleKind, ModerationRule>>,
}

impl ModerationRule {
    /// The order of a [`line`](Self::line), if it is one that could have been given.
    pub fn parse(line: &str) -> Option<Self> {
        let order: Self = serde_json::from_str(line).ok()?;
        let times = order.at.max(order.until) <= MAX_TIMESTAMP;
        (times && order.members != Some(0)).then_some(order)
    }

    /// Whether it holds at `now`, in seconds since the Unix epoch.
    pub fn is_active(&self, now: u64) -> bool {
        !self.is_lifted && now < self.until
    }

    /// Whether it ends the membership of `username` in `room` that has this client id, whenever that began.
    pub fn ends_membership(&self, room: &str, username: &str, client_id: &str) -> bool {
        let RuleKind::Ban { room: of, who } = &self.about else { return false };
        !self.is_lifted
            && of.as_deref().is_none_or(|of| of == room)
            && match who {
                Subject::Everyone => true,
                Subject::Username(name) => name == username,
                Subject::ClientId(id) => id == client_id,
            }
    }

    /// The same order as a line: for the file, and for other servers.
    pub fn to_line(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(self).expect("an order can be written")
    }

    /// What is newer than what, on all servers alike.
    fn rank(&self) -> (u64, bool, u64, Option<usize>) {
        (self.at, self.is_lifted, self.until, self.members)
    }
}

impl ModerationRules {
    /// Reads what was ordered before.
    ///
    /// # Errors
    ///
    /// What the system says of a file that is there and cannot be read, or that it is no such file: who is banned would
    /// come in.
    pub fn load(users_csv: &Path) -> io::Result<Self> {
        let holds = "the orders of administrators (bans, locks, capacities)";
        let (kept, orders) = Kept::load(users_csv, ".orders", holds, ModerationRule::parse)?;
        let orders = orders.into_iter().map(|order| (order.about.clone(), order)).collect();
        Ok(Self { kept, orders: RwLock::new(orders) })
    }

    /// An order as it is given at `now`, in milliseconds since the Unix epoch, for so many seconds: newer than any about
    /// the same.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn create(
        &self,
        about: RuleKind,
        now: u64,
        seconds: u64,
    ) -> Result<ModerationRule, RuleLimitReached> {
        let orders = self.read();
        let known = orders.get(&about).map(|order| order.at.saturating_add(1));
        if known.is_none() && orders.len() >= MAX_RULES {
            return Err(RuleLimitReached);
        }
        drop(orders);
        let at = now.max(known.unwrap_or(0));
        Ok(ModerationRule {
            about,
            at,
            until: now / 1000 + seconds,
            is_lifted: false,
            members: None,
        })
    }

    /// Takes in an order, also another server's; whether it is news.
    pub fn merge(&self, order: ModerationRule) -> bool {
        let mut orders = self.orders.write().unwrap_or_else(PoisonError::into_inner);
        match orders.entry(order.about.clone()) {
            Entry::Occupied(known) if known.get().rank() >= order.rank() => return false,
            Entry::Occupied(mut known) => drop(known.insert(order)),
            Entry::Vacant(place) => drop(place.insert(order)),
        }
        drop(orders);
        self.kept.has_changed();
        true
    }

    /// Why somebody may not come into `room` at `now`, in seconds since the Unix epoch.
    pub fn check_entry(
        &self,
        room: &str,
        username: &str,
        client_id: &str,
        now: u64,
    ) -> Option<EntryDenied> {
        let orders = self.read();
        // Nearly always.
        if orders.is_empty() {
            return None;
        }
        let stands = |about: &RuleKind| orders.get(about).is_some_and(|order| order.is_active(now));
        if ban_kinds(room, username, client_id).iter().any(stands) {
            return Some(EntryDenied::Banned);
        }
        drop(orders);
        self.is_locked(room, now).then_some(EntryDenied::Locked)
    }

    /// Whether a room lets nobody in at `now`, in seconds since the Unix epoch.
    pub fn is_locked(&self, room: &str, now: u64) -> bool {
        let lock = RuleKind::Lock { room: room.to_owned() };
        self.read().get(&lock).is_some_and(|order| order.is_active(now))
    }

    /// Whether a membership is over that began at `since`, in milliseconds since the Unix epoch.
    pub fn has_ended(&self, room: &str, username: &str, client_id: &str, since: u64) -> bool {
        let orders = self.read();
        !orders.is_empty()
            && ban_kinds(room, username, client_id).iter().any(|about| {
                orders.get(about).is_some_and(|order| !order.is_lifted && since <= order.at)
            })
    }

    /// The orders that stand at `now`, in seconds since the Unix epoch.
    pub fn active(&self, now: u64) -> Vec<ModerationRule> {
        self.read().values().filter(|order| order.is_active(now)).cloned().collect()
    }

    /// All of them, also those that are over and remembered, for other servers.
    pub fn all(&self) -> Vec<ModerationRule> {
        self.read().values().cloned().collect()
    }

    /// Forgets what is over for long enough; `now` in seconds since the Unix epoch. Says what.
    pub fn evict_expired(&self, now: u64) -> Vec<ModerationRule> {
        let mut orders = self.orders.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        orders.retain(|_, order| {
            let is_kept = order.retained_until() > now;
            if !is_kept {
                gone.push(order.clone());
            }
            is_kept
        });
        drop(orders);
        if !gone.is_empty() {
            self.kept.has_changed();
        }
        gone
    }

    /// Brings the file up to date. Blocks while the disk works.
    ///
    /// # Errors
    ///
    /// What the system says; the orders hold for as long as this process runs.
    pub fn save(&self) -> io::Result<()> {
        self.kept.save(|| self.read().values().map(ModerationRule::to_line).collect())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<RuleKind, ModerationRule>> {
        self.orders.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModerationRule {
    /// In seconds since the Unix epoch.
    pub fn retained_until(&self) -> u64 {
        let over = if self.is_lifted { 0 } else { self.until };
        over.max((self.at / 1000).saturating_add(RETENTION_SECONDS))
    }
}

/// Every ban that would be about somebody.
fn ban_kinds(room: &str, username: &str, client_id: &str) -> [RuleKind; 4] {
    let of_room = |who| RuleKind::Ban { room: Some(room.to_owned()), who };
    [
        of_room(Subject::Everyone),
        of_room(Subject::Username(username.to_owned())),
        of_room(Subject::ClientId(client_id.to_owned())),
        RuleKind::Ban { room: None, who: Subject::Username(username.to_owned()) },
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn none() -> (tempfile::TempDir, ModerationRules) {
        let folder = tempfile::tempdir().unwrap();
        let orders = ModerationRules::load(&folder.path().join("users.csv")).unwrap();
        (folder, orders)
    }

    fn ban(room: Option<&str>, who: Subject) -> RuleKind {
        RuleKind::Ban { room: room.map(str::to_owned), who }
    }

    fn give(orders: &ModerationRules, about: RuleKind, seconds: u64) -> ModerationRule {
        let order = orders.create(about, NOW * 1000, seconds).unwrap();
        assert!(orders.merge(order.clone()));
        order
    }

    #[test]
    fn a_ban_is_about_whom_it_names_where_it_names_it_and_for_as_long_as_it_says() {
        let (_folder, orders) = none();
        give(&orders, ban(Some("den"), Subject::Username("bob".into())), 60);
        give(&orders, ban(None, Subject::Username("mallory".into())), 60);
        give(&orders, ban(Some("den"), Subject::ClientId("c9".into())), 60);
        give(&orders, ban(Some("attic"), Subject::Everyone), 60);
        give(&orders, RuleKind::Lock { room: "cellar".into() }, 60);

        let bars = |room, username, client, now| orders.check_entry(room, username, client, now);
        assert_eq!(bars("den", "bob", "x", NOW + 59), Some(EntryDenied::Banned));
        assert_eq!(bars("den", "bob", "x", NOW + 60), None);
        assert_eq!(bars("hall", "bob", "x", NOW), None);
        assert_eq!(bars("hall", "mallory", "x", NOW), Some(EntryDenied::Banned));
        assert_eq!(bars("den", "alice", "c9", NOW), Some(EntryDenied::Banned));
        assert_eq!(bars("hall", "alice", "c9", NOW), None);
        assert_eq!(bars("attic", "alice", "x", NOW), Some(EntryDenied::Banned));
        assert_eq!(bars("cellar", "alice", "x", NOW), Some(EntryDenied::Locked));
    }

    #[test]
    fn a_kick_ends_what_was_and_bars_nobody() {
        let (_folder, orders) = none();
        let kick = give(&orders, ban(Some("den"), Subject::ClientId("c1".into())), 0);

        assert!(
            kick.ends_membership("den", "bob", "c1") && !kick.ends_membership("den", "bob", "c2")
        );
        assert!(orders.has_ended("den", "bob", "c1", kick.at));
        assert!(!orders.has_ended("den", "bob", "c1", kick.at + 1));
        assert_eq!(orders.check_entry("den", "bob", "c1", NOW), None);
    }

    #[test]
    fn an_order_that_is_taken_back_is_as_if_it_had_never_been() {
        let (_folder, orders) = none();
        let about = ban(Some("den"), Subject::Username("bob".into()));
        give(&orders, about.clone(), 60);
        let lifted =
            ModerationRule { is_lifted: true, ..orders.create(about, NOW * 1000, 0).unwrap() };

        assert!(orders.merge(lifted));
        assert_eq!(orders.check_entry("den", "bob", "c1", NOW), None);
        assert!(!orders.has_ended("den", "bob", "c1", 1));
        assert_eq!(orders.active(NOW), []);
    }

    #[test]
    fn orders_outlive_the_process_until_they_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let users_csv = folder.path().join("users.csv");
        let first = ModerationRules::load(&users_csv).unwrap();
        let long = give(&first, RuleKind::Lock { room: "Zimmer 7/é".into() }, 10 * 86_400);
        let short = give(&first, ban(Some("den"), Subject::Everyone), 60);
        first.save().unwrap();

        let second = ModerationRules::load(&users_csv).unwrap();

        assert_eq!(second.all(), [short.clone(), long.clone()]);
        assert_eq!(second.evict_expired(NOW + RETENTION_SECONDS), [short]);
        assert_eq!(second.evict_expired(NOW + 10 * 86_400 - 1), []);
        second.save().unwrap();
        assert_eq!(ModerationRules::load(&users_csv).unwrap().all(), [long]);
    }

    #[test]
    fn no_more_orders_are_given_than_are_kept_but_known_ones_are_changed() {
        let (_folder, orders) = none();
        let lock = |number: usize| RuleKind::Lock { room: number.to_string() };
        for number in 0..MAX_RULES {
            give(&orders, lock(number), 60);
        }

        assert!(orders.create(lock(MAX_RULES), NOW * 1000, 60).is_err());
        give(&orders, lock(0), 120);
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named_and_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let endless = format!(r#"{{"order":"lock","room":"den","at":{0},"until":{0}}}"#, u64::MAX);
        let nobody = r#"{"order":"capacity","room":"den","at":1,"until":2,"members":0}"#;
        for text in [r#"{"order":"dance"}"#, &endless, nobody] {
            std::fs::write(folder.path().join("users.csv.orders"), text).unwrap();

            let error = ModerationRules::load(&folder.path().join("users.csv")).err().unwrap();

            assert!(error.to_string().contains("users.csv.orders: line 1"), "{error}");
        }
    }

    fn some_order() -> impl Strategy<Value = ModerationRule> {
        let about = prop_oneof![
            Just(ban(Some("den"), Subject::Everyone)),
            Just(ban(None, Subject::Username("bob".into()))),
            Just(RuleKind::Lock { room: "den".into() }),
            Just(RuleKind::Capacity { room: "den".into() }),
        ];
        (about, 0..4_u64, 0..3_u64, any::<bool>(), prop::option::of(1..3_usize)).prop_map(
            |(about, at, until, is_lifted, members)| ModerationRule {
                about,
                at,
                until,
                is_lifted,
                members,
            },
        )
    }

    proptest! {
        #[test]
        fn servers_that_hear_the_same_orders_in_any_sequence_come_to_the_same(
            (heard, again) in prop::collection::vec(some_order(), 0..20).prop_flat_map(|heard| (Just(heard.clone()), Just(heard).prop_shuffle()))
        ) {
            let ((_a, one), (_b, other)) = (none(), none());
            for order in &heard {
                one.merge(order.clone());
            }
            for order in again.iter().chain(&again) {
                other.merge(order.clone());
            }
            prop_assert_eq!(one.all(), other.all());
        }
    }
}
