//! The server through its public address, as clients reach it: the scheme and the address that it sees, and WebSockets.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, StatusCode, Url, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Diagnostic, Verdict,
    web_socket::{ProbeSocket, UpgradeRefusal},
};
use crate::{
    auth::{access_token::MintRequest, probe_token, users::Users},
    clock::unix_now,
    config::{Config, StartupSettings},
    http_client::{address::is_public, root_cause},
    state,
};

/// For one answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long `--slow` leaves a WebSocket idle: longer than most proxies keep a connection on which nothing passes, which is 60 s,
/// or 75 s with the files in `deploy/`.
const IDLE_TIME: Duration = Duration::from_secs(90);

/// The room of `doctor`, in which no one else is.
const ROOM_PREFIX: &str = "doctor-";

/// What to check.
#[derive(Clone, Debug)]
pub struct PublicAddress {
    /// The server's public base URL.
    pub url: Url,
    /// A PEM file with an authority to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Whether a WebSocket is left idle for 90 s.
    pub is_slow: bool,
}

/// How the server sees a connection: the answer of `/health/connection`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SeenConnection {
    address: String,
    https: bool,
    peer: String,
    is_peer_trusted: bool,
    is_scheme_missing: bool,
    tcp_proxy: Option<String>,
    has_forwarded_for: bool,
    has_forwarded_proto: bool,
}

/// Asks the server at its public address.
pub(super) async fn check(config: &Config, public: &PublicAddress) -> Vec<Diagnostic> {
    let startup = &config.startup;
    let name = public.url.to_string();
    let client = match client(public.ca.as_deref()) {
        Ok(client) => client,
        Err(problem) => return vec![Diagnostic::fault(name, problem, "name a PEM file")],
    };
    let mut diagnostics = Vec::new();
    match ask(&client, public, &startup.auth.secret_key).await {
        Ok(seen) => {
            diagnostics.push(judge_scheme(&name, &public.url, &seen));
            diagnostics.push(judge_address(&name, &seen));
        }
        Err(diagnostic) => {
            let is_fault = diagnostic.verdict == Verdict::Fault;
            diagnostics.push(diagnostic);
            if is_fault {
                return diagnostics;
            }
        }
    }
    diagnostics.extend(check_web_socket(&client, config, public).await);
    diagnostics
}

fn client(ca: Option<&Path>) -> Result<Client, String> {
    // As clients do: a proxy that the environment names is part of the way.
    let mut client = Client::builder()
        .timeout(REQUEST_TIMEOUT + IDLE_TIME)
        .redirect(Policy::none())
        .http1_only();
    if let Some(path) = ca {
        let shown = path.display();
        let pem = fs::read(path).map_err(|error| format!("--ca {shown}: {error}"))?;
        let authority =
            Certificate::from_pem(&pem).map_err(|error| format!("--ca {shown}: {error}"))?;
        client = client.tls_certs_merge([authority]);
    }
    client.build().map_err(|error| root_cause(&error))
}

async fn ask(
    client: &Client,
    public: &PublicAddress,
    secret_key: &SecretString,
) -> Result<SeenConnection, Diagnostic> {
    let name = public.url.to_string();
    let token = probe_token::sign(secret_key, unix_now());
    let url = below(&public.url, &["health", "connection"]);
    let request = client.get(url).bearer_auth(token.expose_secret()).send();
    let answer = match timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let problem = format!("cannot be reached: {}", root_cause(&error));
            return Err(Diagnostic::fault(
                name,
                problem,
                "check DNS, firewall, certificate and proxy",
            ));
        }
        Err(_elapsed) => {
            return Err(Diagnostic::fault(
                name,
                format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()),
                "check the firewall, and whether the proxy reaches HOST and PORT",
            ));
        }
    };
    let status = answer.status();
    let detail = answer.text().await.unwrap_or_default();
    if status == StatusCode::OK
        && let Ok(seen) = serde_json::from_str(&detail)
    {
        return Ok(seen);
    }
    Err(judge_refusal(name, status, &detail))
}

