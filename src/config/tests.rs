//! Which settings are accepted, what stops a start, and what SIGHUP changes.

use std::{cell::RefCell, collections::BTreeSet, fmt::Write, fs, time::Duration};

use ipnet::IpNet;
use secrecy::ExposeSecret;
use tracing::level_filters::LevelFilter;

use super::{dotenv::parse_line, *};

fn read(set: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::read(variables(set))
}

fn variables(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn in_debug(name: &str, value: &str) -> Result<Config, ConfigErrors> {
    read(&[("DEBUG", "true"), (name, value)])
}

/// The errors, a line each.
fn errors_of(read: Result<Config, ConfigErrors>) -> Vec<String> {
    read.unwrap_err().0.iter().map(ToString::to_string).collect()
}

/// A production environment without errors, but for what is overridden.
fn in_production(changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
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
    let Config { startup, reloadable } = in_production(&[]).unwrap();

    let StartupSettings { process, listen, cors, auth, rooms, ice, cluster, telemetry, .. } =
        startup;
    assert_eq!((listen.host.as_str(), listen.port), ("0.0.0.0", 8000));
    assert!(listen.require_https && listen.tls.is_none());
    assert_eq!(
        listen.trusted_proxies,
        ["127.0.0.0/8".parse::<IpNet>().unwrap(), "::1/128".parse().unwrap()]
    );
    assert!(!process.debug && !process.api_docs && process.workers == 0);
    assert_eq!(process.shutdown_grace.as_secs(), 10);
    assert_eq!(auth.token_lifetime, Duration::from_secs(1800));
    assert!(!auth.enforce_token_expiry && !auth.allow_anonymous && !auth.rooms_api_require_auth);
    assert!(auth.jwt_secret_key_previous.is_none() && auth.admin_token.is_none());
    assert!(cors.allow_credentials);
    assert_eq!((rooms.resume_window.as_secs(), rooms.timeline_retention.as_secs()), (30, 300));
    assert_eq!(rooms.state_file, None);
    assert_eq!(ice.probe_interval.as_secs(), 60);
    assert!(cluster.redis_urls.is_empty() && cluster.node_id.is_none());
    assert!(telemetry.metrics_token.is_none() && telemetry.otlp.is_none());
    assert_eq!(telemetry.metrics_listen, None);

    let ReloadableSettings { cors, auth, limits, rooms, ice, telemetry, .. } = reloadable;
    assert_eq!(telemetry.log_level, LevelFilter::INFO);
    assert_eq!(cors.origins, Origins::Any);
    assert_eq!(
        (limits.requests_per_minute, limits.messages_per_second, limits.message_burst),
        (60, 50, 250)
    );
    assert_eq!((limits.websocket_timeout.as_secs(), limits.max_message_bytes), (30, 65_536));
    assert_eq!((limits.max_connections_per_room, limits.max_connections_per_ip), (10, 100));
    assert_eq!((auth.max_failures, auth.lockout.as_secs()), (5, 300));
    assert!(rooms.allowed.is_empty() && ice.stun_urls.is_empty() && ice.turn.urls.is_empty());
    assert!(ice.turn.secret.expose_secret().is_empty());
    assert_eq!(ice.turn.ttl.as_secs(), 86_400);
}

#[test]
fn a_token_that_no_header_can_hold_is_refused_and_not_shown() {
    for name in ["METRICS_TOKEN", "ADMIN_TOKEN"] {
        for token in ["zoë-0123456789abcdef0123456789abcdef", "two words 0123456789abcdef0123456"]
        {
            let errors = errors_of(in_debug(name, token));

            assert!(errors[0].starts_with(&format!("{name}: the value is not accepted; use ")));
            assert!(errors[0].contains("letters, digits and signs"), "{errors:?}");
            assert!(!errors[0].contains("0123456789abcdef"), "{errors:?}");
        }
        assert!(in_debug(name, "0123456789abcdef0123456789abcdef").is_ok());
    }
}

/// The names of the settings that are read, in order.
fn names_read(read: impl Fn(&mut Reader<'_>)) -> Vec<String> {
    let names = RefCell::new(Vec::new());
    let variable = |name: &str| {
        names.borrow_mut().push(name.to_owned());
        None
    };
    read(&mut Reader::new(&variable));
    let mut names = names.take();
    names.sort_unstable();
    names
}

#[test]
fn each_setting_is_read_once_and_where_it_belongs() {
    let startup = names_read(|reader| _ = StartupSettings::read(reader));
    let reloadable = names_read(|reader| _ = ReloadableSettings::read(reader, false));

    for (read, is_reloadable) in [(startup, false), (reloadable, true)] {
        let declared = declarations().filter(|it| it.is_reloadable() == is_reloadable);
        let mut declared: Vec<_> = declared.map(|it| it.name).collect();
        declared.sort_unstable();
        assert_eq!(read, declared, "reloadable: {is_reloadable}");
    }
}

#[test]
fn env_example_sets_every_setting_to_its_default() {
    let example = fs::read_to_string("env.example").unwrap();
    let listed: Vec<_> = example.lines().filter_map(|line| parse_line(line).unwrap()).collect();
    let names: Vec<_> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, declarations().map(|it| it.name).collect::<Vec<_>>());

    let plain = in_debug("LOG_LEVEL", "").unwrap();
    let spelled_out = Config::read(|name| match name {
        "DEBUG" => Some("true".into()),
        "API_DOCS" => None,
        // An example that is no default.
        "MAX_CONNECTIONS_PER_USER" => None,
        _ => listed.iter().find(|(listed, _)| listed == name).map(|(_, value)| value.clone()),
    });

    let describe = |config: &Config| {
        let mut text = String::new();
        write!(text, "{config:?}").unwrap();
        let auth = &config.startup.auth;
        let turn_secret = &config.reloadable.ice.turn.secret;
        for secret in [&auth.secret_key, &auth.jwt_secret_key, turn_secret] {
            text.push_str(secret.expose_secret());
        }
        text.replace("LevelFilter::INFO", "LevelFilter::DEBUG")
    };
    assert_eq!(describe(&spelled_out.unwrap()), describe(&plain));
}

#[test]
fn a_redis_url_that_is_none_is_named_without_its_password() {
    for wrong in ["redis://a, http://user:hunter2@b", "redis://a, redis://:p@hunter2@b"] {
        let errors = errors_of(in_debug("REDIS_URL", wrong));

        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("REDIS_URL: entry 2") && errors[0].contains("redis://"));
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
    }
}

