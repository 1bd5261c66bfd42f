//! A command as a request to the admin API, and what the server answers.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder, Method, Response, Url, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::{net::lookup_host, time::timeout};

use super::command::Command;
use crate::http_client::{LocalServer, root_cause};

/// For one answer. A list of very many rooms takes a while.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Any port (RFC 863).
const DISCARD_PORT: u16 = 9;

/// The server that is asked, and how.
pub(super) struct Access {
    /// Which server.
    pub(super) server: Server,
    /// A PEM file with an authority to trust beside the system's.
    pub(super) ca: Option<PathBuf>,
    /// Whether the token may be sent to another machine without TLS.
    pub(super) insecure: bool,
    /// `ADMIN_TOKEN`.
    pub(super) token: SecretString,
}

/// A server.
pub(super) enum Server {
    /// The one at this base URL.
    Url(Url),
    /// The one that the settings name.
    Local(LocalServer),
}

/// A request to the admin API.
pub(super) struct Request {
    method: Method,
    /// The segments behind `/admin/api/`.
    path: Vec<String>,
    body: Option<Value>,
}

impl Request {
    /// The request for `command`.
    ///
    /// # Errors
    ///
    /// When the text of `say --data` is not JSON.
    pub(super) fn of(command: Command) -> Result<Self, String> {
        Ok(match command {
            Command::Status => Self::get(&["status"]),
            Command::Rooms => Self::get(&["rooms"]),
            Command::Rules => Self::get(&["rules"]),
            Command::Room { room } => Self::get(&["rooms", &room]),
            Command::Timeline { room } => Self::get(&["rooms", &room, "timeline"]),
            Command::Kick { room, subject, ban } => {
                let (field, name) = subject.into_field();
                Self::post(&["rooms", &room, "kick"], json!({field: name, "ban_seconds": ban}))
            }
            Command::Ban { room, subject, seconds } => {
                let (field, name) = subject.into_field();
                Self::post(&["ban"], json!({field: name, "room_id": room, "seconds": seconds}))
            }
            Command::Unban { room, subject } => {
                let (field, name) = subject.into_field();
                let rule = json!({"rule": "ban", "room": room, "who": {field: name}});
                Self::post(&["remove"], rule)
            }
            Command::Mute { room, subject, seconds } => {
                let (field, name) = subject.into_field();
                Self::post(&["rooms", &room, "mute"], json!({field: name, "seconds": seconds}))
            }
            Command::Unmute { room, subject } => {
                let (field, name) = subject.into_field();
                Self::post(&["rooms", &room, "unmute"], json!({field: name}))
            }
            Command::Lock { room } => Self::post(&["rooms", &room, "lock"], json!({})),
            Command::Unlock { room } => Self::post(&["rooms", &room, "unlock"], json!({})),
            Command::Close { room, seconds } => {
                Self::post(&["rooms", &room, "close"], json!({"seconds": seconds}))
            }
            Command::Reopen { room } => {
                Self::post(&["remove"], json!({"rule": "ban", "room": room, "who": "everyone"}))
            }
            Command::Capacity { room, members } => {
                Self::post(&["rooms", &room, "capacity"], json!({"members": members}))
            }
            Command::Say { room, to, text, data } => {
                let data = if data {
                    serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?
                } else {
                    Value::String(text)
                };
                // A `to` of null means all members, as a missing one does.
                Self::post(&["rooms", &room, "message"], json!({"data": data, "to": to}))
            }
            Command::Drain => Self::post(&["drain"], json!({})),
        })
    }

    fn get(path: &[&str]) -> Self {
        Self { method: Method::GET, path: owned(path), body: None }
    }

    fn post(path: &[&str], body: Value) -> Self {
        Self { method: Method::POST, path: owned(path), body: Some(body) }
    }

    /// Sends the request to a server, and waits for the body of its answer.
    ///
    /// # Errors
    ///
    /// A sentence for the operator: why nothing is sent, why there is no answer, or what the server refuses.
    pub(super) async fn send(self, access: Access) -> Result<Value, String> {
        let url = match &access.server {
            Server::Url(url) => Some(url.clone()),
            Server::Local(server) => {
                let parse = |url: String| url.parse().map_err(|error| format!("{url}: {error}"));
                server.url().map(parse).transpose()?
            }
        };
        match (url, &access.server) {
            (Some(url), _) => self.send_to_url(url, &access).await,
            // Its Unix socket, or its port that wants a PROXY header.
            (None, Server::Local(server)) => self.send_to_local(server, &access).await,
            (None, Server::Url(_)) => Err("no server".to_owned()),
        }
    }

    async fn send_to_url(self, base: Url, access: &Access) -> Result<Value, String> {
        let url = resource(base, &self.path)?;
        let name = url.origin().ascii_serialization();
        let no_answer = |error| format!("no answer from {name}: {}", root_cause(&error));
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let local = local_addresses(&host, url.port_or_known_default().unwrap_or_default()).await;
        if url.scheme() != "https" && local.is_none() {
            access.allow_clear_text(&name)?;
        }
        let mut client = client(access.ca.as_deref())?;
        if let Some(addresses) = &local {
            // Not through a proxy that the environment names (HTTP_PROXY): it is another machine.
            client = client.no_proxy().resolve_to_addrs(&host, addresses);
        }
        let client = client.build().map_err(|error| root_cause(&error))?;
        let says_https = url.scheme() == "http" && local.is_some();
        let request = self.build(&client, url, says_https, access);
        let answer = request.send().await.map_err(no_answer)?;
        read(answer, &name).await.map_err(no_answer)?
    }

