use super::*;

fn filter(kind: SignalKind, payload: &Value) -> Option<Value> {
    let payload = serde_json::value::to_raw_value(payload).unwrap();
    match relay_only(kind, (&*payload).into()) {
        RelayOnly::Payload(payload) => Some(serde_json::from_str(payload.get()).unwrap()),
        RelayOnly::Nothing => None,
        RelayOnly::Unchanged => panic!("only a message stays as it is"),
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

    let left = filter(SignalKind::Offer, &serde_json::json!({"type":"offer","sdp":sdp})).unwrap();

    assert_eq!(
        left["sdp"],
        "v=0\r\no=- 46117 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
        a=candidate:2 1 udp 41885439 198.51.100.3 55555 typ relay raddr 0.0.0.0 rport 0\r\n\
        a=ice-ufrag:F7gI\r\n\
        m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP6 ::\r\na=mid:1\r\n"
    );
}

/// Everything that looks like an address, or like the mDNS name of one, but for the addresses that stand for none.
fn addresses(text: &str) -> Vec<&str> {
    let words = text.split(|char: char| char.is_whitespace() || "\",".contains(char));
    let is_address = |word: &&str| {
        let address = word.parse::<std::net::IpAddr>();
        address.is_ok_and(|address| !address.is_unspecified()) || word.ends_with(".local")
    };
    words.filter(is_address).collect()
}

/// tests/fixtures/ice: written by the implementations themselves, with generate.mjs.
#[test]
fn what_implementations_send_holds_no_address_but_that_of_the_turn_server() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ice");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut seen = std::collections::BTreeSet::new();
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "json")) {
        let fixture: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let (name, relay) = (file.display(), fixture["relay"].as_str().unwrap());
        seen.insert(fixture["madeBy"].as_str().unwrap().split(' ').next().unwrap().to_owned());
        let count = |text: &str, part: &str| text.matches(part).count();

        for description in fixture["descriptions"].as_array().unwrap() {
            let left = filter(SignalKind::Offer, description).unwrap();
            let (before, after) =
                (description["sdp"].as_str().unwrap(), left["sdp"].as_str().unwrap());
            assert!(addresses(before).iter().any(|address| *address != relay), "{name}");
            assert!(addresses(after).iter().all(|address| *address == relay), "{name}: {after}");
            assert_eq!(count(before, "typ relay"), count(after, "a=candidate:"), "{name}");
            for kept in ["m=", "a=ice-ufrag:", "a=fingerprint:", "a=end-of-candidates", "a=mid:"] {
                assert_eq!(count(before, kept), count(after, kept), "{name}: {kept}");
            }
        }
        for candidate in fixture["candidates"].as_array().unwrap() {
            let left = filter(SignalKind::IceCandidate, candidate);
            let text = candidate.to_string();
            let is_end = candidate.is_null() || candidate["candidate"] == "";
            assert_eq!(left.is_some(), is_end || text.contains("typ relay"), "{name}: {text}");
            if let Some(left) = left {
                let left = left.to_string();
                assert!(addresses(&left).iter().all(|address| *address == relay), "{left}");
            }
        }
    }
    assert_eq!(
        seen.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Chromium", "GStreamer", "Mozilla", "aiortc", "werift"]
    );
}
