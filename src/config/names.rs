//! The names in `.env`: whether each is a setting, and if not, which one is meant.

use super::{declarations, error::ConfigWarning};

/// Names that stand in `.env` for compose.yaml.
const OTHER_READERS: [&str; 2] = ["DOMAIN", "CERTIFICATES"];

/// What names of other readers of that file begin with: compose, and this server's own tests.
const OTHER_PREFIXES: [&str; 3] = ["COMPOSE_", "DOCKER_", "SIGNALING_TEST_"];

/// Names of other servers and libraries that are no misspelling of a setting, and what to use here.
const FOREIGN: [(&str, &str); 16] = [
    (
        "ALGORITHM",
        "JWT_ALGORITHMS lists the algorithms that are accepted; remove the line for HS256, the default",
    ),
    (
        "JWT_ALGORITHM",
        "JWT_ALGORITHMS lists the algorithms that are accepted; remove the line for HS256, the default",
    ),
    (
        "ALLOWED_HOSTS",
        "the proxy decides which host names are served; CORS_ORIGINS lists the pages that may use the server",
    ),
    ("ALLOWED_ORIGINS", "use CORS_ORIGINS"),
    ("DATABASE_URL", "there is no database: USERS_CSV names the file with the accounts"),
    (
        "LOG_FILE",
        "the log goes to standard output, and systemd or the container's runtime keeps it; remove the line",
    ),
    ("RELOAD", "restart the server after a change, or send SIGHUP; remove the line"),
    ("RUST_LOG", "use LOG_LEVEL"),
    ("STUN_URLS", "use STUNSERVER_URLS"),
    ("TURN_SECRET", "use TURNSERVER_SECRET"),
    ("TURN_TTL", "use TURNSERVER_TTL"),
    ("TURN_URL", "use TURNSERVER_URL"),
    ("TURN_URLS", "use TURNSERVER_URLS"),
    ("USERS_FILE", "use USERS_CSV"),
    ("WEBSOCKET_PING_INTERVAL", "an idle connection is pinged after a third of WEBSOCKET_TIMEOUT"),
    ("WEBSOCKET_PING_TIMEOUT", "use WEBSOCKET_TIMEOUT"),
];

/// The setting without which a line with `name` has no effect. In the environment of the process OpenSSL uses that name alone.
pub(super) fn needed_by(name: &str) -> Option<&'static str> {
    (name == "SSL_CERT_FILE").then_some("SSL_KEY_FILE")
}

/// Whether `name` is a setting.
pub(super) fn is_known(name: &str) -> bool {
    declarations().any(|it| it.name == name)
}

/// What to say about `name` in `line` of `file`, where it is no setting.
pub(super) fn judge(name: &str, file: &str, line: usize) -> Option<ConfigWarning> {
    let is_of_another_reader = OTHER_READERS.contains(&name)
        || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_known(name) || is_of_another_reader {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == upper);
    let meant = foreign.map(|(_, fix)| (*fix).to_owned());
    let meant = meant.or_else(|| nearest(&upper).map(|known| format!("did you mean {known}?")));
    // A line of a secret that spans several lines may hold "=", too: what cannot be a name is not repeated.
    let is_upper = !name.contains(|char: char| char.is_ascii_lowercase());
    let looks_like_a_name = (meant.is_some() || is_upper)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let fix = meant
        .unwrap_or_else(|| "remove the line, or take the right name from env.example".to_owned());
    Some(if looks_like_a_name {
        let problem = format!("no setting has this name, so line {line} of {file} has no effect");
        ConfigWarning::new(name.to_owned(), problem, fix)
    } else {
        let problem = "what stands before \"=\" is no setting, so the line has no effect";
        ConfigWarning::new(format!("{file}, line {line}"), problem, fix)
    })
}

/// The setting that `name`, in capital letters, is probably meant to be: at most a third of the characters differ, or one
/// begins with the other.
fn nearest(name: &str) -> Option<&'static str> {
    let near = declarations()
        .map(|it| (strsim::osa_distance(name, it.name), it.name))
        .filter(|(distance, known)| distance * 3 <= known.len().min(name.len()))
        .min();
    let longer = || {
        let begins =
            |known: &&str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
        declarations().map(|it| it.name).filter(begins).min_by_key(|known| known.len())
    };
    near.map(|(_, known)| known).or_else(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str) -> Option<String> {
        judge(name, ".env", 7).map(|warning| warning.to_string())
    }

    #[test]
    fn a_misspelled_setting_is_named_with_the_one_that_is_meant() {
        for (name, meant) in [
            ("ALLOWED_ROOM", "ALLOWED_ROOMS"),
            ("CORS_ORIGIN", "CORS_ORIGINS"),
            ("Cors_Origins", "CORS_ORIGINS"),
            ("RATE_LIMIT_PER_MINUT", "RATE_LIMIT_PER_MINUTE"),
            ("RATE_LIMIT", "RATE_LIMIT_PER_MINUTE"),
            ("JWT_SECRET", "JWT_SECRET_KEY"),
            ("SECERT_KEY", "SECRET_KEY"),
            ("port", "PORT"),
            ("SSL_CERTFILE", "SSL_CERT_FILE"),
            ("TURNSERVER_SECRETS", "TURNSERVER_SECRET"),
            ("REQUIRES_HTTPS", "REQUIRE_HTTPS"),
            ("ALLOW_ANONYMUS", "ALLOW_ANONYMOUS"),
        ] {
            let said = said(name).unwrap_or_default();
            let expected = format!(
                "{name}: no setting has this name, so line 7 of .env has no effect; did you mean {meant}?"
            );
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn names_of_other_servers_are_explained_and_those_of_other_readers_are_not_judged() {
        for (name, fix) in FOREIGN {
            assert!(
                !is_known(name) && said(name).is_some_and(|said| said.ends_with(fix)),
                "{name}"
            );
        }
        for name in ["COMPOSE_PROJECT_NAME", "DOMAIN", "PORT", "SIGNALING_TEST_INTERVALS"] {
            assert_eq!(said(name), None, "{name}");
        }
        let unlike = said("SENTRY_DSN").unwrap_or_default();
        assert!(unlike.starts_with("SENTRY_DSN: ") && unlike.contains("env.example"), "{unlike}");
    }

    #[test]
    fn a_line_that_may_be_part_of_a_secret_is_not_repeated() {
        for name in ["c2VjcmV0LWtleQ", "MIIEvQIBADANBgkqhkiG9w0BAQ/+", "-----BEGIN"] {
            let said = said(name).unwrap_or_default();
            assert!(said.starts_with(".env, line 7: ") && !said.contains(name), "{said}");
        }
    }
}
