//! The part of RFC 6455 that the clients and the floor need: complete frames, unmasked or with any mask.

/// A text message.
pub const TEXT: u8 = 1;
/// A close frame.
pub const CLOSE: u8 = 8;
/// A ping.
pub const PING: u8 = 9;
/// A pong.
pub const PONG: u8 = 10;

/// A frame at the start of some bytes.
pub struct Frame {
    /// The opcode.
    pub opcode: u8,
    /// Where the payload starts.
    pub start: usize,
    /// Where the payload ends, and the next frame starts.
    pub end: usize,
    /// The masking key.
    pub mask: Option<[u8; 4]>,
}

/// The frame at the start of `bytes`, if it is complete.
pub fn first(bytes: &[u8]) -> Option<Frame> {
    let (&head, &length) = (bytes.first()?, bytes.get(1)?);
    let (mut start, length) = match length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    let mut mask = None;
    if bytes[1] & 0x80 != 0 {
        mask = Some(bytes.get(start..start + 4)?.try_into().ok()?);
        start += 4;
    }
    let end = start.checked_add(length)?;
    (bytes.len() >= end).then_some(Frame { opcode: head & 0x0f, start, end, mask })
}

/// Appends a frame as servers send it.
pub fn push_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// The start of a frame as servers send it, up to its payload of so many bytes.
pub fn plain_head(opcode: u8, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    head(&mut out, opcode, length, 0);
    out
}

/// Appends a frame as clients send it. The mask is zero: this saves the work of the bench, and not that of the server.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    head(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn head(out: &mut Vec<u8>, opcode: u8, length: usize, masked: u8) {
    out.push(0x80 | opcode);
    match length {
        0..126 => out.push(masked | length as u8),
        126..65_536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
