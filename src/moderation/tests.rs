//! Which rules apply, and that every node comes to the same.

use proptest::prelude::*;

use super::{
    EntryDenied, KICK_RETENTION_SECONDS, MAX_ACTIVE_RULES, ModerationRule, ModerationRules,
    RETENTION_SECONDS, RuleKind, RuleLimitReached, Subject,
    ceilings::{MAX_RULES_OF_MODERATOR, MAX_RULES_OF_MODERATORS, MAX_RULES_OF_ROOM},
    rules::MAX_KEPT_RULES,
};

const NOW: u64 = 1_700_000_000;

fn none() -> (tempfile::TempDir, ModerationRules) {
    let folder = tempfile::tempdir().unwrap();
    let rules = ModerationRules::load(&folder.path().join("users.csv")).unwrap();
    (folder, rules)
}

fn ban(room: Option<&str>, subject: Subject) -> RuleKind {
    RuleKind::Ban { room: room.map(str::to_owned), subject }
}

fn add(rules: &ModerationRules, about: RuleKind, seconds: u64) -> ModerationRule {
    let rule = rules.create(about, None, NOW * 1000, seconds).unwrap();
    assert!(rules.merge(rule.clone(), NOW));
    rule
}

#[test]
fn a_ban_applies_to_its_subject_in_its_room_until_its_end() {
    let (_folder, rules) = none();
    add(&rules, ban(Some("den"), Subject::Username("bob".into())), 60);
    add(&rules, ban(None, Subject::Username("mallory".into())), 60);
    add(&rules, ban(Some("den"), Subject::ClientId("c9".into())), 60);
    add(&rules, ban(Some("attic"), Subject::Everyone), 60);
    add(&rules, RuleKind::Lock { room: "cellar".into() }, 60);

    let check = |room, username, client, now| rules.check_entry(room, username, client, now);
    assert_eq!(check("den", "bob", "x", NOW + 59), Some(EntryDenied::Banned));
    assert_eq!(check("den", "bob", "x", NOW + 60), None);
    assert_eq!(check("hall", "bob", "x", NOW), None);
    assert_eq!(check("hall", "mallory", "x", NOW), Some(EntryDenied::Banned));
    assert_eq!(check("den", "alice", "c9", NOW), Some(EntryDenied::Banned));
    assert_eq!(check("hall", "alice", "c9", NOW), None);
    assert_eq!(check("attic", "alice", "x", NOW), Some(EntryDenied::Banned));
    assert_eq!(check("cellar", "alice", "x", NOW), Some(EntryDenied::Locked));
}

#[test]
fn a_kick_ends_memberships_and_denies_no_entry() {
    let (_folder, rules) = none();
    let kick = add(&rules, ban(Some("den"), Subject::ClientId("c1".into())), 0);

    assert!(kick.ends_membership("den", "bob", "c1") && !kick.ends_membership("den", "bob", "c2"));
    assert!(rules.has_ended("den", "bob", "c1", kick.at));
    assert!(!rules.has_ended("den", "bob", "c1", kick.at + 1));
    assert_eq!(rules.check_entry("den", "bob", "c1", NOW), None);
}

#[test]
fn a_mute_applies_to_its_subject_in_its_room_until_its_end_also_in_the_next_process() {
    let (folder, rules) = none();
    assert!(!rules.has_mutes());
    let mute = |subject| RuleKind::Mute { room: "den".into(), subject };
    add(&rules, mute(Subject::ClientId("c1".into())), 60);
    let bob = add(&rules, mute(Subject::Username("bob".into())), 60);
    rules.save().unwrap();

    let next = ModerationRules::load(&folder.path().join("users.csv")).unwrap();
    for rules in [&rules, &next] {
        assert!(rules.has_mutes());
        assert!(rules.is_muted("den", "bob", "x", NOW + 59));
        assert!(!rules.is_muted("den", "bob", "x", NOW + 60));
        assert!(!rules.is_muted("attic", "bob", "x", NOW));
        assert!(
            rules.is_muted("den", "alice", "c1", NOW) && !rules.is_muted("den", "alice", "c2", NOW)
        );
        assert_eq!(rules.check_entry("den", "bob", "c1", NOW), None);
        assert!(!rules.has_ended("den", "bob", "c1", 0));
    }
    assert!(rules.merge(ModerationRule { at: bob.at + 1, is_removed: true, ..bob }, NOW));
    assert!(!rules.is_muted("den", "bob", "x", NOW) && rules.has_mutes());
    let evicted = rules.evict_expired(NOW + RETENTION_SECONDS + 60);
    assert_eq!((evicted.len(), rules.has_mutes()), (2, false));
}

