//! The opening handshake (RFC 6455 section 4.2).

use axum::{
    body::HttpBody,
    http::{HeaderMap, HeaderName, Method, Request, Version, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};

/// What a server appends to the client's key to show that it understood the handshake (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` of the answer; `None` where `request` is no opening handshake (section 4.2.1).
pub fn sec_websocket_accept(request: &Request<impl HttpBody>) -> Option<String> {
    let headers = request.headers();
    let is_handshake = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket")
        && single(headers, header::SEC_WEBSOCKET_VERSION)? == "13";
    let has_body = request.body().size_hint().exact() != Some(0);
    let key = single(headers, header::SEC_WEBSOCKET_KEY)?;
    let is_key = BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    if !is_handshake || has_body || !is_key {
        return None;
    }
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    Some(BASE64_STANDARD.encode(digest))
}

/// The value of a header that occurs exactly once.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Whether a list header has this entry, in any case.
fn lists(headers: &HeaderMap, name: HeaderName, entry: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(entry))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(key: &str) -> Request<Body> {
        Request::get("/")
            .header(header::CONNECTION, "keep-alive, Upgrade")
            .header(header::UPGRADE, "WebSocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key)
            .body(Body::empty())
            .unwrap()
    }

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        let accept = sec_websocket_accept(&request("dGhlIHNhbXBsZSBub25jZQ=="));

        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "section 1.3");
    }

    #[test]
    fn a_key_that_is_not_16_bytes_of_base64_is_no_handshake() {
        for key in ["", "dGhl", "not base64 at all, is it", "dGhlIHNhbXBsZSBub25jZQ"] {
            assert_eq!(sec_websocket_accept(&request(key)), None, "{key}");
        }
    }
}
