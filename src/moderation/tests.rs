//! Which rules apply, and that every node comes to the same.

use proptest::prelude::*;

use super::{
    EntryDenied, MAX_RULES, ModerationRule, ModerationRules, RETENTION_SECONDS, RuleKind, Subject,
};

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

    assert!(kick.ends_membership("den", "bob", "c1") && !kick.ends_membership("den", "bob", "c2"));
    assert!(orders.has_ended("den", "bob", "c1", kick.at));
    assert!(!orders.has_ended("den", "bob", "c1", kick.at + 1));
    assert_eq!(orders.check_entry("den", "bob", "c1", NOW), None);
}

#[test]
fn an_order_that_is_taken_back_is_as_if_it_had_never_been() {
    let (_folder, orders) = none();
    let about = ban(Some("den"), Subject::Username("bob".into()));
    give(&orders, about.clone(), 60);
    let removed =
        ModerationRule { is_removed: true, ..orders.create(about, NOW * 1000, 0).unwrap() };

    assert!(orders.merge(removed));
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
        |(about, at, until, is_removed, members)| ModerationRule {
            about,
            at,
            until,
            is_removed,
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

proptest! {
    #[test]
    fn redis_finds_the_same_rule_newer_as_a_node_does(one in some_order(), other in some_order()) {
        prop_assert_eq!(one.rank_text().cmp(&other.rank_text()), one.rank().cmp(&other.rank()));
    }
}

#[test]
fn a_replicated_rule_is_the_same_rule_and_names_what_it_is_about() {
    let (_folder, orders) = none();
    for (about, key) in [
        (ban(None, Subject::Username("bob".into())), r#"["ban","","username","bob"]"#),
        (ban(Some("den"), Subject::Everyone), r#"["ban","den","everyone",""]"#),
        (RuleKind::Lock { room: "a/b".into() }, r#"["lock","a/b","",""]"#),
    ] {
        let rule = give(&orders, about, 60);
        let line = rule.to_replicated_line();

        assert_eq!(ModerationRule::parse(&line), Some(rule.clone()));
        let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&fields["key"], &fields["rank"]), (&key.into(), &rule.rank_text().into()));
    }
}
