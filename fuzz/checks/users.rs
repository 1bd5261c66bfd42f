//! The users file: parsing of any bytes, and their preservation by edits.

use std::{collections::BTreeMap, fs};

use signaling::auth::users::{EditError, UsersTable, accounts_of, edit};

const HASH: &str = "$2b$04$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy";
const NEW_USER: &str = "a newcomer, \"Zoë\"";

/// A row as the public API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    line: u64,
    whole: bool,
    username: String,
    email: String,
    hashed_password: String,
    is_active: Option<String>,
}

/// Any bytes as `users.csv`.
pub fn users_file(data: &[u8]) {
    let table = match UsersTable::parse(data) {
        Ok(table) => table,
        Err((line, fault)) => {
            let lines = data.iter().filter(|byte| b"\r\n".contains(byte)).count() as u64 + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {fault}");
            return;
        }
    };
    let rows = rows_of(&table);
    if let Some(expected) = read_simply(data) {
        assert_eq!(rows, expected);
    }
    check_accounts(&table, &rows);
    check_edits(data, &table, &rows);
}

fn rows_of(table: &UsersTable) -> Vec<Row> {
    let rows = table.rows().map(|row| Row {
        line: row.line,
        whole: row.whole,
        username: row.username.to_owned(),
        email: row.email.to_owned(),
        hashed_password: row.hashed_password.to_owned(),
        is_active: row.is_active.map(str::to_owned),
    });
    rows.collect()
}

/// The rows of a file without quotes, split at line ends and commas.
fn read_simply(data: &[u8]) -> Option<Vec<Row>> {
    let text = str::from_utf8(data).ok().filter(|text| !text.contains(['"', '\r', '\u{feff}']))?;
    let mut lines = (1..).zip(text.split('\n')).filter(|(_, line)| !line.is_empty());
    let (_, columns) = lines.next()?;
    let columns: Vec<_> = columns.split(',').map(str::trim).collect();
    let rows = lines.map(|(line, text)| {
        let cells: Vec<_> = text.split(',').collect();
        let at = |name| columns.iter().position(|column| *column == name);
        let cell = |name| at(name).map(|at| cells.get(at).copied().unwrap_or_default().to_owned());
        Row {
            line,
            whole: cells.len() >= columns.len(),
            username: cell("username").unwrap_or_default(),
            email: cell("email").unwrap_or_default(),
            hashed_password: cell("hashed_password").unwrap_or_default(),
            is_active: cell("is_active"),
        }
    });
    Some(rows.collect())
}

/// The first good row of a name is the account; every other row is a fault.
fn check_accounts(table: &UsersTable, rows: &[Row]) {
    let (accounts, faults) = accounts_of(table);

    let mut expected = BTreeMap::<&str, bool>::new();
    for row in rows {
        let active = match row.is_active.as_deref().map(|flag| flag.trim().to_ascii_lowercase()) {
            None => Some(true),
            Some(flag) if ["true", "1", "yes", "on", "t", "y", "1.0", "wahr"].contains(&&*flag) => {
                Some(true)
            }
            Some(flag)
                if ["false", "0", "no", "off", "f", "n", "0.0", "falsch"].contains(&&*flag) =>
            {
                Some(false)
            }
            Some(_) => None,
        };
        let named = !row.username.is_empty() && !row.username.contains(is_control);
        if let Some(active) = active
            && row.whole
            && named
            && is_bcrypt(&row.hashed_password)
        {
            expected.entry(&row.username).or_insert(active);
        }
    }
    assert_eq!(accounts.len(), expected.len());
    for (name, active) in expected {
        let account = &accounts[name];
        assert_eq!((account.username.as_str(), account.is_active), (name, active));
        assert!(is_bcrypt(&account.hashed_password), "{:?}", account.hashed_password);
    }
    assert_eq!(accounts.len() + faults.len(), rows.len(), "each row is an account or a fault");
    assert!(faults.iter().all(|fault| rows.iter().any(|row| row.line == fault.line)));
}

fn is_control(char: char) -> bool {
    matches!(char, '\0'..='\x1f' | '\x7f'..='\u{9f}')
}

