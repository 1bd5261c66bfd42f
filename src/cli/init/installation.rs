//! What is to be installed, as the command line of `init` says it.

use clap::{Args, ValueEnum};

use crate::auth::users;

/// What `init` accepts.
#[derive(Args)]
pub(in crate::cli) struct InitArguments {
    /// The domain of the server, such as signaling.example.com
    #[arg(long, value_parser = domain)]
    domain: String,
    /// The domain of a TURN server, such as turn.example.com; without it, no TURN server is set up
    #[arg(long, value_parser = domain)]
    turn: Option<String>,
    /// The proxy that terminates TLS; none: one of your own
    #[arg(long, value_enum, default_value_t = Proxy::Nginx)]
    proxy: Proxy,
    /// What runs the server
    #[arg(long, value_enum, default_value_t = Service::Systemd)]
    service: Service,
    /// The username of the first account
    #[arg(long, default_value = "admin")]
    user: String,
}

/// The proxy in front of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Proxy {
    /// nginx, with certificates of certbot.
    Nginx,
    /// Caddy, which obtains its certificate by itself.
    Caddy,
    /// A proxy that is not set up here.
    None,
}

/// What runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Service {
    /// systemd: units, or those of the Debian package.
    Systemd,
    /// docker compose, with nginx and coturn.
    Compose,
}

/// What is to be installed.
#[derive(Debug)]
pub(super) struct Installation {
    /// The domain of the server.
    pub domain: String,
    /// The domain of the TURN server.
    pub turn: Option<String>,
    /// The proxy.
    pub proxy: Proxy,
    /// What runs the server.
    pub service: Service,
    /// The first account.
    pub user: String,
    /// Whether the Debian package is installed, which has the units.
    pub is_packaged: bool,
}

impl Installation {
    /// What `arguments` ask for.
    ///
    /// # Errors
    ///
    /// For a username that no account may have, and for what compose.yaml does not contain.
    pub(super) fn new(arguments: InitArguments, is_packaged: bool) -> Result<Self, String> {
        let InitArguments { domain, turn, proxy, service, user } = arguments;
        users::check_username(&user).map_err(|error| format!("--user: {error}"))?;
        if service == Service::Compose && (proxy != Proxy::Nginx || turn.is_some()) {
            return Err(
                "--service compose: compose.yaml contains nginx and coturn, both under --domain; \
                 leave out --proxy and --turn"
                    .to_owned(),
            );
        }
        Ok(Self { domain, turn, proxy, service, user, is_packaged })
    }

    /// Whether the accounts are in a file of this folder, and not in a volume.
    pub(super) fn has_users_file(&self) -> bool {
        self.service == Service::Systemd
    }
}

/// A host name with a dot (RFC 1123 section 2.1), in lower case.
fn domain(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_number = name.split('.').all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() <= 253 && name.contains('.') && !is_number && name.split('.').all(is_label) {
        Ok(name)
    } else {
        Err("use a host name alone, such as signaling.example.com, without https:// and port"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::domain;

    #[test]
    fn a_domain_is_a_host_name_with_a_dot() {
        assert_eq!(domain("Signaling.Example.com"), Ok("signaling.example.com".to_owned()));
        for text in [
            "https://a.example",
            "a.example:443",
            "localhost",
            "a..b",
            "192.0.2.1",
            "a.example/x",
            "-a.example",
            "",
        ] {
            assert!(domain(text).is_err(), "{text}");
        }
    }
}
