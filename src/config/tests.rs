//! Which settings are accepted, what stops a start, and what SIGHUP changes.

use std::fmt::Write;

use super::*;
use crate::config::dotenv::read_assignment;

fn read(set: &[(&str, &str)]) -> Result<Config, Faults> {
    Config::read(variables(set))
}

fn variables(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn in_debug(name: &str, value: &str) -> Result<Config, Faults> {
    read(&[("DEBUG", "true"), (name, value)])
}

/// A production environment without fault, but for what is overridden.
fn in_production(changes: &[(&str, &str)]) -> Result<Config, Faults> {
    let (own, jwt) = ("a".repeat(32), "b".repeat(32));
    let mut variables = changes.to_vec();
    variables.extend([
        ("SECRET_KEY", &*own),
        ("JWT_SECRET_KEY", &*jwt),
        ("USERS_CSV", "Cargo.toml"),
    ]);
    read(&variables)
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = in_production(&[]).unwrap();

    assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 8000));
    assert!(!config.debug && config.require_https && !config.api_docs && config.tls.is_none());
    assert_eq!(config.log_level, LevelFilter::INFO);
    assert_eq!(config.token_lifetime, Duration::from_secs(1800));
    assert!(config.cors_origins == Origins::Any && config.cors_allow_credentials);
    assert!(config.metrics_token.is_none() && config.workers == 0);
    assert_eq!(config.metrics_listen, None);
    assert_eq!(
        (config.rate_limit_per_minute, config.messages_per_second, config.message_burst),
        (60, 50, 250)
    );
    assert_eq!((config.websocket_timeout.as_secs(), config.max_message_bytes), (30, 65_536));
    assert_eq!((config.max_connections_per_room, config.max_connections_per_ip), (10, 100));
    assert_eq!((config.auth_max_failures, config.auth_lockout.as_secs()), (5, 300));
    assert_eq!(
        config.trusted_proxies,
        ["127.0.0.0/8".parse::<IpNet>().unwrap(), "::1/128".parse().unwrap()]
    );
    assert!(
        !config.enforce_token_expiry && !config.allow_anonymous && !config.rooms_api_require_auth
    );
    assert!(
        config.allowed_rooms.is_empty()
            && config.ice.stun_urls.is_empty()
            && config.ice.turn.urls.is_empty()
    );
    assert_eq!((config.ice.turn.ttl.as_secs(), config.shutdown_grace.as_secs()), (86_400, 10));
    assert_eq!((config.turn_probe.as_secs(), config.resume_window.as_secs()), (60, 30));
    assert_eq!(config.state_file, None);
}

#[test]
fn a_token_that_no_header_can_hold_is_refused_and_not_shown() {
    for name in ["METRICS_TOKEN", "ADMIN_TOKEN"] {
        for token in ["zoë-0123456789abcdef0123456789abcdef", "two words 0123456789abcdef0123456"]
        {
            let faults = in_debug(name, token).unwrap_err().0;

            assert!(faults[0].starts_with(&format!("{name}: not accepted; give letters")));
            assert!(!faults[0].contains("0123456789abcdef"), "{faults:?}");
        }
        assert!(in_debug(name, "0123456789abcdef0123456789abcdef").is_ok());
    }
}

#[test]
fn every_setting_stands_in_env_example_in_the_same_order_and_with_its_default() {
    let names = RefCell::new(Vec::new());
    let _ = Config::read(|name| {
        names.borrow_mut().push(name.to_owned());
        None
    });
    let example = include_str!("../../env.example");

    let listed: Vec<(String, String)> = example
        .lines()
        .filter_map(|line| {
            read_assignment(
                line.strip_prefix("# ").filter(|line| is_assignment(line)).unwrap_or(line),
            )
            .ok()?
        })
        .collect();

    assert_eq!(
        listed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        names.borrow().iter().collect::<Vec<_>>()
    );
    let plain = in_debug("LOG_LEVEL", "").unwrap();
    let spelled_out = Config::read(|name| match name {
        "DEBUG" => Some("true".into()),
        "API_DOCS" => None,
        _ => listed.iter().find(|(listed, _)| listed == name).map(|(_, value)| value.clone()),
    });
    let describe = |config: &Config| {
        let mut text = String::new();
        write!(text, "{config:?}").unwrap();
        for secret in [&config.secret_key, &config.jwt_secret_key, &config.ice.turn.secret] {
            text.push_str(secret.expose_secret());
        }
        text.replace("LevelFilter::INFO", "LevelFilter::DEBUG")
    };
    assert_eq!(describe(&spelled_out.unwrap()), describe(&plain));
}

