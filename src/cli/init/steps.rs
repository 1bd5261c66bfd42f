//! What remains to be done after `init`: the commands, in order.

use super::installation::{Installation, Proxy, Service};

/// The list, in Markdown.
pub(super) fn text(installation: &Installation) -> String {
    let Installation { domain, turn, proxy, service, .. } = installation;
    let mut steps = vec![dns(installation), firewall(installation)];
    match service {
        Service::Compose => steps.extend(compose(installation)),
        Service::Systemd => {
            steps.push(server(installation));
            steps.push(match proxy {
                Proxy::Nginx => nginx(domain),
                Proxy::Caddy => caddy(),
                Proxy::None => own_proxy(),
            });
            steps.extend(turn.as_deref().map(|turn| coturn(turn, *proxy)));
            steps.push(check(domain));
        }
    }
    let steps = (1..).zip(steps).map(|(number, Step { title, note, commands })| {
        let note = if note.is_empty() { String::new() } else { format!("\n{note}\n") };
        let commands = if commands.is_empty() {
            String::new()
        } else {
            format!("\n```bash\n{}\n```\n", commands.join("\n"))
        };
        format!("## {number}. {title}\n{note}{commands}")
    });
    let steps: Vec<_> = steps.collect();
    format!(
        "# What remains for {domain}\n\nRun the commands in this folder, in this order.\n\n{}",
        steps.join("\n")
    )
}

/// One step: what it is for, what to know, and its commands.
struct Step {
    title: &'static str,
    note: String,
    commands: Vec<String>,
}

impl Step {
    fn new(title: &'static str, note: impl Into<String>, commands: &[&str]) -> Self {
        Self {
            title,
            note: note.into(),
            commands: commands.iter().map(|it| (*it).to_owned()).collect(),
        }
    }
}

fn dns(Installation { domain, turn, .. }: &Installation) -> Step {
    let turn = turn
        .as_ref()
        .map_or(String::new(), |turn| format!(", and of {turn} to that of the TURN server"));
    Step::new(
        "DNS",
        format!(
            "Point the A and AAAA records of {domain} to the public address of this machine{turn}."
        ),
        &[],
    )
}

fn firewall(Installation { turn, service, .. }: &Installation) -> Step {
    let mut commands = vec!["sudo ufw allow 80,443/tcp"];
    if turn.is_some() || *service == Service::Compose {
        commands.extend([
            "sudo ufw allow 3478",
            "sudo ufw allow 5349/tcp",
            "sudo ufw allow 49152:65535/udp",
        ]);
    }
    Step::new(
        "Firewall",
        "With another firewall than ufw, and in the firewall of a cloud, open the same ports.",
        &commands,
    )
}

fn server(installation: &Installation) -> Step {
    let accounts = [
        "sudo install -m 640 -o root -g signaling .env /etc/signaling-server/env",
        "sudo install -m 600 -o signaling -g signaling users.csv /var/lib/signaling-server/users.csv",
    ];
    if installation.is_packaged {
        let commands = [accounts.as_slice(), &["sudo systemctl restart signaling-server"]].concat();
        return Step::new("The server", "", &commands);
    }
    let before = [
        "sudo install -m 755 \"$(command -v signaling-server)\" \"$(command -v manage_users)\" /usr/bin/",
        "sudo install -m 644 signaling-server.service signaling-server.socket /etc/systemd/system/",
        "sudo install -D -m 644 signaling-server.sysusers /etc/sysusers.d/signaling-server.conf",
        "sudo systemd-sysusers signaling-server.conf",
        "sudo install -d -m 755 /etc/signaling-server",
        "sudo install -d -m 750 -o signaling -g signaling /var/lib/signaling-server",
    ];
    let after = [
        "sudo ln -sf /etc/signaling-server/env /var/lib/signaling-server/.env",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now signaling-server.socket signaling-server",
    ];
    Step::new("The server", "", &[before.as_slice(), &accounts, &after].concat())
}

fn nginx(domain: &str) -> Step {
    let certbot = format!("sudo certbot certonly --webroot -w /var/www/html -d {domain}");
    Step::new(
        "nginx and its certificate",
        "The certificate comes first: until then, Debian's default site answers the authority on port 80. Debian's \
         `worker_connections` are enough for 350 members: docs/run/proxies.md, \"Many members\", has the lines for more.",
        &[
            "sudo apt-get install nginx certbot",
            &certbot,
            "sudo install -m 644 nginx.conf /etc/nginx/conf.d/signaling.conf",
            "sudo nginx -t",
            "sudo systemctl reload nginx",
            "sudo install -D -m 755 renew-nginx /etc/letsencrypt/renewal-hooks/deploy/nginx",
        ],
    )
}

fn caddy() -> Step {
    Step::new(
        "Caddy",
        "Caddy obtains and renews the certificate by itself.",
        &[
            "sudo apt-get install caddy",
            "sudo install -m 644 Caddyfile /etc/caddy/Caddyfile",
            "sudo systemctl restart caddy",
        ],
    )
}

fn own_proxy() -> Step {
    Step::new(
        "Your proxy",
        "It terminates TLS, forwards HTTP and WebSockets to 127.0.0.1:8080, and sets `X-Forwarded-For` and \
         `X-Forwarded-Proto`. If it runs on another machine, put that machine's address into `TRUSTED_PROXIES`.",
        &[],
    )
}

fn coturn(turn: &str, proxy: Proxy) -> Step {
    let (challenge, where_from) = match proxy {
        Proxy::Nginx => (
            "--webroot -w /var/www/html",
            "On a machine without nginx use `--standalone` in place of `--webroot -w /var/www/html`.",
        ),
        Proxy::Caddy | Proxy::None => (
            "--standalone",
            "certbot needs port 80 of the TURN server's machine; behind Caddy on the same machine use another machine, \
             or a challenge through DNS.",
        ),
    };
    let certbot = format!("sudo certbot certonly {challenge} -d {turn}");
    Step::new(
        "TURN server",
        format!(
            "{where_from} Behind NAT, as in most clouds, set `external-ip` in turnserver.conf first."
        ),
        &[
            "sudo apt-get install coturn certbot",
            &certbot,
            "sudo install -m 640 -g turnserver turnserver.conf /etc/turnserver.conf",
            "sudo install -D -m 755 renew-coturn /etc/letsencrypt/renewal-hooks/deploy/coturn",
            "sudo /etc/letsencrypt/renewal-hooks/deploy/coturn",
            "sudo systemctl enable coturn",
            "sudo systemctl restart coturn",
        ],
    )
}

fn check(domain: &str) -> Step {
    let health = format!("curl -sSf https://{domain}/health");
    Step::new(
        "Check",
        "`doctor` checks everything that the settings name, and tries the TURN server.",
        &["sudo -u signaling env -C /var/lib/signaling-server signaling-server doctor", &health],
    )
}

fn compose(Installation { domain, user, .. }: &Installation) -> [Step; 3] {
    let account =
        format!("docker compose run --rm --no-deps --entrypoint /manage_users server add {user}");
    let health = format!("curl -sSf https://{domain}/health");
    [
        Step::new(
            "Image and certificate",
            format!(
                "In a checkout of the source, `docker build -t signaling-server .` makes the image. Put a certificate for \
                 {domain} into `ssl/` as `fullchain.pem` and `privkey.pem`."
            ),
            &[],
        ),
        Step::new("Account and start", "", &[&account, "docker compose up -d --wait"]),
        Step::new("Check", "", &[&health]),
    ]
}
