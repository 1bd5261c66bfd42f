//! `signaling-server doctor`: checks the settings and everything that they name, on this machine and on others. Each thing
//! that was checked is a [`Diagnostic`]; nothing is changed.

mod certificate;
mod clock;
mod dangers;
mod diagnostic;
mod issuer;
mod machine;
mod public_url;
mod redis;
mod settings;
mod start;
mod token;
mod turn;
mod web_socket;

use std::time::Duration;

use crate::config::{Config, Environment};

pub use self::{
    dangers::dangers,
    diagnostic::{Diagnostic, Verdict},
    machine::{cannot_listen, cannot_listen_on_socket, listen_faults},
    public_url::PublicAddress,
    settings::{default_passwords, settings},
    start::{start_faults, users_file_fault},
    token::check_token,
};

/// How far clocks may differ. A revoked token is forgotten when it expires, by the clock that is ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Checks everything that the settings name. `date` is the URL of a server whose clock is compared with this machine's; `public`
/// is the address at which clients reach the server.
pub async fn run(
    environment: &Environment,
    date: Option<&str>,
    public: Option<&PublicAddress>,
) -> Vec<Diagnostic> {
    let (config, found) = settings(environment);
    let Config { startup, reloadable } = &config;
    // A setting that is not accepted names nothing that could be checked.
    let faults: Vec<_> = found.iter().map(|it| it.subject.clone()).collect();
    let are_accepted = |names: &[&str]| !faults.iter().any(|it| names.contains(&it.as_str()));
    let mut diagnostics = vec![settings::env_file(environment)];
    diagnostics.extend(settings::more(&config, environment, &found));
    diagnostics.splice(1..1, found);
    diagnostics.extend(start::file_faults(startup));
    if are_accepted(&["SSL_CERT_FILE", "SSL_KEY_FILE"]) {
        diagnostics.extend(certificate::check(&startup.listen));
    }
    if are_accepted(&["HOST", "PORT"]) {
        diagnostics.push(machine::check_server_port(&startup.listen).await);
    }
    if let Some(public) = public {
        diagnostics.extend(public_url::check(&config, public).await);
    }
    if let Some(address) = startup.telemetry.metrics_listen {
        diagnostics.push(machine::check_metrics_port(address).await);
    }
    diagnostics.push(machine::check_file_descriptors(reloadable));
    diagnostics.extend(clock::check(date).await);
    if are_accepted(&["JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL", "JWT_ISSUER"]) {
        diagnostics.extend(issuer::check(startup).await);
    }
    if are_accepted(&["REDIS_URL", "REDIS_CA_FILE"]) {
        let (secret_key, capacity) =
            (&startup.auth.secret_key, reloadable.limits.max_connections_per_room);
        diagnostics.extend(redis::check(&startup.cluster, secret_key, capacity).await);
    }
    if are_accepted(&["TURNSERVER_URL", "TURNSERVER_URLS", "STUNSERVER_URLS"]) {
        diagnostics.extend(turn::check(&config).await);
    }
    diagnostics
}
