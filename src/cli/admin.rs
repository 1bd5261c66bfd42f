//! `signaling-server admin`: the API for administrators, from a shell.

use std::{fmt::Write as _, fs, io, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use reqwest::{Certificate, Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::healthcheck::reachable;

/// For one answer; a list of very many rooms takes a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks after rooms and members of a server that runs.
///
/// The token is ADMIN_TOKEN from the environment or from .env in this folder. Without --url it is the server of these settings,
/// on this machine. What is done holds on all servers that share rooms; each act is a line in the server's log.
#[derive(Parser)]
#[command(name = "signaling-server admin", arg_required_else_help = true)]
pub struct Arguments {
    /// Where the server is, such as https://signaling.example.com
    #[arg(long, global = true)]
    url: Option<Url>,
    /// A PEM file: who signs the server's certificate, where the system does not know them
    #[arg(long, global = true)]
    ca: Option<PathBuf>,
    /// Print the server's answer as it is, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// How the server is, and its last warnings and errors
    Status,
    /// All rooms with somebody in them
    Rooms,
    /// Who is in a room, and what was ordered about it
    Room {
        /// Which
        room: String,
    },
    /// What has happened in a room, never what was said
    Timeline {
        /// Which, also a while after it is over
        room: String,
    },
    /// Throw somebody out of a room
    Kick {
        /// Of which
        room: String,
        #[command(flatten)]
        whom: Whom,
        /// And keep them out for so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ban: u64,
    },
    /// Throw somebody out of a room, or of all, and keep them out
    Ban {
        /// Of which; all where it is missing
        room: Option<String>,
        #[command(flatten)]
        whom: Whom,
        /// For how long
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: u64,
    },
    /// Let somebody in again
    Unban {
        /// Into which; all where it is missing
        room: Option<String>,
        #[command(flatten)]
        whom: Whom,
    },
    /// Let nobody into a room who is not in
    Lock {
        /// Which
        room: String,
    },
    /// Let people into a room again
    Unlock {
        /// Which
        room: String,
    },
    /// Throw everybody out of a room
    Close {
        /// Of which
        room: String,
        /// And let nobody in for so many seconds
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 0)]
        seconds: u64,
    },
    /// Let people into a room again that was closed for some time
    Reopen {
        /// Which
        room: String,
    },
    /// Have a room hold more or fewer than others
    Capacity {
        /// Which
        room: String,
        /// How many; as many as others where it is missing
        members: Option<usize>,
    },
    /// Say something to a room, or to one of its members: they get it as a `server_message`
    Say {
        /// To which
        room: String,
        /// The client id of one member
        #[arg(long, value_name = "CLIENT")]
        to: Option<String>,
        /// A text; with --data any JSON
        text: String,
        /// The text is JSON
        #[arg(long)]
        data: bool,
    },
    /// Bans, locks and capacities that stand
    Orders,
    /// Stop the server as SIGTERM would: clients go to others that share its rooms, or come back when it does
    Drain,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Everybody with this account, or this guest's name
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Whoever has this client id in the room
    #[arg(long, value_name = "ID")]
    client: Option<String>,
}

impl Whom {
    /// The field that names them, and their name.
    fn field(self) -> (&'static str, String) {
        match (self.user, self.client) {
            (Some(user), _) => ("username", user),
            (None, client) => ("client_id", client.unwrap_or_default()),
        }
    }

    /// As an order names them.
    fn who(self) -> Value {
        let (field, name) = self.field();
        json!({field: name})
    }
}

/// Asks, and says what the server says, for people or as JSON.
///
/// # Errors
///
/// A sentence for the operator.
pub async fn run(
    arguments: Arguments,
    host: &str,
    port: u16,
    token: Option<SecretString>,
) -> Result<String, String> {
    let Arguments { url, ca, json: as_json, act } = arguments;
    let token = token.ok_or(
        "ADMIN_TOKEN is not set: give the one that the server has, in the environment or in .env",
    )?;
    let (method, path, body) = request(act)?;
    let base = match url {
        Some(url) => url,
        None => {
            let host = reachable(host);
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            let url = format!("http://{host}:{port}");
            url.parse().map_err(|error| format!("{url}: {error}"))?
        }
    };
    let answer = ask(base, ca, method, &path, body, &token).await?;
    if as_json {
        return serde_json::to_string_pretty(&answer).map_err(|error| error.to_string());
    }
    Ok(told(&answer))
}

/// What is asked: the method, the path in pieces, and a body.
fn request(act: Act) -> Result<(Method, Vec<String>, Option<Value>), String> {
    let get = |path: &[&str]| (Method::GET, pieces(path), None);
    let post = |path: &[&str], body: Value| (Method::POST, pieces(path), Some(body));
    Ok(match act {
        Act::Status => get(&["status"]),
        Act::Rooms => get(&["rooms"]),
        Act::Orders => get(&["orders"]),
        Act::Room { room } => get(&["rooms", &room]),
        Act::Timeline { room } => get(&["rooms", &room, "timeline"]),
        Act::Kick { room, whom, ban } => {
            let (field, name) = whom.field();
            post(&["rooms", &room, "kick"], json!({field: name, "ban_seconds": ban}))
        }
        Act::Ban { room, whom, seconds } => {
            let (field, name) = whom.field();
            post(&["ban"], json!({field: name, "room_id": room, "seconds": seconds}))
        }
        Act::Unban { room, whom } => {
            post(&["lift"], json!({"order": "ban", "room": room, "who": whom.who()}))
        }
        Act::Lock { room } => post(&["rooms", &room, "lock"], json!({})),
        Act::Unlock { room } => post(&["rooms", &room, "unlock"], json!({})),
        Act::Close { room, seconds } => {
            post(&["rooms", &room, "close"], json!({"seconds": seconds}))
        }
        Act::Reopen { room } => {
            post(&["lift"], json!({"order": "ban", "room": room, "who": "everyone"}))
        }
        Act::Capacity { room, members } => {
            post(&["rooms", &room, "capacity"], json!({"members": members}))
        }
        Act::Say { room, to, text, data } => {
            let data = if data {
                serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))?
            } else {
                Value::String(text)
            };
            // Without `to` it is for everybody, and so it is with null.
            post(&["rooms", &room, "message"], json!({"data": data, "to": to}))
        }
        Act::Drain => post(&["drain"], json!({})),
    })
}

