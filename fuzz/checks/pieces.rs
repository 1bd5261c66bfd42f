//! Frames of WebSockets, in whatever pieces they arrive.

use signaling::frames::{Decoded, Message, MessageDecoder, ProtocolError};

const LONGEST: usize = 300;

/// What the bytes came to, and why it ended.
type Story = (Vec<Message>, Option<ProtocolError>);

/// The first byte says in which pieces the rest arrives. Those make no difference, and what comes of
/// them is what RFC 6455 says.
pub fn websocket(data: &[u8]) {
    let Some((&pieces, bytes)) = data.split_first() else { return };
    let expected = told(bytes);

    assert_eq!(heard(bytes, bytes.len()), expected);
    assert_eq!(heard(bytes, 1), expected);
    assert_eq!(heard(bytes, usize::from(pieces) + 1), expected);
}

/// What the assembler makes of it, piece by piece.
fn heard(bytes: &[u8], size: usize) -> Story {
    let (mut assembler, mut unread, mut arrivals) =
        (MessageDecoder::new(LONGEST), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        unread.extend_from_slice(piece);
        loop {
            match assembler.decode(&mut unread) {
                Ok(Decoded { used, arrival }) => {
                    assert!(used <= unread.len());
                    unread.drain(..used);
                    let Some(arrival) = arrival else { break };
                    let is_last = matches!(arrival, Message::Close(_) | Message::Binary);
                    arrivals.push(arrival);
                    if is_last {
                        return (arrivals, None);
                    }
                }
                Err(fault) => return (arrivals, Some(fault)),
            }
        }
    }
    (arrivals, None)
}

/// The same by RFC 6455, read slowly: frame after frame, from bytes that are all there.
fn told(bytes: &[u8]) -> Story {
    let mut arrivals = Vec::new();
    let mut message: Option<Vec<u8>> = None;
    let mut at = 0;
    let byte = |at: usize| bytes.get(at).copied();
    while let (Some(first), Some(second)) = (byte(at), byte(at + 1)) {
        let (fin, opcode, short) = (first >= 128, first % 16, usize::from(second % 128));
        let control = matches!(opcode, 8..=10);
        let known = control || opcode <= 2;
        let in_place = control || (opcode == 0) == message.is_some();
        if first / 16 % 8 != 0
            || second < 128
            || !known
            || !in_place
            || (control && (!fin || short > 125))
        {
            return (arrivals, Some(ProtocolError::Malformed));
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = if wide == 0 { short as u128 } else { 0 };
        for offset in 0..wide {
            let Some(digit) = byte(at + 2 + offset) else { return (arrivals, None) };
            length = length * 256 + u128::from(digit);
        }
        let before = if control { 0 } else { message.as_ref().map_or(0, Vec::len) };
        if !control && before as u128 + length > LONGEST as u128 {
            return (arrivals, Some(ProtocolError::TooBig));
        }
        let start = at + 2 + wide + 4;
        let end = start + length as usize;
        if bytes.len() < end || bytes.len() < start {
            return (arrivals, None);
        }
        let payload: Vec<u8> = (start..end)
            .map(|place| bytes[place] ^ bytes[start - 4 + (place - start) % 4])
            .collect();
        at = end;
        match opcode {
            8 => {
                let code =
                    payload.get(..2).map(|code| u16::from(code[0]) * 256 + u16::from(code[1]));
                let sendable = code.is_some_and(|code| {
                    (1000..5000).contains(&code)
                        && !(1015..3000).contains(&code)
                        && ![1004, 1005, 1006].contains(&code)
                });
                if !payload.is_empty() && !sendable {
                    return (arrivals, Some(ProtocolError::Malformed));
                }
                if payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
                    return (arrivals, Some(ProtocolError::NotUtf8));
                }
                arrivals.push(Message::Close(payload));
                return (arrivals, None);
            }
            9 => arrivals.push(Message::Ping(payload)),
            10 => arrivals.push(Message::Pong),
            2 => {
                arrivals.push(Message::Binary);
                return (arrivals, None);
            }
            _ => {
                let mut whole = message.take().unwrap_or_default();
                whole.extend(payload);
                if !fin {
                    message = Some(whole);
                    continue;
                }
                match String::from_utf8(whole) {
                    Ok(text) => arrivals.push(Message::Text(text.into())),
                    Err(_) => return (arrivals, Some(ProtocolError::NotUtf8)),
                }
            }
        }
    }
    (arrivals, None)
}
