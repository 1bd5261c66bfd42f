//! A command as a request to the admin API, and what the server answers.

use std::{fs, io, net::IpAddr, path::Path, time::Duration};

use reqwest::{Certificate, Client, Method, Response, Url, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::command::Command;
use crate::http_client::root_cause;

/// For one answer. A list of very many rooms takes a while.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

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

    /// Sends the request to the server at `base`, and waits for the body of its answer. `ca` is a PEM file with an
    /// authority to trust beside the system's.
    ///
    /// # Errors
    ///
    /// A sentence for the operator: why there is no answer, or what the server refuses.
    pub(super) async fn send(
        self,
        base: Url,
        ca: Option<&Path>,
        token: &SecretString,
    ) -> Result<Value, String> {
        let Self { method, path, body } = self;
        let url = resource(base, &path)?;
        let server = url.origin().ascii_serialization();
        let no_answer = |error| format!("no answer from {server}: {}", root_cause(&error));
        let mut request =
            client(ca)?.request(method, url.clone()).bearer_auth(token.expose_secret());
        // A server on this machine refuses plain HTTP, and no other machine can read a connection on loopback.
        if url.scheme() == "http" && is_loopback(&url) {
            request = request.header("x-forwarded-proto", "https");
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(no_answer)?;
        read(answer, &server).await.map_err(no_answer)?
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

/// Follows no redirect: the token is for one server.
fn client(ca: Option<&Path>) -> Result<Client, String> {
    let mut client = Client::builder().timeout(REQUEST_TIMEOUT).redirect(Policy::none());
    if let Some(path) = ca {
        let shown = path.display();
        let pem = fs::read(path).map_err(|error: io::Error| format!("--ca {shown}: {error}"))?;
        let authority = Certificate::from_pem(&pem);
        let authority = authority.map_err(|error| format!("--ca {shown}: {error}"))?;
        client = client.tls_certs_merge([authority]);
    }
    client.build().map_err(|error| root_cause(&error))
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

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_on_this_machine_is_asked_over_plain_http() {
        let is_loopback = |url: &str| is_loopback(&url.parse().unwrap());

        assert!(
            is_loopback("http://127.0.0.1:8000")
                && is_loopback("http://[::1]:8000")
                && is_loopback("http://localhost")
        );
        assert!(!is_loopback("http://10.0.0.1") && !is_loopback("http://localhost.example.com"));
    }
}