fn pieces(path: &[&str]) -> Vec<String> {
    path.iter().map(|&piece| piece.to_owned()).collect()
}

async fn ask(
    mut url: Url,
    ca: Option<PathBuf>,
    method: Method,
    path: &[String],
    body: Option<Value>,
    token: &SecretString,
) -> Result<Value, String> {
    url.path_segments_mut()
        .map_err(|()| {
            "--url is the address of a server, such as https://signaling.example.com".to_owned()
        })?
        .pop_if_empty()
        .extend(["admin", "api"])
        .extend(path);
    let mut client =
        reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca {
        let shown = path.display();
        let read = |error: io::Error| format!("--ca {shown}: {error}");
        let pem = fs::read(&path).map_err(read)?;
        let authority =
            Certificate::from_pem(&pem).map_err(|error| format!("--ca {shown}: {error}"))?;
        client = client.add_root_certificate(authority);
    }
    let client = client.build().map_err(|error| said(&error))?;
    let mut request = client.request(method, url.clone()).bearer_auth(token.expose_secret());
    // Nobody listens between us and a server on this machine, which would not take it in the clear.
    if url.scheme() == "http" && is_loopback(&url) {
        request = request.header("x-forwarded-proto", "https");
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.map_err(|error| said(&error))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| said(&error))?;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    if status.is_success() {
        return Ok(body);
    }
    let faults = body.pointer("/detail").and_then(Value::as_array).into_iter().flatten();
    let faults: Vec<_> = faults.filter_map(|fault| fault.get("msg")?.as_str()).collect();
    let detail = body.pointer("/detail").and_then(Value::as_str);
    let detail = detail.map_or_else(|| faults.join("; "), str::to_owned);
    let hint = match status.as_u16() {
        401 => "; ADMIN_TOKEN is not the server's",
        404 if detail == "Not Found" => "; is there an ADMIN_TOKEN in the server's settings?",
        308 => "; give its https address with --url",
        _ => "",
    };
    Err(format!("{} answered {status}: {detail}{hint}", url.origin().ascii_serialization()))
}

/// What went wrong, down to its cause.
fn said(error: &reqwest::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), std::error::Error::source(error));
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An answer for people: lists as rows, the rest as `name: value`.
fn told(answer: &Value) -> String {
    let mut lines = Vec::new();
    tell("", answer, &mut lines);
    lines.join("\n")
}

fn tell(indent: &str, value: &Value, lines: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            if value.as_array().is_some_and(|rows| !rows.is_empty()) {
                lines.push(format!("{indent}{name}:"));
                tell(&format!("{indent}  "), value, lines);
            } else {
                lines.push(format!("{indent}{name}: {}", shown(name, value)));
            }
        }
    } else if let Some(rows) = value.as_array().filter(|rows| !rows.is_empty()) {
        for row in rows {
            let cells = row.as_object().map(|fields| {
                let cells =
                    fields.iter().map(|(name, value)| format!("{name}={}", shown(name, value)));
                cells.collect::<Vec<_>>().join("  ")
            });
            lines.push(format!("{indent}{}", cells.unwrap_or_else(|| shown("", row))));
        }
    } else {
        lines.push(format!("{indent}{}", shown("", value)));
    }
}

/// A value on one line; times as people read them.
fn shown(name: &str, value: &Value) -> String {
    if value.as_array().is_some_and(Vec::is_empty) {
        return "none".to_owned();
    }
    let unit = match name {
        "at" => Some(1),
        "until" => Some(1000),
        _ => None,
    };
    if let (Some(unit), Some(number)) = (unit, value.as_u64()) {
        return clock(number.saturating_mul(unit));
    }
    let Some(text) = value.as_str() else { return value.to_string() };
    // What a client chose may hold what a terminal would obey, or look like the next cell.
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._:@/+-".contains(char);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("{text:?}") }
}

/// Milliseconds since the Unix epoch as RFC 3339 has them, in UTC.
fn clock(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_lines_without_what_a_terminal_would_obey() {
        let answer = json!({"room_id": "den  is_locked=true\u{1b}[2J\u{202e}", "members": [{"client_id": "a", "seconds": 3}], "orders": [], "at": 1_700_000_000_000_u64});

        assert_eq!(
            told(&answer),
            "at: 2023-11-14T22:13:20Z\nmembers:\n  client_id=a  seconds=3\norders: none\nroom_id: \"den  is_locked=true\\u{1b}[2J\\u{202e}\""
        );
    }

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        let is_here = |url: &str| is_loopback(&url.parse().unwrap());

        assert!(
            is_here("http://127.0.0.1:8000")
                && is_here("http://[::1]:8000")
                && is_here("http://localhost")
        );
        assert!(!is_here("http://10.0.0.1") && !is_here("http://localhost.example.com"));
    }
}