/// `$2b$12$`, 22 characters of salt and 31 of digest.
fn is_bcrypt(hash: &str) -> bool {
    let bytes = hash.as_bytes();
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    bytes.len() == 60
        && [&b"$2a$"[..], b"$2b$", b"$2y$"].contains(&&bytes[..4])
        && digits(&bytes[4..6])
        && (b"04".as_slice()..=b"16").contains(&&bytes[4..6])
        && bytes[6] == b'$'
        && bytes[7..].iter().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(byte))
}

/// Each edit changes its row only.
fn check_edits(data: &[u8], table: &UsersTable, rows: &[Row]) {
    let edited = |change: &dyn Fn(&mut UsersTable) -> Result<(), EditError>| {
        let mut table = table.clone();
        change(&mut table).map(|()| table)
    };
    let added = edited(&|table| table.add(NEW_USER, "z@example.com", HASH)).unwrap();
    let mut all = rows_of(&added);
    let new_user = all.pop().unwrap();
    assert_eq!(all, rows);
    assert_eq!((new_user.username.as_str(), new_user.hashed_password.as_str()), (NEW_USER, HASH));
    assert!(new_user.whole && new_user.is_active.is_none_or(|flag| flag == "True"));
    assert!(accounts_of(&added).0.contains_key(NEW_USER));
    let mut without = added.clone();
    without.remove(NEW_USER).unwrap();
    assert_eq!(without, *table, "also unknown columns");
    let unknown = edited(&|table| table.set_hash(NEW_USER, HASH));
    assert!(matches!(unknown, Err(EditError::Unknown(_))));

    let mut versions = vec![table.clone(), added];
    if let Some(name) = rows.iter().map(|row| row.username.as_str()).find(|name| !name.is_empty()) {
        let exists = edited(&|table| table.add(name, "z@example.com", HASH));
        assert!(matches!(exists, Err(EditError::Exists(_))));

        let removed = edited(&|table| table.remove(name)).unwrap();
        let others: Vec<_> = rows.iter().filter(|row| row.username != name).cloned().collect();
        assert_eq!(rows_of(&removed), others);

        let rehashed = edited(&|table| table.set_hash(name, HASH)).unwrap();
        let changed = |row: &Row| Row { hashed_password: HASH.into(), ..row.clone() };
        check_changed(rows, &rehashed, name, changed, Row::clone);

        versions.extend([removed, rehashed]);
        let has_flag = rows.iter().any(|row| row.is_active.is_some());
        for active in [true, false] {
            let switched = edited(&|table| table.set_active(name, active)).unwrap();
            let flag = if active { "True" } else { "False" };
            let changed = |row: &Row| Row { is_active: Some(flag.into()), ..row.clone() };
            let unchanged = |row: &Row| {
                let flag = if row.whole { "True" } else { "" };
                let is_active = row.is_active.clone().or_else(|| (!has_flag).then(|| flag.into()));
                Row { is_active, ..row.clone() }
            };
            check_changed(rows, &switched, name, changed, unchanged);
            versions.push(switched);
        }
    }
    // Writing is slow, so one version is written; which one depends on the input.
    let sum: usize = data.iter().map(|byte| usize::from(*byte)).sum();
    check_written(data, &versions[sum % versions.len()]);
}

/// A written file is read back unchanged, in every column.
fn check_written(before: &[u8], table: &UsersTable) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, before).unwrap();
    let refused = edit(&path, |_| Err(EditError::Refused("no".into())));
    assert!(refused.is_err() && fs::read(&path).unwrap() == before, "the file is unchanged");

    edit(&path, |file| {
        *file = table.clone();
        Ok(())
    })
    .unwrap();

    let read = UsersTable::read(&path).expect("a written file can be read");
    assert_eq!(read, *table);
    let without_lines = |rows: Vec<Row>| rows.into_iter().map(|row| Row { line: 0, ..row });
    assert!(without_lines(rows_of(&read)).eq(without_lines(rows_of(table))));
}

fn check_changed(
    before: &[Row],
    after: &UsersTable,
    name: &str,
    changed: impl Fn(&Row) -> Row,
    unchanged: impl Fn(&Row) -> Row,
) {
    let after = rows_of(after);
    let expected = before.iter().zip(&after).map(|(before, after)| {
        if before.username == name {
            // A row with too few cells is filled up to the changed cell.
            Row { whole: after.whole, line: after.line, ..changed(before) }
        } else {
            unchanged(before)
        }
    });
    assert_eq!(after, expected.collect::<Vec<_>>());
    assert_eq!(before.len(), after.len());
}
