//! The messages of a probe against the standards, and against bytes that are no messages.

use proptest::prelude::*;
use stun_types::{attribute::XorMappedAddress, message::TransactionId};

use super::*;

fn challenge() -> Challenge {
    Challenge { realm: "turn.example.com".into(), nonce: "f//499k954d6OL34oL9FSTvy64sA".into() }
}

fn auth(credential: &str) -> MessageAuth {
    challenge().answer("1700000000:probe", credential).unwrap()
}

fn response(request: &[u8], class: MessageClass, auth: Option<&MessageAuth>) -> Vec<u8> {
    let request = Message::from_bytes(request).unwrap();
    let mut message = match class {
        MessageClass::Success => Message::builder_success(&request, MessageWriteVec::new()),
        _ => Message::builder_error(&request, MessageWriteVec::new()),
    };
    let address = "127.0.0.1:1".parse().unwrap();
    message.add_attribute(&XorMappedAddress::new(address, request.transaction_id())).unwrap();
    if let Some(auth) = auth {
        message.add_message_integrity(&auth.credentials, IntegrityAlgorithm::Sha1).unwrap();
    }
    message.finish()
}

/// RFC 5769 section 2.4: the request of a client with the password "TheMatrIX", whose name SASLprep does not change.
#[test]
fn a_request_is_authenticated_as_the_standard_does() {
    let sample: &[u8] = &[
        0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72,
        0xc0, 0x29, 0xda, 0x41, 0x2e, 0x00, 0x06, 0x00, 0x12, 0xe3, 0x83, 0x9e, 0xe3, 0x83, 0x88,
        0xe3, 0x83, 0xaa, 0xe3, 0x83, 0x83, 0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9, 0x00, 0x00, 0x00,
        0x15, 0x00, 0x1c, 0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39, 0x6b, 0x39, 0x35, 0x34, 0x64, 0x36,
        0x4f, 0x4c, 0x33, 0x34, 0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79, 0x36, 0x34, 0x73,
        0x41, 0x00, 0x14, 0x00, 0x0b, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72,
        0x67, 0x00, 0x00, 0x08, 0x00, 0x14, 0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02,
        0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2, 0x8c, 0xa8, 0x96, 0x66,
    ];
    let matrix = Challenge { realm: "example.org".into(), nonce: challenge().nonce };
    let with = |password| matrix.answer("マトリックス", password).unwrap().credentials;
    let message = Message::from_bytes(sample).unwrap();

    assert!(message.validate_integrity(&with("TheMatrIX")).is_ok());
    assert!(message.validate_integrity(&with("TheMatrix")).is_err());
}

#[test]
fn a_request_holds_its_attributes_and_its_credentials() {
    let sent = allocate(Some(&auth("a credential")));

    let message = Message::from_bytes(&sent).unwrap();
    assert_eq!(message.method(), ALLOCATE);
    assert_eq!(&*message.raw_attribute(REQUESTED_TRANSPORT).unwrap().value, UDP.as_slice());
    assert_eq!(message.attribute::<Username>().unwrap().username(), "1700000000:probe");
    assert_eq!(message.attribute::<Realm>().unwrap().realm(), "turn.example.com");
    assert!(message.validate_integrity(&auth("a credential").credentials).is_ok());
    assert!(message.validate_integrity(&auth("another").credentials).is_err());
    let released = release(None);
    let released = Message::from_bytes(&released).unwrap();
    assert_eq!(&*released.raw_attribute(LIFETIME).unwrap().value, [0; 4].as_slice());
}

#[test]
fn only_a_server_that_knows_the_credential_can_accept_it() {
    let (ours, other) = (auth("a credential"), auth("another"));
    let request = allocate(Some(&ours));

    let reply =
        |auth| parse_reply(&request, &response(&request, MessageClass::Success, auth), Some(&ours));

    assert!(matches!(reply(Some(&ours)), Reply::Response(StunResponse::Success)));
    assert!(matches!(reply(Some(&other)), Reply::Unrelated));
    assert!(matches!(reply(None), Reply::Unrelated));
}

#[test]
fn responses_to_other_requests_are_ignored() {
    let request = binding();
    for other in [binding(), allocate(None)] {
        let other = response(&other, MessageClass::Success, None);
        assert!(matches!(parse_reply(&request, &other, None), Reply::Unrelated));
    }
    assert!(matches!(parse_reply(&request, &request, None), Reply::Unrelated), "an echo");
    let banner = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    assert!(matches!(parse_reply(&request, banner, None), Reply::NotStun));
    let refused = response(&request, MessageClass::Error, None);
    assert!(matches!(
        parse_reply(&request, &refused, None),
        Reply::Response(StunResponse::Error { code: 0, challenge: None, .. })
    ));
}

#[test]
fn a_nonce_that_is_too_long_is_no_challenge() {
    let endless = Challenge { realm: "a".into(), nonce: "n".repeat(800) };

    assert!(endless.answer("1:probe", "c").is_none());
    assert!(challenge().answer(&"u".repeat(600), "c").is_none());
}

#[test]
fn a_message_on_tcp_holds_its_length() {
    let whole = binding();

    assert_eq!(message_length(&[]), Ok(None));
    assert_eq!(message_length(&whole[..3]), Ok(None));
    assert_eq!(message_length(&whole[..4]), Ok(Some(whole.len())));
    assert_eq!(message_length(&allocate(None)), Ok(Some(28)));
    assert_eq!(message_length(b"HTTP"), Err(NotStun));
    assert_eq!(message_length(b"\0\x01\0\0none"), Err(NotStun));
}

proptest! {
    #[test]
    fn no_received_bytes_cause_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..120,
        byte: u8,
    ) {
        let ours = auth("a credential");
        let request = allocate(Some(&ours));
        parse_reply(&request, &noise, Some(&ours));
        let _ = message_length(&noise);

        let mut received = response(&request, MessageClass::Success, Some(&ours));
        let last = received.len() - 1;
        received[at.min(last)] ^= byte;
        received.extend(&noise);
        parse_reply(&request, &received, Some(&ours));
    }
}

#[test]
fn no_two_requests_have_the_same_transaction_id() {
    let id = |sent: Vec<u8>| Message::from_bytes(&sent).unwrap().transaction_id();

    assert_ne!(id(binding()), id(binding()));
    assert_ne!(id(binding()), TransactionId::from(0));
}
