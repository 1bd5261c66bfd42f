//! The messages of a probe: STUN's Binding (RFC 8489), TURN's Allocate and Refresh (RFC 8656).

use stun_types::{
    attribute::{AttributeType, AttributeWrite, ErrorCode, Nonce, RawAttribute, Realm, Username},
    message::{
        BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageHeader,
        MessageIntegrityCredentials, MessageWrite, MessageWriteExt, MessageWriteVec, Method,
        StunWriteError,
    },
};

/// RFC 8656 section 17.
const ALLOCATE: Method = Method::new(0x003);
const REFRESH: Method = Method::new(0x004);
/// RFC 8656 section 18.
const LIFETIME: AttributeType = AttributeType::new(0x000d);
const REQUESTED_TRANSPORT: AttributeType = AttributeType::new(0x0019);
/// The protocol number of UDP, and three reserved bytes.
const UDP: [u8; 4] = [17, 0, 0, 0];

/// The realm and nonce with which a server asks a client to authenticate.
#[derive(Clone)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
}

/// What authenticates a request: the long-term credential mechanism (RFC 8489 section 9.2).
pub(super) struct MessageAuth {
    nonce: Nonce,
    username: Username,
    credentials: MessageIntegrityCredentials,
}

impl Challenge {
    /// Answers the challenge with these credentials. `None` if nonce or username is longer than a message allows.
    pub(super) fn answer(&self, username: &str, credential: &str) -> Option<MessageAuth> {
        let key = LongTermKeyCredentials::new(
            username.to_owned(),
            credential.to_owned(),
            self.realm.clone(),
        );
        Some(MessageAuth {
            nonce: Nonce::new(&self.nonce).ok()?,
            username: Username::new(username).ok()?,
            credentials: MessageIntegrityCredentials::LongTerm(key),
        })
    }
}

/// A request for the client's own address as the server sees it.
pub(super) fn binding() -> Vec<u8> {
    request(BINDING, None, &[])
}

/// A request to allocate a relay address.
pub(super) fn allocate(auth: Option<&MessageAuth>) -> Vec<u8> {
    request(ALLOCATE, auth, &[RawAttribute::new(REQUESTED_TRANSPORT, &UDP)])
}

/// A request to release the allocation: a Refresh with a lifetime of 0 (RFC 8656 section 7.1).
pub(super) fn release(auth: Option<&MessageAuth>) -> Vec<u8> {
    request(REFRESH, auth, &[RawAttribute::new(LIFETIME, &[0; 4])])
}

fn request(method: Method, auth: Option<&MessageAuth>, attributes: &[RawAttribute<'_>]) -> Vec<u8> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let mut add = || -> Result<(), StunWriteError> {
        for attribute in attributes {
            message.add_attribute(attribute)?;
        }
        if let Some(MessageAuth { nonce, username, credentials }) = auth {
            let MessageIntegrityCredentials::LongTerm(key) = credentials else { return Ok(()) };
            let realm = Realm::new(key.realm())?;
            for attribute in [username as &dyn AttributeWrite, &realm, nonce] {
                message.add_attribute(attribute)?;
            }
            message.add_message_integrity(credentials, IntegrityAlgorithm::Sha1)?;
        }
        Ok(())
    };
    #[expect(clippy::expect_used, reason = "see the message")]
    add().expect("each attribute is added once, and together they fit into a message");
    message.finish()
}

/// What was received after a request.
pub(super) enum Reply {
    /// The response to the request.
    Response(StunResponse),
    /// A message that answers another request, or that is not authenticated: to be ignored.
    Unrelated,
    /// No STUN message.
    NotStun,
}

/// A server's response to a request.
pub(super) enum StunResponse {
    /// The server did what was requested.
    Success,
    /// The server refused.
    Error {
        /// As in RFC 8489 section 14.8 and RFC 8656 section 19; 0 if the response has none.
        code: u16,
        /// The server's reason phrase.
        reason: String,
        /// What to authenticate the next request with, if the server asks for it.
        challenge: Option<Challenge>,
    },
}

/// Parses what was received after `request`, which `auth` has authenticated.
pub(super) fn parse_reply(request: &[u8], received: &[u8], auth: Option<&MessageAuth>) -> Reply {
    let (Ok(request), Ok(message)) =
        (MessageHeader::from_bytes(request), Message::from_bytes(received))
    else {
        return Reply::NotStun;
    };
    let is_its_response = message.is_response()
        && message.transaction_id() == request.transaction_id()
        && message.method() == request.get_type().method();
    if !is_its_response {
        return Reply::Unrelated;
    }
    if message.has_class(MessageClass::Success) {
        // A server that does not know the credential cannot accept it (RFC 8489 section 9.2.5).
        let is_authentic =
            auth.is_none_or(|auth| message.validate_integrity(&auth.credentials).is_ok());
        return if is_authentic {
            Reply::Response(StunResponse::Success)
        } else {
            Reply::Unrelated
        };
    }
    let (code, reason) = match message.attribute::<ErrorCode>() {
        Ok(error) => (error.code(), error.reason().replace(char::is_control, " ")),
        Err(_) => (0, String::new()),
    };
    let challenge = match (message.attribute::<Realm>(), message.attribute::<Nonce>()) {
        (Ok(realm), Ok(nonce)) => {
            Some(Challenge { realm: realm.realm().to_owned(), nonce: nonce.nonce().to_owned() })
        }
        _ => None,
    };
    Reply::Response(StunResponse::Error { code, reason, challenge })
}

/// The length in bytes of the message that begins with `start`, or `None` if `start` is too short to tell. Over TCP,
/// messages follow each other (RFC 8489 section 6.2.2).
///
/// # Errors
///
/// No message begins with `start`.
pub(super) fn message_length(start: &[u8]) -> Result<Option<usize>, NotStun> {
    /// The two bits that are always 0, and the magic cookie (RFC 8489 section 5).
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let is_stun = start.first().is_none_or(|first| first & 0xc0 == 0)
        && start.iter().skip(4).zip(COOKIE).all(|(byte, expected)| *byte == expected);
    if !is_stun {
        return Err(NotStun);
    }
    match start {
        [_, _, high, low, ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            Ok(Some(MessageHeader::LENGTH + length))
        }
        _ => Ok(None),
    }
}

/// The bytes are no STUN message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotStun;

#[cfg(test)]
mod tests {
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
            0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad,
            0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e, 0x00, 0x06, 0x00, 0x12, 0xe3, 0x83, 0x9e, 0xe3,
            0x83, 0x88, 0xe3, 0x83, 0xaa, 0xe3, 0x83, 0x83, 0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9,
            0x00, 0x00, 0x00, 0x15, 0x00, 0x1c, 0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39, 0x6b, 0x39,
            0x35, 0x34, 0x64, 0x36, 0x4f, 0x4c, 0x33, 0x34, 0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54,
            0x76, 0x79, 0x36, 0x34, 0x73, 0x41, 0x00, 0x14, 0x00, 0x0b, 0x65, 0x78, 0x61, 0x6d,
            0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72, 0x67, 0x00, 0x00, 0x08, 0x00, 0x14, 0xf6, 0x70,
            0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2,
            0x8c, 0xa8, 0x96, 0x66,
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

        let reply = |auth| {
            parse_reply(&request, &response(&request, MessageClass::Success, auth), Some(&ours))
        };

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
}
