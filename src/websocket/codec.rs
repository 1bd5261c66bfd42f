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

/// A message of up to this many times the size limit is discarded; a larger one ends the connection.
const MAX_DISCARDED_FACTOR: usize = 4;
/// A fragment of a text message is reported by itself where its payload is shorter than this: a client could send any
/// number of them, also empty ones, without ever completing a message.
pub const SHORT_FRAGMENT_BYTES: usize = 1024;

/// A message or control frame from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A complete text message.
    Text(ByteString),
    /// A text message is over the size limit, according to the headers of its frames so far. Its payload is discarded as
    /// it arrives, and the next message follows.
    Discarded {
        /// The length so far, in bytes.
        length: usize,
    },
    /// A fragment of less than [`SHORT_FRAGMENT_BYTES`] that completes no message.
    ShortFragment,
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
    /// A text message is over four times the size limit, or a binary one over the limit, according to the headers of its
    /// frames.
    TooBig,
    /// A Close without a mask. Clients mask every frame (section 5.1), so a proxy wrote it when it gave the connection up:
    /// the client did not close.
    UnmaskedClose,
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
    message: PartialMessage,
}

/// What has arrived of the current message, control frames aside.
#[derive(Debug)]
enum PartialMessage {
    /// Nothing: the next frame begins a message.
    None,
    /// The payload of its frames so far, all of them complete.
    Fragments(Vec<u8>),
    /// It is over the size limit.
    Discarded {
        /// The length of its frames so far, the current one included.
        length: usize,
        /// How many bytes of the current frame have not arrived yet.
        missing: usize,
        /// The current frame is the last one.
        is_final: bool,
    },
}

impl PartialMessage {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The length of the message so far.
    fn length(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Fragments(fragments) => fragments.len(),
            Self::Discarded { length, .. } => *length,
        }
    }

    /// Discards what has arrived of a message that is over the size limit: how many of `available` bytes.
    fn discard(&mut self, available: usize) -> usize {
        let Self::Discarded { missing, is_final, .. } = self else { return 0 };
        let discarded = available.min(*missing);
        *missing -= discarded;
        if *missing == 0 && *is_final {
            *self = Self::None;
        }
        discarded
    }
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
    /// The length of the message so far, with this frame; 0 for a control frame.
    message_length: usize,
    /// The payload is part of a message over the size limit.
    is_discarded: bool,
}

impl MessageDecoder {
    /// A decoder at the start of a connection, for messages of at most `max_message_bytes`.
    pub fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, message: PartialMessage::None }
    }

    /// Sets the longest message that is accepted, for frames whose header is decoded from now on.
    pub fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.max_message_bytes = max_message_bytes;
    }

    /// How many bytes are allocated for fragments.
    pub(super) fn fragment_capacity(&self) -> usize {
        match &self.message {
            PartialMessage::Fragments(fragments) => fragments.capacity(),
            PartialMessage::None | PartialMessage::Discarded { .. } => 0,
        }
    }

    /// Frees the fragments of a message that will not be completed.
    pub fn discard_fragments(&mut self) {
        self.message = PartialMessage::None;
    }

    /// Decodes frames from the start of `bytes` until one of them completes a message or is a short fragment, and unmasks
    /// them in place. The next call gets the bytes that were not consumed, and those that have arrived since.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`], as soon as a header shows it; the bytes after that are meaningless.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, ProtocolError> {
        let mut used = 0;
        loop {
            used += self.message.discard(bytes.len() - used);
            let Some(rest) = bytes.get_mut(used..) else { break };
            let Some(header) = self.parse_header(rest)? else { break };
            if header.is_discarded {
                used += header.start;
                let message = self.begin_discard(&header);
                if message.is_some() {
                    return Ok(Decoded { used, message });
                }
                continue;
            }
            let frame = header.start..header.start + header.length;
            let Some(payload) = rest.get_mut(frame) else { break };
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
        if second & MASKED == 0 && first == FIN | CLOSE {
            return Err(ProtocolError::UnmaskedClose);
        }
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
            CONTINUATION => !self.message.is_none(),
            TEXT | BINARY => self.message.is_none(),
            CLOSE | PING | PONG => is_final && second & !MASKED <= MAX_CONTROL_PAYLOAD as u8,
            _ => false,
        };
        if !is_allowed {
            return Err(ProtocolError::Malformed);
        }
        let Some(length) = length else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| ProtocolError::TooBig)?;
        let before = if is_control { 0 } else { self.message.length() };
        let message_length = if is_control { 0 } else { before.saturating_add(length) };
        let is_discarded = message_length > self.max_message_bytes
            || (!is_control && matches!(self.message, PartialMessage::Discarded { .. }));
        let most = if opcode == BINARY { 1 } else { MAX_DISCARDED_FACTOR };
        if message_length > self.max_message_bytes.saturating_mul(most) {
            return Err(ProtocolError::TooBig);
        }
        let mask = bytes.get(after_length..after_length + 4).and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| ClientHeader {
            is_final,
            opcode,
            mask,
            start: after_length + 4,
            length,
            message_length,
            is_discarded,
        }))
    }

    /// Discards the message from this frame on. Returns the report of it if the message was within the limit so far, or of
    /// the frame if that is a short fragment.
    fn begin_discard(&mut self, header: &ClientHeader) -> Option<Message> {
        let ClientHeader { message_length: length, length: missing, is_final, .. } = *header;
        let discarded = PartialMessage::Discarded { length, missing, is_final };
        match std::mem::replace(&mut self.message, discarded) {
            PartialMessage::Discarded { .. } => {
                let is_short = !is_final && missing < SHORT_FRAGMENT_BYTES;
                is_short.then_some(Message::ShortFragment)
            }
            PartialMessage::None | PartialMessage::Fragments(_) => {
                Some(Message::Discarded { length })
            }
        }
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
                let before = std::mem::replace(&mut self.message, PartialMessage::None);
                let mut fragments = match before {
                    PartialMessage::Fragments(fragments) => fragments,
                    PartialMessage::None | PartialMessage::Discarded { .. } => Vec::new(),
                };
                fragments.extend_from_slice(payload);
                if !header.is_final {
                    self.message = PartialMessage::Fragments(fragments);
                    let is_short = payload.len() < SHORT_FRAGMENT_BYTES;
                    return Ok(is_short.then_some(Message::ShortFragment));
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
