//! The few messages that a trial of a relay takes: STUN's Binding (RFC 8489), TURN's Allocate and Refresh (RFC 8656).

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
/// The protocol number of UDP, and three bytes that are reserved.
const UDP: [u8; 4] = [17, 0, 0, 0];

/// What a server asks whoever comes to prove himself with.
#[derive(Clone)]
pub struct Challenge {
    realm: String,
    nonce: String,
}

/// What proves a request: the long-term credential mechanism (RFC 8489 section 9.2).
pub struct Proof {
    nonce: Nonce,
    username: Username,
    credentials: MessageIntegrityCredentials,
}

impl Challenge {
    /// The answer to it; `None` where one of the two is longer than a message has room for.
    pub fn answered(&self, username: &str, credential: &str) -> Option<Proof> {
        let key = LongTermKeyCredentials::new(
            username.to_owned(),
            credential.to_owned(),
            self.realm.clone(),
        );
        Some(Proof {
            nonce: Nonce::new(&self.nonce).ok()?,
            username: Username::new(username).ok()?,
            credentials: MessageIntegrityCredentials::LongTerm(key),
        })
    }
}

/// Asks who one is, seen from outside.
pub fn binding() -> Vec<u8> {
    request(BINDING, None, &[])
}

/// Asks for an address to relay at.
pub fn allocate(proof: Option<&Proof>) -> Vec<u8> {
    request(ALLOCATE, proof, &[RawAttribute::new(REQUESTED_TRANSPORT, &UDP)])
}

/// Gives it back: a Refresh with a lifetime of nothing (RFC 8656 section 7.1).
pub fn release(proof: Option<&Proof>) -> Vec<u8> {
    request(REFRESH, proof, &[RawAttribute::new(LIFETIME, &[0; 4])])
}