#[test]
fn a_removed_rule_has_no_effect() {
    let (_folder, rules) = none();
    let about = ban(Some("den"), Subject::Username("bob".into()));
    add(&rules, about.clone(), 60);
    let removed =
        ModerationRule { is_removed: true, ..rules.create(about, None, NOW * 1000, 0).unwrap() };

    assert!(rules.merge(removed, NOW));
    assert_eq!(rules.check_entry("den", "bob", "c1", NOW), None);
    assert!(!rules.has_ended("den", "bob", "c1", 1));
    assert_eq!(rules.active(NOW), []);
}

#[test]
fn rules_survive_the_process_until_they_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let users_csv = folder.path().join("users.csv");
    let first = ModerationRules::load(&users_csv).unwrap();
    let long = add(&first, RuleKind::Lock { room: "Zimmer 7/é".into() }, 10 * 86_400);
    let short = add(&first, ban(Some("den"), Subject::Everyone), 60);
    first.save().unwrap();

    let second = ModerationRules::load(&users_csv).unwrap();

    assert_eq!(second.all(), [short.clone(), long.clone()]);
    assert_eq!(second.evict_expired(NOW + RETENTION_SECONDS), [short]);
    assert_eq!(second.evict_expired(NOW + 10 * 86_400 - 1), []);
    second.save().unwrap();
    assert_eq!(ModerationRules::load(&users_csv).unwrap().all(), [long]);
}

#[test]
fn no_more_rules_are_made_than_may_be_active_but_known_ones_are_changed_and_kicks_are_none() {
    let (_folder, rules) = none();
    let lock = |number: usize| RuleKind::Lock { room: number.to_string() };
    for number in 0..MAX_ACTIVE_RULES {
        add(&rules, lock(number), 60);
    }

    assert!(rules.create(lock(MAX_ACTIVE_RULES), None, NOW * 1000, 60).is_err());
    add(&rules, lock(0), 120);
    add(&rules, ban(Some("den"), Subject::ClientId("c1".into())), 0);
    let removed = rules.create(lock(1), None, NOW * 1000, 0).unwrap();
    assert!(rules.merge(ModerationRule { is_removed: true, ..removed }, NOW));
    add(&rules, lock(MAX_ACTIVE_RULES), 60);
    let later = NOW + 60;
    assert!(
        rules.create(lock(MAX_ACTIVE_RULES + 1), None, later * 1000, 60).is_ok(),
        "all but one are over"
    );
}

/// What a moderator's rule about the client with this number in `room` comes to.
fn moderate(
    rules: &ModerationRules,
    moderator: &str,
    room: &str,
    number: usize,
) -> Result<(), RuleLimitReached> {
    let about = ban(Some(room), Subject::ClientId(number.to_string()));
    let rule = rules.create(about, Some(moderator), NOW * 1000, 60)?;
    assert!(rules.merge(rule, NOW));
    Ok(())
}