#[test]
fn a_webhook_url_that_is_none_is_named_by_its_place_and_never_repeated() {
    let with = |urls, private| {
        read(&[("DEBUG", "true"), ("WEBHOOK_URLS", urls), ("WEBHOOK_ALLOW_PRIVATE", private)])
    };

    for (urls, entry) in [
        ("https://a.example/hunter2, http://b.example/hunter2", "entry 2 is not encrypted"),
        (r#"["https://10.0.0.1/hunter2"]"#, "entry 1 leads to 10.0.0.1"),
        ("hunter2", "entry 1 is no https:// URL"),
        ("https://hunter2@a.example/", "entry 1 has a user name"),
        (r#"["https://a.example/hunter2""#, "use a list"),
    ] {
        let errors = errors_of(with(urls, ""));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("WEBHOOK_URLS: ") && errors[0].contains(entry));
        assert!(!errors[0].contains("hunter2"), "{errors:?}");
    }
    let both = with(r#"["http://127.0.0.1:9000/hunter2","https://b.example/"]"#, "true").unwrap();
    assert_eq!(both.startup.webhooks.targets.len(), 2);
    assert!(!format!("{both:?}").contains("hunter2"));
    assert!(in_debug("WEBHOOK_URLS", "").unwrap().startup.webhooks.targets.is_empty());
}

#[test]
fn sentinels_are_several_addresses_and_a_service() {
    let urls =
        |urls| in_debug("REDIS_URL", urls).map(|config| config.startup.cluster.redis_urls.len());

    for good in ["redis+sentinel://a/den", "rediss+sentinel://u:p@a:1;[::1];b:26379/den"] {
        assert_eq!(urls(good).unwrap(), 1, "{good}");
    }
    for wrong in ["redis+sentinel://a;b", "redis+sentinel:///den", "http+sentinel://a/den"] {
        assert!(urls(wrong).unwrap_err().0[0].fix.contains("redis+sentinel://"), "{wrong}");
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
        assert!(with(wrong).unwrap_err().0[0].name == "REDIS_CA_FILE", "{wrong}");
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
        ("STUNSERVER_URLS", "turn:x", "stun:stun.example.com"),
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
        let errors = errors_of(in_debug(name, value));

        assert_eq!(errors.len(), 1, "{errors:?}");
        let (problem, fix) = errors[0].split_once("; ").unwrap();
        assert!(problem.starts_with(&format!("{name}: ")), "{problem}");
        assert!(fix.contains(accepted), "{fix}");
        assert!(!errors[0].contains('\n') && !errors[0].contains("user:pw"), "{errors:?}");
    }
}

#[test]
fn tls_takes_both_files_and_leaves_openssl_its_own_variable() {
    assert_eq!(
        in_debug("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt").unwrap().startup.listen.tls,
        None
    );
    let both = read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "a.crt"), ("SSL_KEY_FILE", "a.key")])
        .unwrap()
        .startup
        .listen
        .tls
        .unwrap();
    assert_eq!((both.certificate, both.key), ("a.crt".into(), "a.key".into()));
    let own = read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "ca.crt"), ("SSL_SELF_SIGNED", "true")])
        .unwrap()
        .startup
        .listen
        .tls
        .unwrap();
    assert_eq!((own.certificate, own.key), ("ssl/server.crt".into(), "ssl/server.key".into()));
}

