//! Settings that are accepted and dangerous, weak or without effect. The start, `--check-config` and `doctor` say the same of
//! them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::{Diagnostic, Verdict, machine};
use crate::config::{
    self, ConfigWarning, ListenSettings, Origins, ReloadableSettings, StartupSettings, TurnSettings,
};

/// A random secret has more different characters than this, however it is written: 32 hexadecimal digits have 14 on average.
const FEWEST_CHARACTERS: usize = 9;

/// A shorter token can be guessed. In bytes.
const SHORTEST_TOKEN: usize = 16;

/// Idle members are pinged after a third of `WEBSOCKET_TIMEOUT`: before a proxy (nginx, HAProxy, cloud load balancers) cuts
/// them, which most do after 60 s.
const MAX_WEBSOCKET_TIMEOUT: Duration = Duration::from_secs(150);

/// What is not as it should be with settings that are accepted. In development only what is dangerous there, too.
pub fn dangers(startup: &StartupSettings, reloadable: &ReloadableSettings) -> Vec<Diagnostic> {
    if startup.process.debug {
        return warnings(startup, reloadable).collect();
    }
    let judged = judge(startup, reloadable).into_iter();
    judged.filter(|it| it.verdict != Verdict::Ok).collect()
}

/// How settings are that are accepted.
pub(super) fn judge(startup: &StartupSettings, reloadable: &ReloadableSettings) -> Vec<Diagnostic> {
    let mut judged: Vec<_> = warnings(startup, reloadable).collect();
    judged.extend(weak_secrets(&config::secrets(startup, reloadable)));
    judged.extend(turn_without_secret(&reloadable.ice.turn));
    judged.push(https(&startup.listen));
    judged.extend(origins(&reloadable.cors.origins));
    judged.extend(ping_interval(reloadable.limits.websocket_timeout));
    judged.push(machine::check_memory(&startup.process));
    judged
}

fn warnings(
    startup: &StartupSettings,
    reloadable: &ReloadableSettings,
) -> impl Iterator<Item = Diagnostic> {
    config::warnings(startup, reloadable).into_iter().map(Diagnostic::from)
}

/// Warns of secrets that are accepted and yet weak, or used twice.
fn weak_secrets(secrets: &[(&'static str, &SecretString)]) -> Vec<Diagnostic> {
    const FIX: &str = "make another with `openssl rand -hex 32`";
    let mut weak = Vec::new();
    for (number, (name, secret)) in secrets.iter().enumerate() {
        let secret = secret.expose_secret();
        let characters = secret.chars().collect::<BTreeSet<_>>().len();
        if *name == "METRICS_TOKEN" && secret.len() < SHORTEST_TOKEN {
            let message = format!("is shorter than {SHORTEST_TOKEN} bytes, so it can be guessed");
            weak.push(Diagnostic::warning(*name, message, FIX));
        } else if characters < FEWEST_CHARACTERS {
            let message =
                format!("has only {characters} different characters, so it is not random");
            weak.push(Diagnostic::warning(*name, message, FIX));
        }
        // Keys that are the same as each other stop the start.
        for (other, same) in secrets.iter().take(number) {
            if same.expose_secret() == secret && !is_key(name) {
                let message = format!("is the same as {other}: a leak of one reveals both");
                weak.push(Diagnostic::warning(*name, message, FIX));
            }
        }
    }
    weak
}

fn is_key(name: &str) -> bool {
    name.contains("SECRET_KEY")
}

/// Without a secret no credentials are issued.
fn turn_without_secret(TurnSettings { secret, urls, .. }: &TurnSettings) -> Option<Diagnostic> {
    let is_missing = secret.expose_secret().is_empty() && !urls.is_empty();
    is_missing.then(|| {
        Diagnostic::fault(
            "TURNSERVER_SECRET",
            "TURNSERVER_URLS is set but TURNSERVER_SECRET is empty: no client gets TURN credentials",
            "set it to the TURN server's static-auth-secret",
        )
    })
}

fn https(listen: &ListenSettings) -> Diagnostic {
    const SUBJECT: &str = "HTTPS";
    let trusts_all = listen.trusted_proxies.iter().any(|net| net.prefix_len() == 0);
    let is_unix = listen.unix_socket().is_some();
    let is_loopback = is_unix
        || listen.host == "localhost"
        || listen.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if trusts_all {
        return Diagnostic::fault(
            SUBJECT,
            "TRUSTED_PROXIES holds every address: any client may claim that it came by HTTPS, and from which address",
            "name the addresses of your proxies only",
        );
    }
    if listen.tls.is_some() {
        return Diagnostic::ok(
            SUBJECT,
            "the server has TLS of its own, and refuses requests without it",
        );
    }
    match (listen.require_https, is_loopback) {
        (true, _) if listen.trusted_proxies.is_empty() && !is_unix => Diagnostic::fault(
            SUBJECT,
            "REQUIRE_HTTPS=true without a certificate and without TRUSTED_PROXIES: every request is refused",
            "name the proxy in TRUSTED_PROXIES, or give SSL_CERT_FILE and SSL_KEY_FILE",
        ),
        (true, _) => Diagnostic::ok(
            SUBJECT,
            "in force: only requests are served of which a trusted proxy says X-Forwarded-Proto: https",
        ),
        (false, true) => Diagnostic::warning(
            SUBJECT,
            "REQUIRE_HTTPS=false: requests that reach the proxy in the clear are served, too",
            "set REQUIRE_HTTPS=true; deploy/nginx.conf passes on which requests came by HTTPS",
        ),
        (false, false) => Diagnostic::fault(
            SUBJECT,
            format!(
                "REQUIRE_HTTPS=false and HOST={}: passwords cross the network in the clear",
                listen.host
            ),
            "set REQUIRE_HTTPS=true, behind a proxy or with SSL_CERT_FILE and SSL_KEY_FILE",
        ),
    }
}

fn origins(origins: &Origins) -> Option<Diagnostic> {
    const SUBJECT: &str = "CORS_ORIGINS";
    match origins {
        // Warned of already.
        Origins::Any => None,
        Origins::These(origins) if origins.is_empty() => Some(Diagnostic::warning(
            SUBJECT,
            "[] lets no web page use this server",
            "name the origins of your pages",
        )),
        Origins::These(origins) => {
            Some(Diagnostic::ok(SUBJECT, format!("narrowed to {}", origins.join(", "))))
        }
    }
}

/// Warns where an idle member is pinged so seldom that a proxy on the way takes its connection for dead.
fn ping_interval(websocket_timeout: Duration) -> Option<Diagnostic> {
    (websocket_timeout > MAX_WEBSOCKET_TIMEOUT).then(|| {
        let seconds = websocket_timeout.as_secs() / 3;
        Diagnostic::warning(
            "WEBSOCKET_TIMEOUT",
            format!("an idle member is pinged every {seconds} s, and proxies cut connections that are silent for 60 s"),
            "set it to 150 or less, or raise the limit of every proxy on the way (nginx: `proxy_read_timeout`)",
        )
    })
}

impl From<ConfigWarning> for Diagnostic {
    fn from(ConfigWarning { name, problem, fix }: ConfigWarning) -> Self {
        Self::warning(name, problem, fix)
    }
}
