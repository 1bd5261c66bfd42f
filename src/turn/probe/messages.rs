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
mod tests;
