//! Signals without addresses: of the candidates only those of TURN servers are left (RFC 8839 section 5.1).

use serde_json::{Value, value::RawValue};

use super::{raw_json::RawJson, signal::SignalKind};

/// What is left of a signal.
#[derive(Debug)]
pub enum RelayOnly {
    /// The payload as it is: the application's.
    Unchanged,
    /// The payload without addresses.
    Payload(Box<RawValue>),
    /// It is one candidate that is not of a TURN server, and is not passed on.
    Nothing,
}

/// Removes the addresses of the sender from the payload of a signal: candidates other than `relay`, `raddr` and `rport` of
/// those, and the addresses of `c=`, `o=`, `a=rtcp` and `a=source-filter` lines.
pub fn relay_only(kind: SignalKind, payload: RawJson<'_>) -> RelayOnly {
    let Ok(mut json) = serde_json::from_str::<Value>(payload.get()) else {
        return RelayOnly::Nothing;
    };
    let is_kept = match kind {
        SignalKind::Offer | SignalKind::Answer => {
            if let Some(Value::String(sdp)) = json.get_mut("sdp") {
                *sdp = filter_sdp(sdp);
            }
            true
        }
        SignalKind::IceCandidate => filter_candidate(&mut json),
        SignalKind::Message => return RelayOnly::Unchanged,
    };
    match serde_json::value::to_raw_value(&json) {
        Ok(payload) if is_kept => RelayOnly::Payload(payload),
        Ok(_) | Err(_) => RelayOnly::Nothing,
    }
}

/// Whether a trickled candidate is passed on. The end of candidates is.
fn filter_candidate(json: &mut Value) -> bool {
    let line = match json {
        Value::Null => return true,
        Value::String(line) => line,
        Value::Object(fields) => {
            // Chromium and Firefox parse these from the line, and send the first two along.
            for field in ["address", "ip", "relatedAddress", "relatedPort", "port", "url"] {
                fields.remove(field);
            }
            match fields.get_mut("candidate") {
                Some(Value::String(line)) => line,
                Some(Value::Null) | None => return true,
                Some(_) => return false,
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => return false,
    };
    if line.is_empty() {
        return true;
    }
    match filter_attribute(line) {
        Some(filtered) => {
            *line = filtered;
            true
        }
        None => false,
    }
}

/// The address that stands for none, of the family of `address`.
fn unspecified(address: &str) -> &'static str {
    if address.contains(':') { "::" } else { "0.0.0.0" }
}

/// A candidate attribute without its related address; `None` unless it is of a TURN server.
fn filter_attribute(line: &str) -> Option<String> {
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    // foundation, component, transport, priority, address, port, "typ", type, and extensions in pairs
    if words.get(6) != Some(&"typ") || words.get(7) != Some(&"relay") {
        return None;
    }
    for at in 8..words.len() {
        let Some((name, value)) = words.get(at - 1).copied().zip(words.get_mut(at)) else {
            continue;
        };
        match name {
            "raddr" => *value = unspecified(value),
            "rport" => *value = "0",
            _ => {}
        }
    }
    Some(words.join(" "))
}

fn filter_sdp(sdp: &str) -> String {
    let lines = sdp.split_inclusive('\n').filter_map(|line| {
        let text = line.trim_end_matches(['\r', '\n']);
        let end = line.get(text.len()..).unwrap_or_default();
        filter_line(text).map(|text| text + end)
    });
    lines.collect()
}

/// One line of a session description (RFC 8866 section 5); `None` where it is left out.
fn filter_line(line: &str) -> Option<String> {
    // The names of lines and attributes are case sensitive, but what reads them may not be.
    let lower = line.to_ascii_lowercase();
    if lower.starts_with("a=candidate:") {
        let (name, candidate) = line.split_once(':')?;
        return filter_attribute(candidate).map(|candidate| format!("{name}:{candidate}"));
    }
    if lower.starts_with("a=remote-candidates:") || lower.starts_with("a=source-filter:") {
        return None;
    }
    let is_media = lower.starts_with("m=");
    if is_media {
        // The port of the default candidate; 9 stands for none (RFC 8838 section 8.1). 0 rejects the media.
        let mut words: Vec<&str> = line.split(' ').collect();
        if let Some(port) = words.get_mut(1)
            && *port != "0"
        {
            *port = "9";
        }
        return Some(words.join(" "));
    }
    if lower.starts_with("a=rtcp:") {
        return Some("a=rtcp:9 IN IP4 0.0.0.0".to_owned());
    }
    if lower.starts_with("c=") || lower.starts_with("o=") {
        let (before, address) = line.rsplit_once(' ')?;
        return Some(format!("{before} {}", unspecified(address)));
    }
    Some(line.to_owned())
}

#[cfg(test)]
mod tests;
