//! The files that `init` writes, made of those in `deploy/`.

use secrecy::ExposeSecret;

use super::{
    Secrets,
    installation::{Installation, Proxy, Service},
};

/// The settings.
pub(super) const ENV: &str = ".env";
/// The accounts.
pub(super) const USERS: &str = "users.csv";

const NGINX: &str = include_str!("../../../deploy/nginx.conf");
const CADDY: &str = include_str!("../../../deploy/Caddyfile");
const COTURN: &str = include_str!("../../../deploy/turnserver.conf");
const RENEW_NGINX: &str = include_str!("../../../deploy/certbot/nginx.sh");
const RENEW_COTURN: &str = include_str!("../../../deploy/certbot/coturn.sh");
const UNIT: &str = include_str!("../../../deploy/systemd/signaling-server.service");
const SOCKET: &str = include_str!("../../../deploy/systemd/signaling-server.socket");
const SYSUSERS: &str = include_str!("../../../deploy/systemd/signaling-server.sysusers");
const COMPOSE: &str = include_str!("../../../compose.yaml");

/// The domains in the files of `deploy/`.
const DOMAIN: &str = "signaling.example.com";
const TURN_DOMAIN: &str = "turn.example.com";

/// A file that is to be written.
pub(super) struct NewFile {
    /// Where, from the working folder.
    pub path: &'static str,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub text: String,
}

/// All files but the accounts and the list of steps, in the order in which they are written.
pub(super) fn all(installation: &Installation, secrets: &Secrets) -> Vec<NewFile> {
    let Installation { domain, turn, proxy, service, is_packaged, .. } = installation;
    let file = |path, mode, text: &str| NewFile { path, mode, text: text.replace(DOMAIN, domain) };
    let mut files = vec![NewFile { path: ENV, mode: 0o600, text: env(installation, secrets) }];
    if *service == Service::Compose {
        // compose.yaml fills in domain and secret itself.
        let own = |path, text: &str| NewFile { path, mode: 0o644, text: text.to_owned() };
        files.push(own("compose.yaml", &COMPOSE.replace("    build: .\n", "")));
        files.push(own("deploy/nginx.conf", NGINX));
        files.push(own("deploy/turnserver.conf", COTURN));
        return files;
    }
    if !is_packaged {
        files.push(file("signaling-server.service", 0o644, UNIT));
        files.push(file("signaling-server.socket", 0o644, SOCKET));
        files.push(file("signaling-server.sysusers", 0o644, SYSUSERS));
    }
    match proxy {
        Proxy::Nginx => {
            files.push(file("nginx.conf", 0o644, NGINX));
            files.push(file("renew-nginx", 0o755, RENEW_NGINX));
        }
        Proxy::Caddy => files.push(file("Caddyfile", 0o644, CADDY)),
        Proxy::None => {}
    }
    if let Some(turn) = turn {
        files.push(NewFile { path: "turnserver.conf", mode: 0o600, text: coturn(turn, secrets) });
        let renew = RENEW_COTURN.replace(TURN_DOMAIN, turn);
        files.push(NewFile { path: "renew-coturn", mode: 0o755, text: renew });
    }
    files
}

fn env(installation: &Installation, secrets: &Secrets) -> String {
    let Installation { domain, turn, service, .. } = installation;
    let Secrets { secret_key, jwt_secret_key, admin_token, turn_secret } = secrets;
    let (secret_key, jwt_secret_key) = (secret_key.expose_secret(), jwt_secret_key.expose_secret());
    let keys = format!("SECRET_KEY={secret_key}\nJWT_SECRET_KEY={jwt_secret_key}\n");
    let turn_secret = format!("TURNSERVER_SECRET={}\n", turn_secret.expose_secret());
    if *service == Service::Compose {
        return format!(
            "# Read by docker compose; compose.yaml hands it on.\nDOMAIN={domain}\n{keys}{turn_secret}"
        );
    }
    let turn = turn.as_ref().map_or(String::new(), |turn| {
        format!(
            "{turn_secret}TURNSERVER_URLS=[\"turn:{turn}:3478\",\"turn:{turn}:3478?transport=tcp\",\"turns:{turn}:5349?transport=tcp\"]\n"
        )
    });
    format!(
        "# Written by `signaling-server init`. All other settings have their defaults: env.example lists them.\n\
         HOST=127.0.0.1\nPORT=8080\n{keys}ADMIN_TOKEN={}\nCORS_ORIGINS=[\"https://{domain}\"]\n{turn}",
        admin_token.expose_secret()
    )
}

fn coturn(turn: &str, secrets: &Secrets) -> String {
    COTURN
        .replace(
            "static-auth-secret=REPLACE_WITH_TURNSERVER_SECRET",
            &format!("static-auth-secret={}", secrets.turn_secret.expose_secret()),
        )
        // coturn cannot read certbot's folder: the renewal hook copies.
        .replace("/etc/letsencrypt/live/turn.example.com/", "/etc/coturn/")
        .replace(TURN_DOMAIN, turn)
}