fn is_assignment(line: &str) -> bool {
    line.split_once('=')
        .is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

#[test]
fn a_redis_url_that_is_none_is_named_without_its_password() {
    let Faults(faults) = in_debug("REDIS_URL", "redis://a, http://user:hunter2@b").unwrap_err();

    assert_eq!(faults.len(), 1);
    assert!(faults[0].contains("REDIS_URL, entry 2") && faults[0].contains("redis://"));
    assert!(!faults[0].contains("hunter2"), "{faults:?}");
}

#[test]
fn a_webhook_url_that_is_none_is_named_by_its_place_and_never_repeated() {
    let with = |urls, private| {
        read(&[("DEBUG", "true"), ("WEBHOOK_URLS", urls), ("WEBHOOK_ALLOW_PRIVATE", private)])
    };

    for (urls, entry) in [
        ("https://a.example/hunter2, http://b.example/hunter2", "entry 2: is not encrypted"),
        (r#"["https://10.0.0.1/hunter2"]"#, "entry 1: leads to 10.0.0.1"),
        ("hunter2", "entry 1: is no https:// URL"),
        ("https://hunter2@a.example/", "entry 1: has a user name"),
        (r#"["https://a.example/hunter2""#, "give a list"),
    ] {
        let Faults(faults) = with(urls, "").unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("WEBHOOK_URLS") && faults[0].contains(entry));
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }
    let both = with(r#"["http://127.0.0.1:9000/hunter2","https://b.example/"]"#, "true").unwrap();
    assert_eq!(both.webhooks.len(), 2);
    assert!(!format!("{both:?}").contains("hunter2"));
    assert!(in_debug("WEBHOOK_URLS", "").unwrap().webhooks.is_empty());
}

#[test]
fn sentinels_are_several_addresses_and_a_service() {
    let urls = |urls| in_debug("REDIS_URL", urls).map(|config| config.redis_urls.len());

    for good in ["redis+sentinel://a/den", "rediss+sentinel://u:p@a:1;[::1];b:26379/den"] {
        assert_eq!(urls(good).unwrap(), 1, "{good}");
    }
    for wrong in ["redis+sentinel://a;b", "redis+sentinel:///den", "http+sentinel://a/den"] {
        assert!(urls(wrong).unwrap_err().0[0].contains("redis+sentinel://"), "{wrong}");
    }
}

#[test]
fn an_authority_that_signs_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let good = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let with = |pem: &str| {
        fs::write(&path, pem).unwrap();
        in_debug("REDIS_CA_FILE", path.to_str().unwrap())
    };

    for wrong in ["", "no PEM", garbage] {
        assert!(with(wrong).unwrap_err().0[0].contains("REDIS_CA_FILE"), "{wrong}");
    }
    assert!(with(&good).is_ok());
}

#[test]
fn a_value_that_is_not_accepted_is_named_with_what_is() {
    for (name, value, accepted) in [
        ("HOST", "http://localhost", "a host name"),
        ("HOST", "[]", "a host name"),
        ("HOST", "a\nb", "a host name"),
        ("PORT", "8000\nPORT=1", "0 to 65535"),
        ("PORT", "80000", "0 to 65535"),
        ("REQUIRE_HTTPS", "maybe", "true or false"),
        ("LOG_LEVEL", "LOUD", "WARNING"),
        ("LOG_FORMAT", "xml", "pretty or json"),
        ("MAX_CONNECTIONS_PER_ROOM", "-3", "from 1"),
        ("MAX_CONNECTIONS_PER_ROOM", "0", "from 1"),
        ("RESUME_WINDOW_SECONDS", "3601", "from 0 to 3600"),
        ("RESUME_WINDOW_SECONDS", "-1", "from 0 to 3600"),
        ("TURN_PROBE_SECONDS", "86401", "from 0 to 86400"),
        ("TURN_PROBE_SECONDS", "often", "0 = never"),
        ("WORKERS", "-1", "from 0 to 1024"),
        ("WORKERS", "1025", "from 0 to 1024"),
        ("WEBSOCKET_TIMEOUT", "1.5", "a whole number"),
        ("WEBSOCKET_MAX_MESSAGE_BYTES", "10", "from 1024"),
        ("RATE_LIMIT_PER_MINUTE", "-1", "0 = no limit"),
        ("CORS_ORIGINS", "[\"app.example.com\"]", "https://app.example.com"),
        ("CORS_ORIGINS", "[\"https://*.example.com\"]", "https://app.example.com"),
        ("CORS_ORIGINS", "[\"a\"", "a list"),
        ("ALLOWED_ROOMS", "{\"a\":1}", "a list"),
        ("TRUSTED_PROXIES", "10.0.0.0/40", "10.0.0.0/8"),
        ("TURNSERVER_URLS", "[\"http://turn.example.com\"]", "turn:turn.example.com"),
        ("TURNSERVER_URL", "turn:", "turn:turn.example.com"),
        ("STUNSERVER_URLS", "turn:x", "stun:turn.example.com"),
        ("TURNSERVER_TTL", "0", "from 1"),
        ("NODE_ID", "a.b", "A-Z a-z"),
        ("METRICS_LISTEN", "9464", "127.0.0.1:9464"),
        ("METRICS_LISTEN", ":9464", "127.0.0.1:9464"),
        ("METRICS_LISTEN", "127.0.0.1:94640", "127.0.0.1:9464"),
        ("SSL_KEY_FILE", "a.pem", "SSL_CERT_FILE"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://localhost:4317", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:pw@localhost", "without user"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost/?key=1", "or query"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api key=1", "name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=%0a", "name=value"),
    ] {
        let faults = in_debug(name, value).unwrap_err().0;

        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(name) && faults[0].contains(accepted), "{faults:?}");
        assert!(!faults[0].contains('\n') && !faults[0].contains("user:pw"), "{faults:?}");
    }
}

#[test]
fn tls_takes_both_files_and_leaves_openssl_its_own_variable() {
    assert_eq!(in_debug("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt").unwrap().tls, None);
    let both = read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "a.crt"), ("SSL_KEY_FILE", "a.key")])
        .unwrap()
        .tls
        .unwrap();
    assert_eq!((both.certificate, both.key), ("a.crt".into(), "a.key".into()));
    let own = read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "ca.crt"), ("SSL_SELF_SIGNED", "true")])
        .unwrap()
        .tls
        .unwrap();
    assert_eq!((own.certificate, own.key), ("ssl/server.crt".into(), "ssl/server.key".into()));
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = read(&[("PORT", "x"), ("DEBUG", "perhaps"), ("USERS_CSV", "/nowhere/users.csv")])
        .unwrap_err()
        .0;

    let about: Vec<_> =
        faults.iter().map(|fault| fault.split(['=', ' ']).next().unwrap()).collect();
    assert_eq!(about, ["PORT", "DEBUG", "SECRET_KEY", "JWT_SECRET_KEY", "USERS_CSV"]);
}

