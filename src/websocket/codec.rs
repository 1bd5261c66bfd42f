//! WebSocket frames (RFC 6455 section 5) as bytes: decodes those of clients and encodes those of the server. Pure.

use bytestring::ByteString;

/// Opcodes, section 5.2.
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The longest payload of a control frame, in bytes (section 5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// A message or control frame from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A complete text message.
    Text(ByteString),
    /// The start of a binary message. The rest is not decoded.
    Binary,
    /// A Ping. The answer is a [`pong`] with the same payload.
    Ping(Vec<u8>),
    /// A Pong.
    Pong,
    /// A Close. The answer is a [`close`] with the same payload.
    Close(Vec<u8>),
}

/// Why a connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The bytes are no frame of a client, or a frame that is not allowed at this place.
    Malformed,
    /// A text message, or the reason of a Close, is not UTF-8.
    NotUtf8,
    /// A message is over the size limit, according to the headers of its frames.
    TooBig,
}

/// What was decoded from the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many of the bytes were consumed.
    pub used: usize,
    /// The message; `None` where more bytes must arrive first.
    pub message: Option<Message>,
}

/// Assembles the frames of one client into messages.
#[derive(Debug)]
pub struct MessageDecoder {
    /// The longest message that is accepted, in bytes.
    max_message_bytes: usize,
    /// The payload of the fragments so far; `None` between messages.
    fragments: Option<Vec<u8>>,
}

/// The header of a client's frame, once all of it has arrived.
struct ClientHeader {
    is_final: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Where the payload starts.
    start: usize,
    /// The length of the payload.
    length: usize,
}

impl MessageDecoder {
    /// A decoder at the start of a connection, for messages of at most `max_message_bytes`.
    pub fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, fragments: None }
    }

    /// Decodes frames from the start of `bytes` until one of them completes a message, and unmasks them in place. The
    /// next call gets the bytes that were not consumed, and those that have arrived since.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], as soon as a header shows it; the bytes after that are meaningless.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, ProtocolError> {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..)
            && let Some(header) = self.parse_header(rest)?
            && let Some(payload) = rest.get_mut(header.start..header.start + header.length)
        {
            used += header.start + header.length;
            unmask(payload, header.mask);
            if let Some(message) = self.complete_frame(&header, payload)? {
                return Ok(Decoded { used, message: Some(message) });
            }
        }
        Ok(Decoded { used, message: None })
    }

    /// Parses a header and refuses what is not allowed; `None` while it has not arrived as a whole.
    fn parse_header(&self, bytes: &[u8]) -> Result<Option<ClientHeader>, ProtocolError> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let (is_final, opcode) = (first & FIN != 0, first & 0x0f);
        if first & RESERVED_BITS != 0 || second & MASKED == 0 {
            return Err(ProtocolError::Malformed);
        }
        let (after_length, length) = match second & !MASKED {
            126 => (4, bytes.get(2..4).map(big_endian)),
            127 => (10, bytes.get(2..10).map(big_endian)),
            short => (2, Some(u64::from(short))),
        };
        let is_control = opcode & 0x8 != 0;
        let is_allowed = match opcode {
            CONTINUATION => self.fragments.is_some(),
            TEXT | BINARY => self.fragments.is_none(),
            CLOSE | PING | PONG => is_final && second & !MASKED <= MAX_CONTROL_PAYLOAD as u8,
            _ => false,
        };
        if !is_allowed {
            return Err(ProtocolError::Malformed);
        }
        let Some(length) = length else { return Ok(None) };
        let before = if is_control { 0 } else { self.fragments.as_ref().map_or(0, Vec::len) };
        let length = usize::try_from(length).ok().filter(|length| {
            before
                .checked_add(*length)
                .is_some_and(|whole| whole <= self.max_message_bytes || is_control)
        });
        let length = length.ok_or(ProtocolError::TooBig)?;
        let mask = bytes.get(after_length..after_length + 4).and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| ClientHeader {
            is_final,
            opcode,
            mask,
            start: after_length + 4,
            length,
        }))
    }

    fn complete_frame(
        &mut self,
        header: &ClientHeader,
        payload: &[u8],
    ) -> Result<Option<Message>, ProtocolError> {
        let message = match header.opcode {
            PING => Message::Ping(payload.to_vec()),
            PONG => Message::Pong,
            CLOSE => {
                check_close(payload)?;
                Message::Close(payload.to_vec())
            }
            BINARY => Message::Binary,
            // The usual case, which needs no second copy.
            TEXT if header.is_final => Message::Text(text_message(payload.to_vec())?),
            _text_or_continuation => {
                let mut fragments = self.fragments.take().unwrap_or_default();
                fragments.extend_from_slice(payload);
                if !header.is_final {
                    self.fragments = Some(fragments);
                    return Ok(None);
                }
                Message::Text(text_message(fragments)?)
            }
        };
        Ok(Some(message))
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Section 5.3.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn text_message(bytes: Vec<u8>) -> Result<ByteString, ProtocolError> {
    String::from_utf8(bytes).map(ByteString::from).map_err(|_| ProtocolError::NotUtf8)
}

/// Checks that a Close has a code that an endpoint may send (section 7.4) and a reason that is text.
fn check_close(payload: &[u8]) -> Result<(), ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(()) } else { Err(ProtocolError::Malformed) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::Malformed);
    }
    std::str::from_utf8(reason).map(|_| ()).map_err(|_| ProtocolError::NotUtf8)
}

/// The header of a frame that the server sends. The payload follows unmasked (section 5.1).
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; 10],
    length: usize,
}

impl FrameHeader {
    /// The header of a text message of `length` bytes.
    pub fn text(length: usize) -> Self {
        Self::new(TEXT, length)
    }

    fn new(opcode: u8, length: usize) -> Self {
        let mut bytes = [0; 10];
        bytes[0] = FIN | opcode;
        let used = match length {
            0..126 => {
                bytes[1] = length as u8;
                2
            }
            126..65_536 => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, length: used }
    }

    /// Writes the whole frame to the start of `place` and returns its length; `None` where it does not fit.
    pub fn copy_with_payload(&self, payload: &[u8], place: &mut [u8]) -> Option<usize> {
        let length = self.length + payload.len();
        let (header, rest) = place.get_mut(..length)?.split_at_mut_checked(self.length)?;
        header.copy_from_slice(self.bytes());
        rest.copy_from_slice(payload);
        Some(length)
    }

    /// The bytes of the header.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A Ping without payload.
pub fn ping() -> Vec<u8> {
    control(PING, &[])
}

/// The answer to a Ping with this payload.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(PONG, payload)
}

/// The answer to a Close with this payload.
pub fn close(payload: &[u8]) -> Vec<u8> {
    control(CLOSE, payload)
}

/// A Close with a code and a reason of at most 123 bytes.
pub fn close_with(code: u16, reason: &str) -> Vec<u8> {
    control(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..MAX_CONTROL_PAYLOAD).unwrap_or(payload);
    [FrameHeader::new(opcode, payload.len()).bytes(), payload].concat()
}