    async fn send_to_local(self, server: &LocalServer, access: &Access) -> Result<Value, String> {
        let name = server.to_string();
        let no_answer = |cause: String| format!("no answer from {name}: {cause}");
        let is_local = match server.socket_path() {
            Some(_) => true,
            None => local_addresses(server.host(), server.port()).await.is_some(),
        };
        if !is_local {
            access.allow_clear_text(&name)?;
        }
        let client = client(None)?.build().map_err(|error| root_cause(&error))?;
        // Only the path counts.
        let url = Url::parse("http://localhost").map_err(|error| error.to_string())?;
        let url = resource(url, &self.path)?;
        let request = self.build(&client, url, is_local, access);
        let request = request.build().map_err(|error| root_cause(&error))?;
        let answer = timeout(REQUEST_TIMEOUT, server.execute(request)).await;
        let answer = answer.map_err(|_| no_answer("timed out".to_owned()))?.map_err(no_answer)?;
        read(answer, &name).await.map_err(|error| no_answer(root_cause(&error)))?
    }

    /// `says_https` where no other machine can read the request on its way: the server would refuse it without TLS.
    fn build(
        self,
        client: &Client,
        url: Url,
        says_https: bool,
        access: &Access,
    ) -> reqwest::RequestBuilder {
        let mut request =
            client.request(self.method, url).bearer_auth(access.token.expose_secret());
        if says_https {
            request = request.header("x-forwarded-proto", "https");
        }
        match self.body {
            Some(body) => request.json(&body),
            None => request,
        }
    }
}

impl Access {
    /// Whether the token may go to the server `name` of another machine without TLS.
    fn allow_clear_text(&self, name: &str) -> Result<(), String> {
        if self.insecure {
            return Ok(());
        }
        Err(format!(
            "{name} is not on this machine, and without TLS others can read ADMIN_TOKEN on the way; give its https \
             address with --url, or add --insecure"
        ))
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&segment| segment.to_owned()).collect()
}

/// The URL of `path` in the admin API of the server at `base`.
fn resource(mut base: Url, path: &[String]) -> Result<Url, String> {
    base.path_segments_mut()
        .map_err(|()| {
            "--url is the address of a server, such as https://signaling.example.com".to_owned()
        })?
        .pop_if_empty()
        .extend(["admin", "api"])
        .extend(path);
    Ok(base)
}

/// The addresses of a host, if all of them are addresses of this machine: what is sent there stays on it.
async fn local_addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let addresses = lookup_host((host, port)).await.ok()?;
    let addresses: Vec<_> = addresses.collect();
    (!addresses.is_empty() && addresses.iter().all(|it| is_of_this_machine(it.ip())))
        .then_some(addresses)
}

/// Whether an address leads to this machine: what is sent to one of its own addresses has that address as its source, too.
fn is_of_this_machine(address: IpAddr) -> bool {
    // Connecting a UDP socket sends nothing.
    let source = || {
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((address, DISCARD_PORT)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    address.is_loopback() || address.is_unspecified() || source() == Some(address)
}

/// Follows no redirect: the token is for one server.
fn client(ca: Option<&Path>) -> Result<ClientBuilder, String> {
    let mut client = Client::builder().timeout(REQUEST_TIMEOUT).redirect(Policy::none());
    if let Some(path) = ca {
        let shown = path.display();
        let pem = fs::read(path).map_err(|error: io::Error| format!("--ca {shown}: {error}"))?;
        let authority = Certificate::from_pem(&pem);
        let authority = authority.map_err(|error| format!("--ca {shown}: {error}"))?;
        client = client.tls_certs_merge([authority]);
    }
    Ok(client)
}

/// The body of a success, or what the server says instead.
async fn read(answer: Response, server: &str) -> Result<Result<Value, String>, reqwest::Error> {
    let status = answer.status();
    let body: Value = serde_json::from_str(&answer.text().await?).unwrap_or_default();
    if status.is_success() {
        return Ok(Ok(body));
    }
    let invalid = body.pointer("/detail").and_then(Value::as_array).into_iter().flatten();
    let invalid: Vec<_> = invalid.filter_map(|field| field.get("msg")?.as_str()).collect();
    let detail = body.pointer("/detail").and_then(Value::as_str);
    let detail = detail.map_or_else(|| invalid.join("; "), str::to_owned);
    let hint = match status.as_u16() {
        401 => "; ADMIN_TOKEN is not the server's",
        404 if detail == "Not Found" => "; is ADMIN_TOKEN set in the server's settings?",
        308 => "; give its https address with --url",
        _ => "",
    };
    Ok(Err(format!("{server} answered {status}: {detail}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_addresses_of_this_machine_are_local() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.9.8.7", true),
            ("localhost", true),
            ("0.0.0.0", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("no-such-name.invalid", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(local_addresses(host, 80).await.is_some(), expected, "{host}");
        }
    }
}