#[test]
fn production_refuses_secrets_that_are_none() {
    let same = "x".repeat(40);
    for (changes, names) in [
        (&[("JWT_SECRET_KEY", "your-jwt-secret-key")][..], &["JWT_SECRET_KEY"][..]),
        (&[("SECRET_KEY", "your-256-bit-secret-key-here-and-longer-than-32")], &["SECRET_KEY"]),
        (&[("SECRET_KEY", ""), ("JWT_SECRET_KEY", "")], &["SECRET_KEY", "JWT_SECRET_KEY"]),
        (&[("JWT_SECRET_KEY", "0123456789012345678901234567890")], &["JWT_SECRET_KEY"]),
        (&[("SECRET_KEY", &same), ("JWT_SECRET_KEY", &same)], &["SECRET_KEY"]),
        (&[("JWT_SECRET_KEY", &" ".repeat(40))], &["JWT_SECRET_KEY"]),
        (&[("JWT_SECRET_KEY_PREVIOUS", "short")], &["JWT_SECRET_KEY_PREVIOUS"]),
        (&[("JWT_SECRET_KEY_PREVIOUS", &"a".repeat(32))], &["JWT_SECRET_KEY_PREVIOUS"]),
        (&[("JWT_SECRET_KEY_PREVIOUS", &"b".repeat(32))], &["JWT_SECRET_KEY_PREVIOUS"]),
        (&[("USERS_CSV", "/nowhere/users.csv")], &["USERS_CSV"]),
    ] {
        let faults = in_production(changes).unwrap_err().0;

        assert_eq!(
            faults.iter().map(|fault| fault.split([' ', '=']).next().unwrap()).collect::<Vec<_>>(),
            names
        );
        let mend = ["openssl rand -hex 32", "manage_users add", "leave it empty"];
        assert!(
            faults.iter().all(|fault| mend.iter().any(|mend| fault.contains(mend))),
            "{faults:?}"
        );
    }
}