fn judge_refusal(name: String, status: StatusCode, detail: &str) -> Diagnostic {
    match status {
        StatusCode::UNAUTHORIZED => Diagnostic::warning(
            name,
            "the server there has another SECRET_KEY, or its clock differs by more than five minutes",
            "run doctor with the settings of that server",
        ),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Diagnostic::fault(
                name,
                format!("{status}: the proxy does not reach the server"),
                "compare the proxy's address for the server with HOST and PORT; with PROXY_PROTOCOL=true it must send PROXY headers",
            )
        }
        _ if detail.contains("Not Found") => Diagnostic::warning(
            name,
            format!(
                "{status} for /health/connection: the server there is an older one, or the proxy hides that path"
            ),
            "forward all paths but /metrics",
        ),
        _ => Diagnostic::fault(
            name,
            format!("{status} for /health/connection: no signaling-server answers there"),
            "let the proxy forward all paths but /metrics to the server",
        ),
    }
}

fn judge_scheme(name: &str, url: &Url, seen: &SeenConnection) -> Diagnostic {
    let peer = &seen.peer;
    if url.scheme() != "https" {
        return Diagnostic::fault(
            name,
            "is not https: browsers refuse microphone and camera on such a page, and passwords cross the network in the clear",
            "give the https address with --url",
        );
    }
    if seen.https {
        return Diagnostic::ok(name, "the server sees HTTPS");
    }
    if let Some(proxy) = &seen.tcp_proxy {
        return Diagnostic::fault(
            name,
            format!("the PROXY header of {proxy} does not say that the client used TLS"),
            "let it say so (HAProxy: send-proxy-v2-ssl), or set REQUIRE_HTTPS=false and HOST=127.0.0.1",
        );
    }
    if !seen.is_peer_trusted {
        return Diagnostic::fault(
            name,
            format!(
                "the proxy at {peer} is not in TRUSTED_PROXIES, so that its X-Forwarded-Proto does not count"
            ),
            format!("add {peer} to TRUSTED_PROXIES"),
        );
    }
    if seen.is_scheme_missing {
        return Diagnostic::fault(
            name,
            format!("the proxy at {peer} sent no header X-Forwarded-Proto: https"),
            "docs/run/proxies.md has the line for each proxy (nginx: `proxy_set_header X-Forwarded-Proto $scheme`)",
        );
    }
    Diagnostic::fault(
        name,
        format!("the proxy at {peer} says in X-Forwarded-Proto that this client used plain HTTP"),
        "let the proxy that terminates TLS set it, and those behind it pass it on",
    )
}

fn judge_address(name: &str, seen: &SeenConnection) -> Diagnostic {
    let SeenConnection { address, peer, .. } = seen;
    if seen.is_peer_trusted && !seen.has_forwarded_for {
        return Diagnostic::fault(
            name,
            format!("the proxy at {peer} sends no X-Forwarded-For: all clients count as {address}"),
            "docs/run/proxies.md has the line for each proxy (nginx: `proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for`)",
        );
    }
    if !seen.is_peer_trusted && seen.has_forwarded_for {
        return Diagnostic::fault(
            name,
            format!(
                "the proxy at {peer} is not in TRUSTED_PROXIES: all clients count as {address}"
            ),
            format!("add {peer} to TRUSTED_PROXIES"),
        );
    }
    let is_public = address.parse().is_ok_and(|ip: IpAddr| is_public(ip));
    let note =
        if is_public { "" } else { ", which is no public one; that is right only from inside" };
    Diagnostic::ok(name, format!("the server sees this client at {address}{note}"))
}