#[test]
fn all_errors_are_reported_at_once() {
    let errors = read(&[("PORT", "x"), ("DEBUG", "perhaps"), ("USERS_CSV", "/nowhere/users.csv")])
        .unwrap_err()
        .0;

    let names: Vec<_> = errors.iter().map(|error| &*error.name).collect();
    assert_eq!(names, ["DEBUG", "PORT", "SECRET_KEY", "JWT_SECRET_KEY", "USERS_CSV"]);
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
        let errors = in_production(changes).unwrap_err().0;

        assert_eq!(errors.iter().map(|error| &*error.name).collect::<Vec<_>>(), names);
        let fixes = ["openssl rand -hex 32", "manage_users add", "leave it empty"];
        assert!(
            errors.iter().all(|error| fixes.iter().any(|fix| error.fix.contains(fix))),
            "{errors:?}"
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
    let errors = in_production(&names.map(|name| (name, secret))).unwrap_err();

    assert!(!format!("{config:?}{errors:?}{errors}").contains("hunter2"));
}

#[test]
fn traces_go_where_the_standard_variables_say() {
    let otlp = read(&[
        ("DEBUG", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318/base/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b=+, x-team = calls"),
    ]);
    let otlp = otlp.unwrap().startup.telemetry.otlp.unwrap();

    let headers = otlp.headers.iter().map(|(name, value)| (&**name, value.expose_secret()));
    assert_eq!(headers.collect::<Vec<_>>(), [("api-key", "a b=+"), ("x-team", "calls")]);
    assert_eq!(otlp.endpoint, "https://collector.example:4318/base");
    assert_eq!(otlp.service_name, "signaling-server");
    assert!(in_debug("OTEL_SERVICE_NAME", "x").unwrap().startup.telemetry.otlp.is_none());
}

#[test]
fn lists_come_as_json_or_with_commas() {
    for value in [r#"["a","b c"]"#, r#"[ "a" , "b c" ]"#, "[a, b c]", "a,b c", " a , b c ,"] {
        assert_eq!(
            in_debug("ALLOWED_ROOMS", value).unwrap().reloadable.rooms.allowed,
            ["a", "b c"],
            "{value}"
        );
    }
    assert!(in_debug("ALLOWED_ROOMS", "[]").unwrap().reloadable.rooms.allowed.is_empty());
}

#[test]
fn a_list_may_hold_ipv6_addresses_in_brackets() {
    let urls = |text: &str| in_debug("TURNSERVER_URLS", text).unwrap().reloadable.ice.turn.urls;
    let (one, two) = ("turn:[2001:db8::1]:3478", "turns:[::1]?transport=tcp");

    assert_eq!(in_debug("TURNSERVER_URL", one).unwrap().reloadable.ice.turn.urls, [one]);
    assert_eq!(urls(&format!("{one}, {two}")), [one, two]);
    assert_eq!(urls(&format!("[{one},{two}]")), [one, two]);
    assert_eq!(urls(&format!("[\"{one}\",\"{two}\"]")), [one, two]);
    for wrong in [
        "turn:[::1",
        "turn:::1]",
        "turn:[[::1]]",
        "[turn:a",
        "turn:a]",
        "[turn:a],[turn:b]",
        "[[turn:a]]",
    ] {
        assert!(in_debug("TURNSERVER_URLS", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn urls_that_a_browser_does_not_use_are_warned_about() {
    let warned = |name, url| {
        let config = in_debug(name, url).unwrap();
        let of_url = |it: &ConfigWarning| it.problem.starts_with(url);
        let warnings: Vec<_> = config.warnings().into_iter().filter(of_url).collect();
        warnings.into_iter().map(|it| it.name.into_owned()).collect::<Vec<_>>()
    };

    assert_eq!(warned("TURNSERVER_URLS", "turn:a:444"), ["TURNSERVER_URLS"]);
    assert_eq!(warned("STUNSERVER_URLS", "stuns:a"), ["STUNSERVER_URLS"]);
    assert_eq!(warned("TURNSERVER_URLS", "turn:a:443"), Vec::<String>::new());
    assert!(in_debug("STUNSERVER_URLS", "stun:256.1.1.1").is_err(), "no browser takes it");
}

#[test]
fn the_single_turn_url_is_used_where_the_list_is_empty() {
    let single = in_debug("TURNSERVER_URL", "turn:a:3478").unwrap().reloadable.ice.turn.urls;
    let both = read(&[
        ("DEBUG", "true"),
        ("TURNSERVER_URL", "turn:a:3478"),
        ("TURNSERVER_URLS", "turn:b,turns:c"),
    ]);

    assert_eq!(single, ["turn:a:3478"]);
    assert_eq!(both.unwrap().reloadable.ice.turn.urls, ["turn:b", "turns:c"]);
}

#[test]
fn debug_logs_at_debug_unless_a_level_is_set() {
    let level = |config: Config| config.reloadable.telemetry.log_level;

    assert_eq!(level(read(&[("DEBUG", "true")]).unwrap()), LevelFilter::DEBUG);
    assert_eq!(level(in_debug("LOG_LEVEL", "warning").unwrap()), LevelFilter::WARN);
    assert_eq!(level(in_debug("LOG_LEVEL", "info").unwrap()), LevelFilter::INFO);
}

/// A value for each reloadable setting that is accepted and is not the default.
const OTHERS: [(&str, &str); 20] = [
    ("LOG_LEVEL", "ERROR"),
    ("CORS_ORIGINS", "https://a.example"),
    ("RATE_LIMIT_PER_MINUTE", "61"),
    ("WEBSOCKET_MESSAGES_PER_SECOND", "51"),
    ("WEBSOCKET_MESSAGE_BURST", "251"),
    ("WEBSOCKET_BYTES_PER_SECOND", "1048577"),
    ("WEBSOCKET_TIMEOUT", "31"),
    ("WEBSOCKET_MAX_MESSAGE_BYTES", "65537"),
    ("MAX_CONNECTIONS_PER_ROOM", "11"),
    ("MAX_CONNECTIONS_PER_USER", "50"),
    ("MAX_CONNECTIONS_PER_IP", "101"),
    ("AUTH_MAX_FAILURES", "6"),
    ("AUTH_LOCKOUT_SECONDS", "301"),
    ("JOINS_PER_MINUTE", "61"),
    ("ALLOWED_ROOMS", "den"),
    ("TURNSERVER_SECRET", "hunter2-hunter2"),
    ("TURNSERVER_URL", "turn:a"),
    ("TURNSERVER_URLS", "turn:b"),
    ("TURNSERVER_TTL", "86401"),
    ("STUNSERVER_URLS", "stun:a"),
];

/// The settings after a reload of a process that was started with `startup` and runs with `current`.
fn reloaded(
    startup: &StartupSettings,
    current: &ReloadableSettings,
    set: &[(&str, &str)],
) -> (ReloadableSettings, SettingChanges) {
    reload(startup, current, variables(set)).unwrap()
}

#[test]
fn a_reloadable_setting_is_reloaded_and_named() {
    let reloadable: BTreeSet<_> =
        declarations().filter(|it| it.is_reloadable()).map(|it| it.name).collect();
    assert_eq!(BTreeSet::from(OTHERS.map(|(name, _)| name)), reloadable);
    let start = in_debug("", "").unwrap();
    for other in OTHERS {
        let set = [("DEBUG", "true"), other];

        let (settings, SettingChanges { changed, need_restart }) =
            reloaded(&start.startup, &start.reloadable, &set);

        let fresh = read(&set).unwrap().reloadable;
        assert_eq!(format!("{settings:?}"), format!("{fresh:?}"));
        let old = &start.reloadable;
        let is_other = settings.ice != old.ice || format!("{settings:?}") != format!("{old:?}");
        assert!(is_other, "{other:?}");
        assert!(changed.len() == 1 && changed[0].starts_with(other.0), "{changed:?}");
        assert!(need_restart.is_empty() && !changed[0].contains("hunter2"), "{changed:?}");
        let (_, again) = reloaded(&start.startup, &settings, &set);
        assert!(again.changed.is_empty(), "{again:?}");
    }
}

#[test]
fn a_setting_that_needs_a_restart_is_named_at_each_reload() {
    let start = in_debug("LOG_LEVEL", "").unwrap();
    let (own, jwt) = ("a".repeat(32), "b".repeat(32));
    let set = [
        ("SECRET_KEY", &*own),
        ("JWT_SECRET_KEY", &*jwt),
        ("USERS_CSV", "Cargo.toml"),
        ("PORT", "81"),
        ("ALLOWED_ROOMS", "den"),
    ];

    let (settings, first) = reloaded(&start.startup, &start.reloadable, &set);
    let (_, second) = reloaded(&start.startup, &settings, &set);

    // DEBUG still holds, and with it the default of LOG_LEVEL.
    assert_eq!(settings.telemetry.log_level, LevelFilter::DEBUG);
    assert_eq!(first.changed, ["ALLOWED_ROOMS: (default) → den"]);
    assert_eq!(second.changed, [""; 0]);
    let restart = ["DEBUG", "JWT_SECRET_KEY", "PORT", "SECRET_KEY", "USERS_CSV"];
    assert_eq!(
        (first.need_restart, second.need_restart),
        (restart.map(String::from).to_vec(), restart.map(String::from).to_vec())
    );
}

#[test]
fn settings_are_reloaded_all_or_none() {
    let start = in_debug("", "").unwrap();
    let set = [("DEBUG", "true"), ("ALLOWED_ROOMS", "den"), ("PORT", "x")];

    let refused = reload(&start.startup, &start.reloadable, variables(&set));

    let ConfigErrors(errors) = refused.unwrap_err();
    assert!(errors.len() == 1 && errors[0].name == "PORT", "{errors:?}");
}

#[test]
fn a_start_reports_what_is_allowed_but_dangerous() {
    let names = |changes: &[(&str, &str)]| {
        let warnings = in_production(changes).unwrap().warnings();
        warnings.into_iter().map(|warning| warning.name.into_owned()).collect::<Vec<_>>()
    };
    let narrow = ("CORS_ORIGINS", "https://a.example");

    assert_eq!(names(&[narrow]), [""; 0]);
    assert_eq!(names(&[]), ["CORS_ORIGINS"]);
    assert_eq!(names(&[narrow, ("ALLOW_ANONYMOUS", "true")]), ["ALLOW_ANONYMOUS"]);
    let turn = names(&[narrow, ("TURNSERVER_SECRET", "x")]);
    assert_eq!(turn, ["TURNSERVER_SECRET", "TURNSERVER_URLS"]);
    for (address, token, is_warned_of) in
        [("127.0.0.1:9464", "", false), ("0.0.0.0:9464", "", true), ("0.0.0.0:9464", "x", false)]
    {
        let names = names(&[narrow, ("METRICS_LISTEN", address), ("METRICS_TOKEN", token)]);
        assert_eq!(names.contains(&"METRICS_LISTEN".to_owned()), is_warned_of, "{address}");
    }
    let debug = read(&[("DEBUG", "true")]).unwrap().warnings();
    let lines: Vec<_> = debug.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, name) in lines.iter().zip(["SECRET_KEY", "JWT_SECRET_KEY"]) {
        assert!(line.starts_with(name) && line.contains("placeholder") && line.contains("openssl"));
    }
}

#[test]
fn secrets_with_white_space_or_quotes_at_their_ends_deserve_a_warning() {
    let key = "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4";
    for (text, problem) in [
        (format!("{key}\n"), Some("white space")),
        (format!(" {key}"), Some("white space")),
        (format!("\"{key}\""), Some("quotes")),
        (format!("'{key}'"), Some("quotes")),
        (format!("'{key}"), None),
        (key.to_owned(), None),
    ] {
        let config = in_debug("JWT_SECRET_KEY", &text).unwrap();

        let warnings = wrapped_secrets(&config.startup, &config.reloadable);

        let found: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), usize::from(problem.is_some()), "{text:?}: {found:?}");
        assert!(found.iter().all(|line| line.contains(problem.unwrap())), "{text:?}: {found:?}");
    }
}

#[test]
fn lists_may_have_single_quotes_and_never_keep_them() {
    let rooms = |text: &str| in_debug("ALLOWED_ROOMS", text).map(|it| it.reloadable.rooms.allowed);
    for (text, expected) in [
        ("['a','b']", ["a", "b"]),
        ("[ 'a' , b ]", ["a", "b"]),
        ("'a','b'", ["a", "b"]),
        ("bob's room, attic", ["bob's room", "attic"]),
        ("[\"'a'\", \"b\"]", ["'a'", "b"]),
    ] {
        assert_eq!(rooms(text).unwrap(), expected, "{text}");
    }
    for text in
        ["['a,'b']", "['a", "a','b", "['a']'", "[`a`]", "[\u{2018}a\u{2019}]", "['it's']", "['']"]
    {
        let errors = errors_of(in_debug("ALLOWED_ROOMS", text));
        assert!(errors[0].contains("is not accepted; use a list such as"), "{text}: {errors:?}");
    }
    for text in ["[\"'https://a.example'\"]", "'https://a.example", "https://a.example'"] {
        let errors = errors_of(in_debug("CORS_ORIGINS", text));
        assert!(errors[0].contains("use a list of origins"), "{text}: {errors:?}");
    }
}

#[test]
fn origins_are_compared_as_browsers_spell_them() {
    let origins =
        in_debug("CORS_ORIGINS", "https://App.example.com:443/, http://localhost:3000,null,https://BÜCHER.example:8443,capacitor://localhost")
            .unwrap()
            .reloadable
            .cors
            .origins;

    assert!(
        origins.allow("https://app.example.com")
            && origins.allow("http://localhost:3000")
            && origins.allow("null")
            && origins.allow("https://xn--bcher-kva.example:8443")
            && origins.allow("capacitor://localhost")
    );
    assert!(
        !origins.allow("https://app.example.com.evil.example")
            && !origins.allow("http://app.example.com")
    );
}