#[test]
fn no_secret_is_repeated() {
    let secret = "hunter2-hunter2";

    let config = read(&[
        ("DEBUG", "true"),
        ("JWT_SECRET_KEY", secret),
        ("SECRET_KEY", secret),
        ("TURNSERVER_SECRET", secret),
        ("JWT_SECRET_KEY_PREVIOUS", secret),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2-hunter2"),
    ])
    .unwrap();
    let names = ["JWT_SECRET_KEY", "SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS"];
    let faults = in_production(&names.map(|name| (name, secret))).unwrap_err();

    assert!(!format!("{config:?}{faults:?}{faults}").contains("hunter2"));
}

#[test]
fn traces_go_where_the_standard_variables_say() {
    let otlp = read(&[
        ("DEBUG", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318/base/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b=+, x-team = calls"),
    ]);
    let otlp = otlp.unwrap().otlp.unwrap();

    let headers = otlp.headers.iter().map(|(name, value)| (&**name, value.expose_secret()));
    assert_eq!(headers.collect::<Vec<_>>(), [("api-key", "a b=+"), ("x-team", "calls")]);
    assert_eq!(otlp.endpoint, "https://collector.example:4318/base");
    assert_eq!(otlp.service_name, "signaling-server");
    assert!(in_debug("OTEL_SERVICE_NAME", "x").unwrap().otlp.is_none());
}

#[test]
fn lists_come_as_json_or_with_commas() {
    for value in [r#"["a","b c"]"#, r#"[ "a" , "b c" ]"#, "[a, b c]", "a,b c", " a , b c ,"] {
        assert_eq!(
            in_debug("ALLOWED_ROOMS", value).unwrap().allowed_rooms,
            ["a", "b c"],
            "{value}"
        );
    }
    assert!(in_debug("ALLOWED_ROOMS", "[]").unwrap().allowed_rooms.is_empty());
}

#[test]
fn the_single_turn_url_is_used_where_the_list_is_empty() {
    let single = in_debug("TURNSERVER_URL", "turn:a:3478").unwrap().ice.turn.urls.clone();
    let both = read(&[
        ("DEBUG", "true"),
        ("TURNSERVER_URL", "turn:a:3478"),
        ("TURNSERVER_URLS", "turn:b,turns:c"),
    ]);

    assert_eq!(single, ["turn:a:3478"]);
    assert_eq!(both.unwrap().ice.turn.urls, ["turn:b", "turns:c"]);
}

#[test]
fn debug_is_talkative_unless_told_otherwise() {
    assert_eq!(read(&[("DEBUG", "true")]).unwrap().log_level, LevelFilter::DEBUG);
    assert_eq!(in_debug("LOG_LEVEL", "warning").unwrap().log_level, LevelFilter::WARN);
}

/// A good value for each of [`READ_AGAIN`] that is not the default.
const OTHERS: [(&str, &str); READ_AGAIN.len()] = [
    ("LOG_LEVEL", "ERROR"),
    ("CORS_ORIGINS", "https://a.example"),
    ("RATE_LIMIT_PER_MINUTE", "61"),
    ("WEBSOCKET_MESSAGES_PER_SECOND", "51"),
    ("WEBSOCKET_MESSAGE_BURST", "251"),
    ("WEBSOCKET_TIMEOUT", "31"),
    ("WEBSOCKET_MAX_MESSAGE_BYTES", "65537"),
    ("MAX_CONNECTIONS_PER_ROOM", "11"),
    ("MAX_CONNECTIONS_PER_IP", "101"),
    ("AUTH_MAX_FAILURES", "6"),
    ("AUTH_LOCKOUT_SECONDS", "301"),
    ("ALLOWED_ROOMS", "den"),
    ("TURNSERVER_SECRET", "hunter2-hunter2"),
    ("TURNSERVER_URL", "turn:a"),
    ("TURNSERVER_URLS", "turn:b"),
    ("TURNSERVER_TTL", "86401"),
    ("STUNSERVER_URLS", "stun:a"),
];

#[test]
fn what_sighup_reads_again_is_taken_and_named() {
    assert_eq!(OTHERS.map(|(name, _)| name), READ_AGAIN);
    let start = in_debug("", "").unwrap();
    for other in OTHERS {
        let set = [("DEBUG", "true"), other];

        let (config, Changes { changed, need_restart }) =
            start.read_again(variables(&set)).unwrap();

        let fresh = format!("{:?}", read(&set).unwrap());
        assert_eq!(format!("{config:?}"), fresh);
        assert!(changed.len() == 1 && changed[0].starts_with(other.0), "{changed:?}");
        assert!(need_restart.is_empty() && !changed[0].contains("hunter2"), "{changed:?}");
        let (_, none) = config.read_again(variables(&set)).unwrap();
        assert!(none.changed.is_empty(), "{none:?}");
    }
}

#[test]
fn what_needs_a_restart_stays_as_it_was_and_is_named_each_time() {
    let start = in_debug("LOG_LEVEL", "").unwrap();
    let (own, jwt) = ("a".repeat(32), "b".repeat(32));
    let set = [
        ("SECRET_KEY", &*own),
        ("JWT_SECRET_KEY", &*jwt),
        ("USERS_CSV", "Cargo.toml"),
        ("PORT", "81"),
        ("ALLOWED_ROOMS", "den"),
    ];

    let (config, first) = start.read_again(variables(&set)).unwrap();
    let (_, second) = config.read_again(variables(&set)).unwrap();

    assert!(config.port == 8000 && config.debug && config.log_level == LevelFilter::DEBUG);
    assert_eq!(first.changed, ["ALLOWED_ROOMS: (default) → den"]);
    assert_eq!(second.changed, [""; 0]);
    let restart = ["DEBUG", "JWT_SECRET_KEY", "PORT", "SECRET_KEY", "USERS_CSV"];
    assert_eq!(
        (first.need_restart, second.need_restart),
        (restart.map(String::from).to_vec(), restart.map(String::from).to_vec())
    );
}

#[test]
fn settings_are_read_again_all_or_none() {
    let start = in_debug("", "").unwrap();
    let set = [("DEBUG", "true"), ("ALLOWED_ROOMS", "den"), ("PORT", "x")];

    let Faults(faults) = start.read_again(variables(&set)).unwrap_err();

    assert!(faults.len() == 1 && faults[0].starts_with("PORT=x"), "{faults:?}");
}

#[test]
fn what_is_allowed_but_dangerous_is_warned_of() {
    let warned_of =
        |changes: &[(&str, &str)]| in_production(changes).unwrap().warnings().join("; ");
    let narrow = ("CORS_ORIGINS", "https://a.example");

    assert_eq!(warned_of(&[narrow]), "");
    assert!(warned_of(&[]).contains("CORS_ORIGINS"));
    assert!(warned_of(&[narrow, ("ALLOW_ANONYMOUS", "true")]).contains("guest"));
    assert!(warned_of(&[narrow, ("TURNSERVER_SECRET", "x")]).contains("TURNSERVER_URLS"));
    assert!(warned_of(&[narrow, ("TURNSERVER_SECRET", "x")]).contains("openssl rand"));
    for (address, token, is_warned_of) in
        [("127.0.0.1:9464", "", false), ("0.0.0.0:9464", "", true), ("0.0.0.0:9464", "x", false)]
    {
        let warned_of = warned_of(&[narrow, ("METRICS_LISTEN", address), ("METRICS_TOKEN", token)]);
        assert_eq!(warned_of.contains("METRICS_LISTEN"), is_warned_of, "{address}");
    }
    assert!(read(&[("DEBUG", "true")]).unwrap().warnings().join("").contains("placeholder"));
}

#[test]
fn the_reference_describes_every_setting() {
    let names = RefCell::new(Vec::new());
    let _ = Config::read(|name| {
        names.borrow_mut().push(format!("`{name}`"));
        None
    });
    let table = include_str!("../../docs/reference/settings.md");

    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let operations = include_str!("../../docs/run/operations.md");
    for name in READ_AGAIN {
        assert!(operations.contains(&format!("`{name}`")), "{name}");
    }
    for name in names.borrow().iter() {
        assert!(rows.iter().any(|row| row.split('|').nth(1).unwrap().contains(name)), "{name}");
    }
}

#[test]
fn origins_are_compared_as_browsers_spell_them() {
    let origins =
        in_debug("CORS_ORIGINS", "https://App.example.com:443/, http://localhost:3000,null")
            .unwrap()
            .cors_origins;

    assert!(
        origins.allow("https://app.example.com")
            && origins.allow("http://localhost:3000")
            && origins.allow("null")
    );
    assert!(
        !origins.allow("https://app.example.com.evil.example")
            && !origins.allow("http://app.example.com")
    );
}