#[test]
fn a_moderator_and_a_room_have_so_many_rules_and_get_their_places_back() {
    let (_folder, rules) = none();
    for number in 0..MAX_RULES_OF_ROOM {
        moderate(&rules, if number % 2 == 0 { "boss" } else { "chief" }, "den", number).unwrap();
    }

    assert_eq!(moderate(&rules, "boss", "den", 1_000), Err(RuleLimitReached::Room));
    assert_eq!(moderate(&rules, "boss", "den", 0), Ok(()), "one that there is may be changed");
    assert_eq!(moderate(&rules, "boss", "den", 1), Ok(()), "also another moderator's");
    let mut number = 0;
    let reached = loop {
        match moderate(&rules, "boss", &format!("hall{}", number % 5), number) {
            Ok(()) => number += 1,
            Err(reached) => break reached,
        }
    };
    let of_den = MAX_RULES_OF_ROOM / 2 + 1;
    assert_eq!((reached, number), (RuleLimitReached::Moderator, MAX_RULES_OF_MODERATOR - of_den));
    let of_boss = ban(Some("den"), Subject::ClientId("2".into()));
    let removed = rules.create(of_boss, Some("chief"), NOW * 1000, 0).unwrap();
    assert!(rules.merge(ModerationRule { is_removed: true, ..removed }, NOW));
    assert_eq!(moderate(&rules, "boss", "hall1", number), Ok(()), "the place of the removed one");
    let later = (NOW + 60) * 1000;
    let about = ban(Some("den"), Subject::ClientId("x".into()));
    assert!(rules.create(about, Some("boss"), later, 60).is_ok(), "all are over");
}

#[test]
fn an_administrator_can_make_rules_when_moderators_cannot() {
    let (folder, rules) = none();
    let mut made = 0;
    let reached = loop {
        let (moderator, room) = (made / MAX_RULES_OF_MODERATOR, made / MAX_RULES_OF_ROOM);
        match moderate(&rules, &moderator.to_string(), &room.to_string(), made) {
            Ok(()) => made += 1,
            Err(reached) => break reached,
        }
    };

    assert_eq!((reached, made), (RuleLimitReached::Moderators, MAX_RULES_OF_MODERATORS));
    rules.save().unwrap();
    let rules = ModerationRules::load(&folder.path().join("users.csv")).unwrap();
    let refused = moderate(&rules, "another", "room", made);
    assert_eq!(refused, Err(RuleLimitReached::Moderators), "also after a restart");
    let lock = |number: usize| RuleKind::Lock { room: number.to_string() };
    for number in 0..MAX_ACTIVE_RULES - MAX_RULES_OF_MODERATORS {
        add(&rules, lock(number), 60);
    }
    let refused = rules.create(lock(MAX_ACTIVE_RULES), None, NOW * 1000, 60);
    assert_eq!(refused, Err(RuleLimitReached::All));
}

#[test]
fn kicks_without_end_keep_no_other_rule_out_and_are_the_first_to_be_forgotten() {
    let (_folder, rules) = none();
    let ended = add(&rules, ban(Some("den"), Subject::Username("over".into())), 1);
    let banned = add(&rules, ban(None, Subject::Username("mallory".into())), 864_000);
    let kick = |number: usize| ban(Some("den"), Subject::ClientId(number.to_string()));
    let count = 2 * MAX_KEPT_RULES;
    let later = NOW + 2 + count as u64;
    for number in 0..count {
        let kick = rules.create(kick(number), None, (NOW + 2) * 1000 + number as u64, 0).unwrap();
        assert!(rules.merge(kick, later));
    }

    let kept = rules.all();
    assert!(kept.len() <= MAX_KEPT_RULES, "{}", kept.len());
    assert!(kept.contains(&ended) && kept.contains(&banned), "kicks go first");
    assert!(rules.has_ended("den", "x", &(count - 1).to_string(), NOW * 1000), "the newest stay");
    let lock = RuleKind::Lock { room: "den".into() };
    let locked = rules.create(lock, None, later * 1000, 60).unwrap();
    assert!(rules.merge(locked, later));
    assert_eq!(rules.active(later).len(), 2);
}