/// Opens a WebSocket, and leaves it idle with `--slow`.
async fn check_web_socket(
    client: &Client,
    config: &Config,
    public: &PublicAddress,
) -> Vec<Diagnostic> {
    // Members are told only of clients that authenticate.
    let allowed = config.reloadable.rooms.allowed.first();
    let own_room = format!("{ROOM_PREFIX}{}", Uuid::new_v4());
    let room = allowed.unwrap_or(&own_room).clone();
    let url = below(&public.url, &["ws", &room]);
    let name = format!("{} WebSocket", public.url);
    let mut socket = match timeout(REQUEST_TIMEOUT, ProbeSocket::connect(client, url)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(refusal)) => return vec![judge_upgrade(name, refusal).await],
        Err(_elapsed) => {
            let fix = "let the proxy forward the upgrade of /ws/";
            return vec![Diagnostic::fault(name, "no answer to the upgrade", fix)];
        }
    };
    match timeout(REQUEST_TIMEOUT, socket.text()).await {
        Ok(Ok(first)) if first.contains("\"auth_required\"") => {}
        Ok(Ok(first)) => {
            let problem = format!("the server refuses it: {}", error_message(&first));
            return vec![Diagnostic::warning(name, problem, "see the log of the server")];
        }
        Ok(Err(_)) | Err(_) => {
            return vec![Diagnostic::fault(
                name,
                "is upgraded, but nothing of the server arrives on it",
                "let the proxy pass bytes on without buffering",
            )];
        }
    }
    let mut diagnostics = vec![Diagnostic::ok(&name, "is upgraded, and the server speaks first")];
    if public.is_slow && allowed.is_some() {
        let problem = "not left idle: ALLOWED_ROOMS has no room of doctor's own";
        let fix = "watch an idle member of your own for a minute";
        diagnostics.push(Diagnostic::new(name, Verdict::NotChecked, problem, fix));
    } else if public.is_slow {
        diagnostics.push(check_idle(name, &config.startup, socket).await);
    }
    diagnostics
}

async fn judge_upgrade(name: String, refusal: UpgradeRefusal) -> Diagnostic {
    let answer = match refusal {
        UpgradeRefusal::NoAnswer(cause) => {
            return Diagnostic::fault(
                name,
                format!("no answer to the upgrade: {cause}"),
                "let the proxy forward the upgrade of /ws/, over HTTP/1.1",
            );
        }
        UpgradeRefusal::Answer(answer) => *answer,
    };
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let detail = serde_json::from_str(&text).ok();
    let detail =
        detail.and_then(|body: serde_json::Value| Some(body.get("detail")?.as_str()?.to_owned()));
    match (status, detail) {
        (StatusCode::BAD_REQUEST, Some(_)) => Diagnostic::fault(
            name,
            "the proxy does not forward the Upgrade header",
            "docs/run/proxies.md has the lines for each proxy (nginx: `proxy_set_header Upgrade $http_upgrade`)",
        ),
        (_, Some(detail)) => {
            let problem = format!("{status}: {detail}");
            Diagnostic::fault(name, problem, "docs/run/proxies.md, \"When something is refused\"")
        }
        (_, None) => Diagnostic::fault(
            name,
            format!("{status}: the proxy does not forward the upgrade"),
            "let it forward /ws/ to the server with Upgrade, over HTTP/1.1",
        ),
    }
}

/// Joins as a user, and waits.
async fn check_idle(
    name: String,
    startup: &StartupSettings,
    mut socket: ProbeSocket,
) -> Diagnostic {
    let seconds = IDLE_TIME.as_secs();
    let token = Users::load(&startup.auth.users_csv).ok().and_then(|(users, _)| {
        let username = users.names().into_iter().find(|name| users.active(name).is_some())?;
        let request =
            MintRequest { username, lifetime: Some(Duration::from_secs(300)), signaling: None };
        let (token, _) = state::access_tokens(startup).mint(&request, unix_now()).ok()?;
        Some(token)
    });
    let Some(token) = token else {
        let problem =
            format!("not left idle for {seconds} s: USERS_CSV has no active user to join as");
        return Diagnostic::new(
            name,
            Verdict::NotChecked,
            problem,
            "`manage_users add <username>`",
        );
    };
    let joining = async {
        let message = serde_json::json!({"type":"auth_token","token":token.expose_secret()});
        socket.send(&message.to_string()).await?;
        socket.text().await
    };
    match timeout(REQUEST_TIMEOUT, joining).await {
        Ok(Ok(answer)) if answer.contains("\"auth_success\"") => {}
        Ok(Ok(answer)) => {
            let problem = format!("not left idle for {seconds} s: {}", error_message(&answer));
            return Diagnostic::new(
                name,
                Verdict::NotChecked,
                problem,
                "see the log of the server",
            );
        }
        Ok(Err(_)) | Err(_) => {
            return Diagnostic::fault(
                name,
                "is cut before the first answer",
                "see the log of the proxy",
            );
        }
    }
    let started = tokio::time::Instant::now();
    let idle = async {
        // Pings are answered here; the list of members is the one message that comes.
        loop {
            if let Err(lost) = socket.text().await {
                return lost;
            }
        }
    };
    match timeout(IDLE_TIME, idle).await {
        Err(_elapsed) => Diagnostic::ok(name, format!("an idle member stays for {seconds} s")),
        Ok(_lost) => Diagnostic::fault(
            name,
            format!("an idle member is cut after {} s", started.elapsed().as_secs()),
            "let the proxy keep silent connections for longer than a third of WEBSOCKET_TIMEOUT",
        ),
    }
}

