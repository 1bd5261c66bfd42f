//! Accounts in force, and how a changed file is taken up.

use std::fs;

use super::{
    super::{DEFAULT_ACCOUNTS, edit},
    *,
};

const HASH: &str = "$2b$04$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy";

fn names(accounts: &HashMap<String, Account>) -> Vec<&str> {
    let mut names: Vec<_> = accounts.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

fn parsed(text: &str) -> (HashMap<String, Account>, Vec<RowFault>) {
    accounts_of(&UsersTable::parse(text.as_bytes()).unwrap())
}

#[test]
fn the_file_that_the_fastapi_server_wrote_serves_unchanged() {
    let (accounts, faults) = parsed(include_str!("../../../../tests/fixtures/fastapi_users.csv"));

    assert_eq!(names(&accounts), ["admin", "user1", "user2"]);
    assert_eq!(faults, []);
    assert_eq!(accounts["admin"].email, "admin@example.com");
    for (username, password) in DEFAULT_ACCOUNTS {
        assert!(password::has_hash(&password.into(), &accounts[username].hashed_password));
    }
}

#[test]
fn odd_but_readable_files_serve() {
    let text = format!(
        "\u{feff}hashed_password, username ,extra,email\r\n{HASH},alice,\"a,\"\"b\r\nc\",\"A\" \r\n\r\n{HASH},bob,,\r\n"
    );

    let (accounts, faults) = parsed(&text);

    assert_eq!((names(&accounts), faults), (vec!["alice", "bob"], vec![]));
    assert!(accounts["bob"].is_active, "no is_active column");
}

#[test]
fn an_invalid_row_is_reported_with_its_line_and_the_others_serve() {
    let text = format!(
        "username,email,hashed_password,is_active\nalice,,{HASH},True\nalice,,{HASH},False\nbob,,{HASH}\n\
         carol,,5e884898da28047151d0e56f8dc62927,True\n,,{HASH},True\ndave,,{HASH},maybe\nerin,,{HASH},FALSE\nfred,,{HASH},\n"
    );

    let (accounts, faults) = parsed(&text);

    assert_eq!(names(&accounts), ["alice", "erin"]);
    assert!(accounts["alice"].is_active && !accounts["erin"].is_active);
    assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 9]);
}

#[test]
fn a_changed_file_is_reloaded_once_it_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
    let (users, _) = Users::load(&path).unwrap();
    assert!(matches!(users.poll_file(), UsersReload::Nothing));

    edit(&path, |table| table.add("bob", "", HASH)).unwrap();

    assert!(matches!(users.poll_file(), UsersReload::Nothing), "seen for the first time");
    assert!(
        matches!(users.poll_file(), UsersReload::Changed(changes, faults) if faults.is_empty() && changes.added == 1)
    );
    assert!(users.active("bob").is_some());
    assert!(matches!(users.poll_file(), UsersReload::Nothing));
}

#[test]
fn a_file_that_becomes_readable_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
    let (users, _) = Users::load(&path).unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    users.poll_file();

    assert!(matches!(users.poll_file(), UsersReload::Changed(..)), "owner or mode changed");
}

#[test]
fn a_file_that_is_invalid_or_gone_leaves_the_last_valid_accounts_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, format!("username,hashed_password\nalice,{HASH}\n")).unwrap();
    let (users, _) = Users::load(&path).unwrap();

    for broken in [Some("garbage"), Some(""), None] {
        match broken {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        users.poll_file();
        assert!(matches!(users.poll_file(), UsersReload::Refused(_)), "{broken:?}");
        assert!(matches!(users.poll_file(), UsersReload::Nothing), "reported once");
        assert!(users.active("alice").is_some());
    }
}

#[test]
fn a_file_that_loses_most_accounts_to_invalid_rows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    let file = |flags: &[&str]| {
        let rows = flags.iter().enumerate();
        let rows = rows.map(|(number, flag)| format!("user{number},{HASH},{flag}\n"));
        format!("username,hashed_password,is_active\n{}", rows.collect::<String>())
    };
    fs::write(&path, file(&["True"; 4])).unwrap();
    let (users, _) = Users::load(&path).unwrap();
    let active = |flags: &[&str]| {
        fs::write(&path, file(flags)).unwrap();
        let applied = users.reload().map(|pending| pending.apply().1.len());
        applied.map(|_| users.active_count())
    };

    for (flags, lost) in [(["?"; 4], "4 of 4"), (["?", "?", "?", "True"], "3 of 4")] {
        let refused = active(&flags).unwrap_err().to_string();
        assert!(refused.contains(lost) && refused.contains("line 2: is_active"), "{refused}");
        assert_eq!(users.active_count(), 4);
    }
    assert_eq!(active(&["t", "y", "1.0", "WAHR"]).unwrap(), 4, "spellings of other programs");
    assert_eq!(active(&["f", "n", "0.0", "FALSCH"]).unwrap(), 0, "no account is lost by a fault");
    assert_eq!(active(&["?", "?", "True", "True"]).unwrap(), 2, "half of them may be");
    assert_eq!(active(&["True"]).unwrap(), 1, "rows that were removed are no fault");
}

#[test]
fn an_unknown_name_costs_what_the_most_expensive_account_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    let expensive = HASH.replace("$04$", "$13$").replace("$12$", "$13$");
    let rows = format!("username,hashed_password\nann,{HASH}\nbob,{HASH}\ncarl,{expensive}\n");
    fs::write(&path, rows).unwrap();

    let (users, _) = Users::load(&path).unwrap();

    assert_eq!(users.highest_cost(), 13);
    assert_eq!(users.unusual_costs().get("carl"), Some(&13));
}
