//! WebSocket frames (RFC 6455 section 5) as bytes: what arrives is taken apart, what is sent is put
//! together. No socket is known here.

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

/// The most that a control frame carries (section 5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// What a client sent, as far as it concerns anybody.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message, whole.
    Text(ByteString),
    /// The start of a binary message; the rest is not waited for.
    Binary,
    /// A Ping; it is answered with a [`pong`] of the same payload.
    Ping(Vec<u8>),
    /// A Pong.
    Pong,
    /// A Close; it is answered with a [`close`] of the same payload.
    Close(Vec<u8>),
}

/// Why what arrived is not to be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// It is no frame of a client, or has no business where it stands.
    Malformed,
    /// A text message, or the reason of a Close, is not UTF-8.
    NotUtf8,
    /// A message is longer than it may be, by what its frames say of themselves.
    TooBig,
}

/// What was found at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many of the bytes have been used up.
    pub used: usize,
    /// What they came to; `None` where more must arrive first.
    pub arrival: Option<Message>,
}

/// Puts the frames of one client together.
#[derive(Debug)]
pub struct MessageDecoder {
    /// The most that a message may have, in bytes.
    longest: usize,
    /// The fragments so far; `None` between messages.
    begun: Option<Vec<u8>>,
}

/// The head of a frame, once all of it is there.
struct ClientHeader {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    start: usize,
    length: usize,
}

impl MessageDecoder {
    /// Nothing has arrived yet.
    pub fn new(longest: usize) -> Self {
        Self { longest, begun: None }
    }

    /// Takes frames off the start of `bytes` until one of them comes to something, and unmasks them
    /// in place. Call it again with what it has not used, and what has arrived after that.
    ///
    /// # Errors
    ///
    /// [`Fault`], as soon as a head shows it; nothing after that makes sense.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, ProtocolError> {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..)
            && let Some(head) = self.parse_header(rest)?
            && let Some(payload) = rest.get_mut(head.start..head.start + head.length)
        {
            used += head.start + head.length;
            unmask(payload, head.mask);
            if let Some(arrival) = self.complete_frame(&head, payload)? {
                return Ok(Decoded { used, arrival: Some(arrival) });
            }
        }
        Ok(Decoded { used, arrival: None })
    }

    /// Reads a head and refuses what may not be; `None` while it is not there as a whole.
    fn parse_header(&self, bytes: &[u8]) -> Result<Option<ClientHeader>, ProtocolError> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let (last, opcode) = (first & FIN != 0, first & 0x0f);
        if first & RESERVED_BITS != 0 || second & MASKED == 0 {
            return Err(ProtocolError::Malformed);
        }
        let (after_length, length) = match second & !MASKED {
            126 => (4, bytes.get(2..4).map(big_endian)),
            127 => (10, bytes.get(2..10).map(big_endian)),
            short => (2, Some(u64::from(short))),
        };
        let is_control = opcode & 0x8 != 0;
        let fits = match opcode {
            CONTINUATION => self.begun.is_some(),
            TEXT | BINARY => self.begun.is_none(),
            CLOSE | PING | PONG => last && second & !MASKED <= MAX_CONTROL_PAYLOAD as u8,
            _ => false,
        };
        if !fits {
            return Err(ProtocolError::Malformed);
        }
        let Some(length) = length else { return Ok(None) };
        let before = if is_control { 0 } else { self.begun.as_ref().map_or(0, Vec::len) };
        let length = usize::try_from(length).ok().filter(|length| {
            before.checked_add(*length).is_some_and(|whole| whole <= self.longest || is_control)
        });
        let length = length.ok_or(ProtocolError::TooBig)?;
        let mask = bytes.get(after_length..after_length + 4).and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| ClientHeader { last, opcode, mask, start: after_length + 4, length }))
    }

    fn complete_frame(
        &mut self,
        head: &ClientHeader,
        payload: &[u8],
    ) -> Result<Option<Message>, ProtocolError> {
        let arrival = match head.opcode {
            PING => Message::Ping(payload.to_vec()),
            PONG => Message::Pong,
            CLOSE => {
                check_close(payload)?;
                Message::Close(payload.to_vec())
            }
            BINARY => Message::Binary,
            // The usual case, which needs no second copy.
            TEXT if head.last => Message::Text(text_message(payload.to_vec())?),
            _text_or_continuation => {
                let mut begun = self.begun.take().unwrap_or_default();
                begun.extend_from_slice(payload);
                if !head.last {
                    self.begun = Some(begun);
                    return Ok(None);
                }
                Message::Text(text_message(begun)?)
            }
        };
        Ok(Some(arrival))
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

/// Section 7.4: which codes an endpoint may send, and that the reason is text.
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

/// The head of a frame that a server sends; the payload follows as it is (section 5.1: no mask).
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; 10],
    length: usize,
}

impl FrameHeader {
    /// Of a text message of `length` bytes.
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

    /// Puts the whole frame at the start of `place` and says how long it is; `None` where it does not fit.
    pub fn copy_with_payload(&self, payload: &[u8], place: &mut [u8]) -> Option<usize> {
        let length = self.length + payload.len();
        let (head, rest) = place.get_mut(..length)?.split_at_mut_checked(self.length)?;
        head.copy_from_slice(self.bytes());
        rest.copy_from_slice(payload);
        Some(length)
    }

    /// As it is sent.
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
