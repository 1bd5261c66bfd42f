//! What all clients in Rust share: where the room is, and what they answer there.

use serde_json::{Value, json};

/// The room's URL.
pub fn url() -> String {
    variable("ROOM_URL")
}

/// `host:port` of the URL, and its path.
pub fn address() -> (String, String) {
    let url = url();
    let rest = url.strip_prefix("ws://").expect("ws:");
    let (host, path) = rest.split_once('/').expect("a path");
    (host.to_owned(), format!("/{path}"))
}

/// Prints a message, and returns the answer to it if it wants one.
pub fn reply(text: &str) -> Option<String> {
    println!("{text}");
    let message: Value = serde_json::from_str(text).expect("JSON");
    let answer = match message["type"].as_str()? {
        "auth_required" => json!({"type": "auth_token", "token": variable("TOKEN")}),
        "offer" => json!({"type": "answer", "answer": {}, "to": message["from"]}),
        _ => return None,
    };
    Some(answer.to_string())
}

fn variable(name: &str) -> String {
    std::env::var(name).expect(name)
}