fn error_message(frame: &str) -> String {
    let message = serde_json::from_str(frame).ok();
    let message =
        message.and_then(|it: serde_json::Value| Some(it.get("message")?.as_str()?.to_owned()));
    message.unwrap_or_else(|| "an unknown message".to_owned())
}

/// A URL below the base URL, which may have a path.
fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(url: &str, seen: &SeenConnection) -> (Verdict, String, Verdict, String) {
        let (scheme, address) =
            (judge_scheme("it", &url.parse().unwrap(), seen), judge_address("it", seen));
        (scheme.verdict, scheme.message, address.verdict, address.message)
    }

    #[test]
    fn each_wrong_set_up_has_its_sentence() {
        let right = SeenConnection {
            address: "8.8.8.8".into(),
            https: true,
            peer: "10.0.0.1".into(),
            is_peer_trusted: true,
            has_forwarded_for: true,
            has_forwarded_proto: true,
            ..SeenConnection::default()
        };
        let (scheme, _, address, text) = judged("https://a.example", &right);
        assert_eq!((scheme, address), (Verdict::Ok, Verdict::Ok));
        assert_eq!(text, "the server sees this client at 8.8.8.8");

        let plain = SeenConnection { https: false, ..right.clone() };
        for (url, seen, sentence) in [
            ("http://a.example", right.clone(), "is not https"),
            (
                "https://a.example",
                SeenConnection { is_scheme_missing: true, ..plain.clone() },
                "10.0.0.1 sent no header X-Forwarded-Proto",
            ),
            (
                "https://a.example",
                SeenConnection { is_peer_trusted: false, ..plain.clone() },
                "10.0.0.1 is not in TRUSTED_PROXIES",
            ),
            (
                "https://a.example",
                SeenConnection { tcp_proxy: Some("10.0.0.9".into()), ..plain.clone() },
                "the PROXY header of 10.0.0.9",
            ),
            (
                "https://a.example",
                plain.clone(),
                "says in X-Forwarded-Proto that this client used plain HTTP",
            ),
        ] {
            let (verdict, message, ..) = judged(url, &seen);
            assert!(verdict == Verdict::Fault && message.contains(sentence), "{message}");
        }
        for (seen, sentence) in [
            (
                SeenConnection { has_forwarded_for: false, ..right.clone() },
                "10.0.0.1 sends no X-Forwarded-For",
            ),
            (
                SeenConnection { is_peer_trusted: false, ..right.clone() },
                "10.0.0.1 is not in TRUSTED_PROXIES",
            ),
        ] {
            let (_, _, verdict, message) = judged("https://a.example", &seen);
            assert!(verdict == Verdict::Fault && message.contains(sentence), "{message}");
        }
    }

    #[test]
    fn urls_are_below_the_path_of_the_base() {
        for base in ["https://a.example/sig", "https://a.example/sig/"] {
            let url = below(&base.parse().unwrap(), &["ws", "a b"]);
            assert_eq!(url.as_str(), "https://a.example/sig/ws/a%20b");
        }
    }
}
