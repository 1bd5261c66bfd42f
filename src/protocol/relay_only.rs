//! Signals without addresses: of the candidates only those of TURN servers are left (RFC 8839 section 5.1).

use serde_json::{Value, value::RawValue};

use super::signal::SignalKind;

/// What is left of a signal.
#[derive(Debug)]
pub enum RelayOnly {
    /// The payload without addresses.
    Payload(Box<RawValue>),
    /// It is one candidate that is not of a TURN server, and is not passed on.
    Nothing,
}

/// Removes the addresses of the sender from the payload of a signal: candidates other than `relay`, `raddr` and `rport` of
/// those, and the addresses of `c=`, `o=` and `a=rtcp` lines. A `message` stays as it is: what it holds is the
/// application's.
pub fn relay_only(kind: SignalKind, payload: &RawValue) -> RelayOnly {
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
        SignalKind::Message => true,
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

/// A candidate attribute without its related address; `None` unless it is of a TURN server.
fn filter_attribute(line: &str) -> Option<String> {
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    // foundation, component, transport, priority, address, port, "typ", type, and extensions in pairs
    if words.get(6) != Some(&"typ") || words.get(7) != Some(&"relay") {
        return None;
    }
    for at in (8..words.len().saturating_sub(1)).step_by(2) {
        let replacement = match words.get(at) {
            Some(&"raddr") => "0.0.0.0",
            Some(&"rport") => "0",
            _ => continue,
        };
        if let Some(value) = words.get_mut(at + 1) {
            *value = replacement;
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
    if lower.starts_with("a=remote-candidates:") {
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
        let (before, _address) = line.rsplit_once(' ')?;
        let is_v6 = before.to_ascii_lowercase().ends_with("ip6");
        return Some(format!("{before} {}", if is_v6 { "::" } else { "0.0.0.0" }));
    }
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kind: SignalKind, payload: &Value) -> Option<Value> {
        let payload = serde_json::value::to_raw_value(payload).unwrap();
        match relay_only(kind, &payload) {
            RelayOnly::Payload(payload) => Some(serde_json::from_str(payload.get()).unwrap()),
            RelayOnly::Nothing => None,
        }
    }

    #[test]
    fn only_candidates_of_turn_servers_are_passed_on() {
        let trickled =
            |line: &str| serde_json::json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0});
        for (line, left) in [
            // Chromium, Firefox, aiortc, werift and GStreamer, in this order.
            (
                "candidate:1467250027 1 udp 2122260223 192.168.0.196 46243 typ host generation 0 ufrag x network-id 1",
                None,
            ),
            ("candidate:0 1 UDP 2122252543 6f0b5e2c-1.local 53216 typ host", None),
            (
                "candidate:842163049 1 udp 1677729535 203.0.113.7 46243 typ srflx raddr 192.168.0.196 rport 46243",
                None,
            ),
            ("candidate:6f5b 1 udp 2130706431 10.0.0.5 51234 typ host", None),
            ("candidate:3 1 TCP 1015021823 192.168.0.196 9 typ host tcptype active", None),
            (
                "candidate:9 1 udp 1685987071 203.0.113.7 60065 typ prflx raddr 10.0.0.5 rport 51234",
                None,
            ),
            (
                "candidate:337499441 1 udp 41885439 198.51.100.3 55555 typ relay raddr 203.0.113.7 rport 46243 generation 0",
                Some(
                    "candidate:337499441 1 udp 41885439 198.51.100.3 55555 typ relay raddr 0.0.0.0 rport 0 generation 0",
                ),
            ),
            ("", Some("")),
            ("candidate:1 1 udp 1 typ relay", None),
        ] {
            let found = filter(SignalKind::IceCandidate, &trickled(line));
            assert_eq!(found, left.map(trickled), "{line}");
        }
        assert_eq!(filter(SignalKind::IceCandidate, &Value::Null), Some(Value::Null));
        let parsed =
            serde_json::json!({"candidate":"", "address":"10.0.0.5", "relatedAddress":"10.0.0.6"});
        assert_eq!(
            filter(SignalKind::IceCandidate, &parsed),
            Some(serde_json::json!({"candidate":""}))
        );
    }

    #[test]
    fn a_session_description_holds_no_address_but_that_of_the_turn_server() {
        let sdp = "v=0\r\no=- 46117 2 IN IP4 192.168.0.196\r\ns=-\r\nt=0 0\r\n\
            m=audio 46243 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 203.0.113.7\r\na=rtcp:46244 IN IP4 203.0.113.7\r\n\
            a=candidate:1 1 udp 2122260223 192.168.0.196 46243 typ host\r\n\
            a=candidate:2 1 udp 41885439 198.51.100.3 55555 typ relay raddr 203.0.113.7 rport 46243\r\n\
            a=remote-candidates:1 192.168.0.9 4\r\na=ice-ufrag:F7gI\r\n\
            m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP6 2001:db8::7\r\na=mid:1\r\n";

        let left =
            filter(SignalKind::Offer, &serde_json::json!({"type":"offer","sdp":sdp})).unwrap();

        assert_eq!(
            left["sdp"],
            "v=0\r\no=- 46117 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
            m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
            a=candidate:2 1 udp 41885439 198.51.100.3 55555 typ relay raddr 0.0.0.0 rport 0\r\n\
            a=ice-ufrag:F7gI\r\n\
            m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP6 ::\r\na=mid:1\r\n"
        );
    }
}
