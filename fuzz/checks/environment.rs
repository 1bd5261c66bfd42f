//! Settings: any text as `.env`, and what is made of the variables in it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
};

use secrecy::ExposeSecret;
use signaling::config::{Config, ConfigError, ConfigErrors, Environment, Origins};

/// Stands in every secret, and must never be seen again.
const MARK: &str = "m4rk-of-a-secret";

/// The name of a variable whose value is written by ourselves.
const OURS: &str = "FUZZED_VALUE";

/// Any bytes as `.env`.
pub fn settings(data: &[u8]) {
    let _folder = InFolder::enter();
    check_values_come_back(data);
    fs::write(".env", data).unwrap();
    let read = Environment::read(None);
    let Ok(text) = str::from_utf8(data) else {
        return assert!(read.is_err(), "no text, and yet it was read");
    };
    match read {
        Ok(environment) => {
            for warning in environment.ignored_lines() {
                let line = warning.to_string();
                assert!(!line.contains(char::is_control), "{line:?} is more than one line");
            }
            let variable = |name: &str| environment.variable(name);
            check_simple_lines(text, &variable);
            check_config(text, variable);
        }
        Err(ConfigErrors(errors)) => {
            for ConfigError { name, problem, fix } in errors {
                let number = name.strip_prefix(".env, line ").expect("where it is");
                let number: usize = number.parse().unwrap();
                assert!((1..=text.lines().count()).contains(&number));
                let what = problem + &fix;
                assert!(what.len() < 80, "no more than the kind of error: {what}");
            }
        }
    }
}

/// A working folder of our own, as long as this lives.
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

/// Whatever a value is, there is a way to write it into the file.
fn check_values_come_back(data: &[u8]) {
    let value = String::from_utf8_lossy(data);
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut lines = vec![format!("export {OURS}_0 = \"{escaped}\" # said twice\n")];
    if !value.contains(['\'', '\n']) {
        lines.push(format!("{OURS}_1='{value}'\r\n"));
    }
    if value.chars().all(|char| char.is_ascii_graphic() && !"#'\"".contains(char)) {
        lines.push(format!("  {OURS}_2 = {value} # a comment\n"));
    }
    fs::write(".env", format!("\u{feff}{OURS}_0=other\n{}", lines.concat())).unwrap();

    let environment = Environment::read(None).expect("well-formed");

    for line in lines {
        let name = line.split('=').next().unwrap().trim_start_matches("export ").trim();
        assert_eq!(environment.variable(name).as_deref(), Some(&*value), "{line:?}");
    }
}

/// In a file of nothing but plain assignments, comments and empty lines, the last one of a name counts.
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
        return; // it stands where it is no secret
    }
    match read {
        Err(ConfigErrors(errors)) => {
            assert!(!errors.is_empty());
            for error in errors {
                let line = error.to_string();
                assert!(names.borrow().contains(&*error.name), "{line:?} names no variable");
                assert!(!line.contains(MARK), "{line:?} reveals a secret");
                assert!(!line.contains(['\n', '\r']), "{line:?} is more than one line");
            }
        }
        Ok(config) => {
            let shown = format!("{config:?} {:?}", config.warnings());
            assert!(!shown.contains(MARK), "{shown} reveals a secret");
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
    let Config { startup, reloadable } = config;
    let (limits, ice) = (&reloadable.limits, &reloadable.ice);
    for seconds in [
        limits.websocket_timeout.as_secs(),
        reloadable.auth.lockout.as_secs(),
        startup.process.shutdown_grace.as_secs(),
        ice.turn.ttl.as_secs(),
        startup.auth.token_lifetime.as_secs() / 60,
        limits.messages_per_second.into(),
        limits.message_burst.into(),
        limits.max_connections_per_room as u64,
        reloadable.auth.max_failures as u64,
    ] {
        assert!(UP_TO_A_MILLION.contains(&seconds), "{seconds}");
    }
    assert!((1024..=16 * 1024 * 1024).contains(&limits.max_message_bytes));
    let host = &startup.listen.host;
    assert!(!host.is_empty() && !host.contains(|char: char| " /[]".contains(char)));
    assert!(!host.contains(char::is_control), "{host:?} is no host");
    if let Origins::These(origins) = &reloadable.cors.origins {
        for origin in origins {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            let is_origin = !host.is_empty() && !host.contains(['/', ' ', '*']);
            assert!(origin == "null" || is_origin, "{origin}");
            assert_eq!(*origin, origin.to_ascii_lowercase(), "as browsers spell it");
        }
    }
    let relay =
        |url: &String, schemes: [&str; 2]| schemes.iter().any(|scheme| url.starts_with(scheme));
    assert!(ice.turn.urls.iter().all(|url| relay(url, ["turn:", "turns:"])));
    assert!(ice.stun_urls.iter().all(|url| relay(url, ["stun:", "stuns:"])));
    if !startup.process.debug {
        let auth = &startup.auth;
        let (own, jwt) = (auth.secret_key.expose_secret(), auth.jwt_secret_key.expose_secret());
        for secret in [own, jwt] {
            assert!(
                secret.trim().len() >= 32
                    && !secret.trim().to_ascii_lowercase().starts_with("your-")
            );
        }
        assert!(own != jwt && auth.users_csv.exists());
    }
}
