#!/usr/bin/env bash
# webrtc-sdp 0.3.17 (a Rust crate): `a=fingerprint:SHA-256 …` is an error for it, and where it is told to go on after warnings, it leaves the
# attribute out. With the name of the hash in small letters the same line is read.
#
# Why it matters: literal names in such a grammar may have either case (RFC 8122 section 5, RFC 5234 section 2.3). Examples of RFC 8841 have
# capitals, and so has Asterisk; Chromium 156 and Firefox 153 accept them. A program that reads and rewrites descriptions with this crate
# works between browsers. From such a gateway it gets an error, or it passes on a description without a fingerprint, which the browser
# behind it rejects for a line that was there when it came.
#
# Seen: for capitals the strict reading fails, the lenient one succeeds with one warning and no fingerprint; for small letters both keep it.
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
webrtc-sdp = "=0.3.17"
TOML
cat > src/main.rs <<'RUST'
use webrtc_sdp::parse_sdp;

/// What becomes of an offer when it is read and written again: its fingerprint line and the number of warnings, or the error.
fn pass_through(hash: &str, strict: bool) -> Result<(Option<String>, usize), String> {
    let bytes = ["AB"; 32].join(":");
    let offer = [
        "v=0", "o=- 4821 1 IN IP4 203.0.113.4", "s=-", "t=0 0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 0", "c=IN IP4 0.0.0.0", "a=rtpmap:0 PCMU/8000", "a=rtcp-mux", "a=mid:0", "a=setup:actpass",
        "a=ice-ufrag:9uB6", "a=ice-pwd:YH75Fviy6338Vbrhrlp8Yh", &format!("a=fingerprint:{hash} {bytes}"), "",
    ]
    .join("\r\n");
    let session = parse_sdp(&offer, strict).map_err(|error| error.to_string())?;
    let written = session.to_string();
    let line = written.lines().find(|line| line.starts_with("a=fingerprint:")).map(|line| line[..21].to_owned());
    Ok((line, session.warnings.len()))
}

fn main() {
    let seen = [("sha-256", true), ("sha-256", false), ("SHA-256", true), ("SHA-256", false)].map(|(hash, strict)| {
        let outcome = pass_through(hash, strict);
        println!("{hash}, {}: {outcome:?}", if strict { "strict" } else { "lenient" });
        outcome
    });
    let kept = Ok((Some("a=fingerprint:sha-256".to_owned()), 0));
    assert_eq!(seen[0], kept);
    assert_eq!(seen[1], kept);
    assert!(seen[2].as_ref().is_err_and(|error| error.contains("unsupported hash algorithm 'SHA-256'")));
    assert_eq!(seen[3], Ok((None, 1)));
}
RUST
export CARGO_TARGET_DIR="$folder/target"
cargo run --quiet || exit 1
echo "as described"