fn request(method: Method, proof: Option<&Proof>, attributes: &[RawAttribute<'_>]) -> Vec<u8> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let mut add = || -> Result<(), StunWriteError> {
        for attribute in attributes {
            message.add_attribute(attribute)?;
        }
        if let Some(Proof { nonce, username, credentials }) = proof {
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
    add().expect("each attribute once, and together shorter than a message may be");
    message.finish()
}

/// What was heard after a request.
pub enum Heard {
    /// Its answer.
    Answer(Answer),
    /// A message that answers something else, or that is not from whom it should be: to be passed over.
    Other,
    /// No message at all.
    Noise,
}

/// What a server makes of a request.
pub enum Answer {
    /// It does what was asked.
    Done,
    /// It does not.
    Refused {
        /// As in RFC 8489 section 14.8 and RFC 8656 section 19; 0 where there is none.
        code: u16,
        /// What the server calls it.
        reason: String,
        /// With what to ask again, where it says so.
        challenge: Option<Challenge>,
    },
}

/// Reads what came after `request`, which stood on `proof`.
pub fn read(request: &[u8], heard: &[u8], proof: Option<&Proof>) -> Heard {
    let (Ok(request), Ok(message)) =
        (MessageHeader::from_bytes(request), Message::from_bytes(heard))
    else {
        return Heard::Noise;
    };
    let is_its_answer = message.is_response()
        && message.transaction_id() == request.transaction_id()
        && message.method() == request.get_type().method();
    if !is_its_answer {
        return Heard::Other;
    }
    if message.has_class(MessageClass::Success) {
        // Whoever does not know the credential cannot say that it is a good one (RFC 8489 section 9.2.5).
        let is_proven =
            proof.is_none_or(|proof| message.validate_integrity(&proof.credentials).is_ok());
        return if is_proven { Heard::Answer(Answer::Done) } else { Heard::Other };
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
    Heard::Answer(Answer::Refused { code, reason, challenge })
}

/// How long the message is that begins like this, in bytes, once that can be told: on TCP they stand one after the
/// other (RFC 8489 section 6.2.2).
///
/// # Errors
///
/// Where no message begins like this.
pub fn length(begun: &[u8]) -> Result<Option<usize>, NoMessage> {
    /// The two bits that are always 0, and the magic cookie (RFC 8489 section 5).
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let is_one = begun.first().is_none_or(|first| first & 0xc0 == 0)
        && begun.iter().skip(4).zip(COOKIE).all(|(byte, expected)| *byte == expected);
    if !is_one {
        return Err(NoMessage);
    }
    match begun {
        [_, _, high, low, ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            Ok(Some(MessageHeader::LENGTH + length))
        }
        _ => Ok(None),
    }
}

/// What was heard is no STUN.
#[derive(Debug, PartialEq, Eq)]
pub struct NoMessage;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_types::{attribute::XorMappedAddress, message::TransactionId};

    use super::*;

    fn challenge() -> Challenge {
        Challenge { realm: "turn.example.com".into(), nonce: "f//499k954d6OL34oL9FSTvy64sA".into() }
    }

    fn proof(credential: &str) -> Proof {
        challenge().answered("1700000000:probe", credential).unwrap()
    }

    fn answer(request: &[u8], class: MessageClass, proof: Option<&Proof>) -> Vec<u8> {
        let request = Message::from_bytes(request).unwrap();
        let mut message = match class {
            MessageClass::Success => Message::builder_success(&request, MessageWriteVec::new()),
            _ => Message::builder_error(&request, MessageWriteVec::new()),
        };
        let address = "127.0.0.1:1".parse().unwrap();
        message.add_attribute(&XorMappedAddress::new(address, request.transaction_id())).unwrap();
        if let Some(proof) = proof {
            message.add_message_integrity(&proof.credentials, IntegrityAlgorithm::Sha1).unwrap();
        }
        message.finish()
    }

    /// RFC 5769 section 2.4: what a client sends that knows "TheMatrIX", whose name SASLprep leaves as it is.
    #[test]
    fn a_request_is_proven_as_the_standard_does() {
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
        let with = |password| matrix.answered("マトリックス", password).unwrap().credentials;
        let message = Message::from_bytes(sample).unwrap();

        assert!(message.validate_integrity(&with("TheMatrIX")).is_ok());
        assert!(message.validate_integrity(&with("TheMatrix")).is_err());
    }

    #[test]
    fn a_request_says_what_it_wants_and_who_asks() {
        let sent = allocate(Some(&proof("a credential")));

        let message = Message::from_bytes(&sent).unwrap();
        assert_eq!(message.method(), ALLOCATE);
        assert_eq!(&*message.raw_attribute(REQUESTED_TRANSPORT).unwrap().value, UDP.as_slice());
        assert_eq!(message.attribute::<Username>().unwrap().username(), "1700000000:probe");
        assert_eq!(message.attribute::<Realm>().unwrap().realm(), "turn.example.com");
        assert!(message.validate_integrity(&proof("a credential").credentials).is_ok());
        assert!(message.validate_integrity(&proof("another").credentials).is_err());
        let given_back = release(None);
        let given_back = Message::from_bytes(&given_back).unwrap();
        assert_eq!(&*given_back.raw_attribute(LIFETIME).unwrap().value, [0; 4].as_slice());
    }

    #[test]
    fn only_who_knows_the_credential_can_say_that_it_is_good() {
        let (ours, other) = (proof("a credential"), proof("another"));
        let request = allocate(Some(&ours));

        let says =
            |proof| read(&request, &answer(&request, MessageClass::Success, proof), Some(&ours));

        assert!(matches!(says(Some(&ours)), Heard::Answer(Answer::Done)));
        assert!(matches!(says(Some(&other)), Heard::Other));
        assert!(matches!(says(None), Heard::Other));
    }

    #[test]
    fn what_answers_something_else_is_passed_over() {
        let request = binding();
        for other in [binding(), allocate(None)] {
            let answered = answer(&other, MessageClass::Success, None);
            assert!(matches!(read(&request, &answered, None), Heard::Other));
        }
        assert!(matches!(read(&request, &request, None), Heard::Other), "an echo");
        assert!(matches!(read(&request, b"SSH-2.0-OpenSSH_9.2p1\r\n", None), Heard::Noise));
        let refused = answer(&request, MessageClass::Error, None);
        assert!(matches!(
            read(&request, &refused, None),
            Heard::Answer(Answer::Refused { code: 0, challenge: None, .. })
        ));
    }

    #[test]
    fn a_nonce_that_is_too_long_is_no_challenge() {
        let endless = Challenge { realm: "a".into(), nonce: "n".repeat(800) };

        assert!(endless.answered("1:probe", "c").is_none());
        assert!(challenge().answered(&"u".repeat(600), "c").is_none());
    }

    #[test]
    fn a_message_on_tcp_says_how_long_it_is() {
        let whole = binding();

        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&whole[..3]), Ok(None));
        assert_eq!(length(&whole[..4]), Ok(Some(whole.len())));
        assert_eq!(length(&allocate(None)), Ok(Some(28)));
        assert_eq!(length(b"HTTP"), Err(NoMessage));
        assert_eq!(length(b"\0\x01\0\0none"), Err(NoMessage));
    }

    proptest! {
        #[test]
        fn nothing_that_is_heard_makes_it_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..120,
            byte: u8,
        ) {
            let ours = proof("a credential");
            let request = allocate(Some(&ours));
            read(&request, &noise, Some(&ours));
            let _ = length(&noise);

            let mut answered = answer(&request, MessageClass::Success, Some(&ours));
            let last = answered.len() - 1;
            answered[at.min(last)] ^= byte;
            answered.extend(&noise);
            read(&request, &answered, Some(&ours));
        }
    }

    #[test]
    fn no_two_requests_have_the_same_number() {
        let number = |sent: Vec<u8>| Message::from_bytes(&sent).unwrap().transaction_id();

        assert_ne!(number(binding()), number(binding()));
        assert_ne!(number(binding()), TransactionId::from(0));
    }
}