#[test]
fn a_kick_is_remembered_for_as_long_as_its_membership_could_come_back() {
    let (_folder, rules) = none();
    let kick = add(&rules, ban(Some("den"), Subject::ClientId("c1".into())), 0);

    assert_eq!(rules.evict_expired(NOW + KICK_RETENTION_SECONDS - 1), []);
    assert!(rules.has_ended("den", "bob", "c1", kick.at));
    assert_eq!(rules.evict_expired(NOW + KICK_RETENTION_SECONDS), [kick]);
}

#[test]
fn a_file_that_cannot_be_parsed_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let endless = format!(r#"{{"order":"lock","room":"den","at":{0},"until":{0}}}"#, u64::MAX);
    let no_members = r#"{"order":"capacity","room":"den","at":1,"until":2,"members":0}"#;
    for text in [r#"{"order":"dance"}"#, &endless, no_members] {
        std::fs::write(folder.path().join("users.csv.orders"), text).unwrap();

        let error = ModerationRules::load(&folder.path().join("users.csv")).err().unwrap();

        assert!(error.to_string().contains("users.csv.orders: line 1"), "{error}");
    }
}

fn some_rule() -> impl Strategy<Value = ModerationRule> {
    let about = prop_oneof![
        Just(ban(Some("den"), Subject::Everyone)),
        Just(ban(None, Subject::Username("bob".into()))),
        Just(RuleKind::Lock { room: "den".into() }),
        Just(RuleKind::Capacity { room: "den".into() }),
    ];
    let moderator = prop::option::of("[a-c]{1,2}");
    (about, 0..4_u64, 0..3_u64, any::<bool>(), prop::option::of(1..3_usize), moderator).prop_map(
        |(about, at, until, is_removed, members, moderator)| ModerationRule {
            about,
            at,
            until,
            is_removed,
            members,
            moderator,
        },
    )
}

proptest! {
    #[test]
    fn nodes_that_get_the_same_rules_in_any_order_come_to_the_same(
        (rules, again) in prop::collection::vec(some_rule(), 0..20).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle()))
    ) {
        let ((_a, one), (_b, other)) = (none(), none());
        for rule in &rules {
            one.merge(rule.clone(), NOW);
        }
        for rule in again.iter().chain(&again) {
            other.merge(rule.clone(), NOW);
        }
        prop_assert_eq!(one.all(), other.all());
    }
}

proptest! {
    #[test]
    fn redis_finds_the_same_rule_newer_as_a_node_does(one in some_rule(), other in some_rule()) {
        prop_assert_eq!(one.rank_text().cmp(&other.rank_text()), one.rank().cmp(&other.rank()));
    }
}

#[test]
fn a_replicated_rule_is_the_same_rule_and_names_what_it_is_about() {
    let (_folder, rules) = none();
    for (about, key) in [
        (ban(None, Subject::Username("bob".into())), r#"["ban","","username","bob"]"#),
        (ban(Some("den"), Subject::Everyone), r#"["ban","den","everyone",""]"#),
        (RuleKind::Lock { room: "a/b".into() }, r#"["lock","a/b","",""]"#),
    ] {
        let rule = add(&rules, about, 60);
        let line = rule.to_replicated_line();

        assert_eq!(ModerationRule::parse(&line), Some(rule.clone()));
        let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&fields["key"], &fields["rank"]), (&key.into(), &rule.rank_text().into()));
    }
}

#[test]
fn the_lines_of_the_file_keep_their_form() {
    for line in [
        r#"{"order":"ban","room":"den","who":{"username":"bob"},"at":1700000000000,"until":1700000060}"#,
        r#"{"order":"ban","room":"den","who":"everyone","at":1,"until":2,"is_lifted":true}"#,
        r#"{"order":"capacity","room":"den","at":1,"until":2,"members":9}"#,
        r#"{"order":"lock","room":"den","at":1,"until":2,"moderator":"boss"}"#,
    ] {
        assert_eq!(ModerationRule::parse(line).unwrap().to_line(), line);
    }
}
