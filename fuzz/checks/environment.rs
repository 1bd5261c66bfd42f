//! Settings: any text as `.env`, and the configuration from its variables.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use secrecy::ExposeSecret;
use signaling::{
    config::{Config, Faults, Origins},
    dotenv,
};

/// A part of every secret, which must never be in any output.
const MARK: &str = "m4rk-of-a-secret";

/// The prefix of the variables that the checks write.
const PREFIX: &str = "FUZZED_VALUE";

/// Any bytes as `.env`.
pub fn settings(data: &[u8]) {
    let _folder = InFolder::enter();
    check_values_come_back(data);
    fs::write(".env", data).unwrap();
    let read = dotenv::environment();
    let Ok(text) = str::from_utf8(data) else {
        return assert!(read.is_err(), "not UTF-8, and yet it was parsed");
    };
    match read {
        Ok(variable) => {
            check_simple_lines(text, &variable);
            check_config(text, variable);
        }
        Err(Faults(faults)) => {
            for fault in faults {
                let rest = fault.strip_prefix(".env, line ").expect("the line");
                let (number, problem) = rest.split_once(": ").expect("the problem");
                let number: usize = number.parse().unwrap();
                assert!((1..=text.lines().count()).contains(&number));
                assert!(problem.len() < 60, "more than the kind of problem: {problem}");
            }
        }
    }
}

/// A temporary working folder, until this is dropped.
struct InFolder {
    before: PathBuf,
    _folder: tempfile::TempDir,
}

impl InFolder {
    fn enter() -> Self {
        let (before, folder) = (env::current_dir().unwrap(), tempfile::tempdir().unwrap());
        env::set_current_dir(folder.path()).unwrap();
        Self { before, _folder: folder }
    }
}

impl Drop for InFolder {
    fn drop(&mut self) {
        env::set_current_dir(&self.before).unwrap();
    }
}

/// Every value can be written to the file and is read back.
fn check_values_come_back(data: &[u8]) {
    let value = String::from_utf8_lossy(data);
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut lines = vec![format!("export {PREFIX}_0 = \"{escaped}\" # set twice\n")];
    if !value.contains(['\'', '\n']) {
        lines.push(format!("{PREFIX}_1='{value}'\r\n"));
    }
    if value.chars().all(|char| char.is_ascii_graphic() && !"#'\"".contains(char)) {
        lines.push(format!("  {PREFIX}_2 = {value} # a comment\n"));
    }
    fs::write(".env", format!("\u{feff}{PREFIX}_0=other\n{}", lines.concat())).unwrap();

    let variable = dotenv::environment().expect("well-formed");

    for line in lines {
        let name = line.split('=').next().unwrap().trim_start_matches("export ").trim();
        assert_eq!(variable(name).as_deref(), Some(&*value), "{line:?}");
    }
}

/// In a file of plain assignments, comments and empty lines, the last assignment of a name counts.
fn check_simple_lines(text: &str, variable: &impl Fn(&str) -> Option<String>) {
    let mut expected = BTreeMap::new();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return };
        let is_name = name.starts_with(|first: char| first.is_ascii_uppercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        let is_plain = value.chars().all(|char| char.is_ascii_graphic() && !"#'\"".contains(char));
        if !is_name || !is_plain {
            return;
        }
        expected.insert(name, value);
    }
    for (name, value) in expected {
        if env::var_os(name).is_none() {
            assert_eq!(variable(name).as_deref(), Some(value), "{name}");
        }
    }
}

fn check_config(text: &str, variable: impl Fn(&str) -> Option<String>) {
    let names = RefCell::new(BTreeSet::new());
    let read = Config::read(|name| {
        names.borrow_mut().insert(name.to_owned());
        let value = variable(name)?;
        Some(if is_secret(name) { format!("{value}{MARK}") } else { value })
    });

    if text.contains(MARK) {
        return; // the input has it in a value that is not secret
    }
    match read {
        Err(Faults(faults)) => {
            assert!(!faults.is_empty());
            for fault in faults {
                let named = fault.split(['=', ' ']).next().unwrap();
                assert!(names.borrow().contains(named), "{fault:?} names no variable");
                assert!(!fault.contains(MARK), "{fault:?} contains a secret");
                assert!(!fault.contains(['\n', '\r']), "{fault:?} is more than one line");
            }
        }
        Ok(config) => {
            let output = format!("{config:?} {}", config.warnings().join(" "));
            assert!(!output.contains(MARK), "{output} contains a secret");
            check_ranges(&config);
        }
    }
}

fn is_secret(name: &str) -> bool {
    name.contains("SECRET")
}

/// Contract section 3.
fn check_ranges(config: &Config) {
    const UP_TO_A_MILLION: std::ops::RangeInclusive<u64> = 1..=1_000_000;
    for seconds in [
        config.websocket_timeout.as_secs(),
        config.auth_lockout.as_secs(),
        config.shutdown_grace.as_secs(),
        config.ice.turn.ttl.as_secs(),
        config.token_lifetime.as_secs() / 60,
        config.messages_per_second.into(),
        config.message_burst.into(),
        config.max_connections_per_room as u64,
        config.auth_max_failures as u64,
    ] {
        assert!(UP_TO_A_MILLION.contains(&seconds), "{seconds}");
    }
    assert!((1024..=16 * 1024 * 1024).contains(&config.max_message_bytes));
    assert!(!config.host.is_empty() && !config.host.contains(|char: char| " /[]".contains(char)));
    assert!(!config.host.contains(char::is_control), "{:?} is not a host", config.host);
    if let Origins::These(origins) = &config.cors_origins {
        for origin in origins {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            let is_origin = !host.is_empty() && !host.contains(['/', ' ', '*']);
            assert!(origin == "null" || is_origin, "{origin}");
            assert_eq!(*origin, origin.to_ascii_lowercase(), "browsers send it in lower case");
        }
    }
    let relay =
        |url: &String, schemes: [&str; 2]| schemes.iter().any(|scheme| url.starts_with(scheme));
    assert!(config.ice.turn.urls.iter().all(|url| relay(url, ["turn:", "turns:"])));
    assert!(config.ice.stun_urls.iter().all(|url| relay(url, ["stun:", "stuns:"])));
    if !config.debug {
        let (own, jwt) = (config.secret_key.expose_secret(), config.jwt_secret_key.expose_secret());
        for secret in [own, jwt] {
            assert!(
                secret.trim().len() >= 32
                    && !secret.trim().to_ascii_lowercase().starts_with("your-")
            );
        }
        assert!(own != jwt && config.users_csv.exists());
    }
}
