//! WebSocket frames, independent of the chunks in which they arrive.

use signaling::frames::{Decoded, Message, MessageDecoder, ProtocolError};

const MAX_MESSAGE: usize = 300;

/// The messages, and the error that ended the stream.
type Outcome = (Vec<Message>, Option<ProtocolError>);

/// The first byte is the size of the chunks in which the rest arrives. The size makes no difference, and the result is
/// that of RFC 6455.
pub fn websocket(data: &[u8]) {
    let Some((&chunk, bytes)) = data.split_first() else { return };
    let expected = reference(bytes);

    assert_eq!(decode(bytes, bytes.len()), expected);
    assert_eq!(decode(bytes, 1), expected);
    assert_eq!(decode(bytes, usize::from(chunk) + 1), expected);
}

/// The result of the decoder, chunk by chunk.
fn decode(bytes: &[u8], size: usize) -> Outcome {
    let (mut decoder, mut unread, mut messages) =
        (MessageDecoder::new(MAX_MESSAGE), Vec::new(), Vec::new());
    for chunk in bytes.chunks(size.max(1)) {
        unread.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut unread) {
                Ok(Decoded { used, arrival }) => {
                    assert!(used <= unread.len());
                    unread.drain(..used);
                    let Some(arrival) = arrival else { break };
                    let is_last = matches!(arrival, Message::Close(_) | Message::Binary);
                    messages.push(arrival);
                    if is_last {
                        return (messages, None);
                    }
                }
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// A reference implementation of RFC 6455: frame by frame, from the complete bytes.
fn reference(bytes: &[u8]) -> Outcome {
    let mut messages = Vec::new();
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
            return (messages, Some(ProtocolError::Malformed));
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = if wide == 0 { short as u128 } else { 0 };
        for offset in 0..wide {
            let Some(digit) = byte(at + 2 + offset) else { return (messages, None) };
            length = length * 256 + u128::from(digit);
        }
        let before = if control { 0 } else { message.as_ref().map_or(0, Vec::len) };
        if !control && before as u128 + length > MAX_MESSAGE as u128 {
            return (messages, Some(ProtocolError::TooBig));
        }
        let start = at + 2 + wide + 4;
        let end = start + length as usize;
        if bytes.len() < end || bytes.len() < start {
            return (messages, None);
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
                    return (messages, Some(ProtocolError::Malformed));
                }
                if payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
                    return (messages, Some(ProtocolError::NotUtf8));
                }
                messages.push(Message::Close(payload));
                return (messages, None);
            }
            9 => messages.push(Message::Ping(payload)),
            10 => messages.push(Message::Pong),
            2 => {
                messages.push(Message::Binary);
                return (messages, None);
            }
            _ => {
                let mut whole = message.take().unwrap_or_default();
                whole.extend(payload);
                if !fin {
                    message = Some(whole);
                    continue;
                }
                match String::from_utf8(whole) {
                    Ok(text) => messages.push(Message::Text(text.into())),
                    Err(_) => return (messages, Some(ProtocolError::NotUtf8)),
                }
            }
        }
    }
    (messages, None)
}
