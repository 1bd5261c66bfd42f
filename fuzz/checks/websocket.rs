//! WebSocket frames that arrive in pieces of any size.

use signaling::websocket::{Decoded, Message, MessageDecoder, ProtocolError, SHORT_FRAGMENT_BYTES};

const MAX_MESSAGE_BYTES: usize = 300;

/// The messages in some bytes, and the error that ends them.
type Decoding = (Vec<Message>, Option<ProtocolError>);

/// The first byte is the size of the pieces in which the rest arrives. The size makes no difference, and the messages are
/// those of RFC 6455.
pub fn websocket(data: &[u8]) {
    let Some((&pieces, bytes)) = data.split_first() else { return };
    let expected = decode_by_rfc(bytes);

    assert_eq!(decode_in_pieces(bytes, bytes.len()), expected);
    assert_eq!(decode_in_pieces(bytes, 1), expected);
    assert_eq!(decode_in_pieces(bytes, usize::from(pieces) + 1), expected);
}

/// What the server's decoder returns, piece by piece.
fn decode_in_pieces(bytes: &[u8], size: usize) -> Decoding {
    let (mut decoder, mut unread, mut messages) =
        (MessageDecoder::new(MAX_MESSAGE_BYTES), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        unread.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut unread) {
                Ok(Decoded { used, message }) => {
                    assert!(used <= unread.len());
                    unread.drain(..used);
                    let Some(message) = message else { break };
                    let is_last = matches!(message, Message::Close(_) | Message::Binary);
                    messages.push(message);
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

/// The same by RFC 6455, frame after frame, from bytes that are all there.
fn decode_by_rfc(bytes: &[u8]) -> Decoding {
    let mut messages = Vec::new();
    let mut fragments: Option<Vec<u8>> = None;
    // The length of the message so far; it is over the limit if there are no fragments.
    let (mut message_length, mut within) = (0_u128, true);
    let mut at = 0;
    let byte = |at: usize| bytes.get(at).copied();
    while let (Some(first), Some(second)) = (byte(at), byte(at + 1)) {
        let (fin, opcode, short) = (first >= 128, first % 16, usize::from(second % 128));
        let control = matches!(opcode, 8..=10);
        let known = control || opcode <= 2;
        let in_place = control || (opcode == 0) == (fragments.is_some() || !within);
        if first == 128 + 8 && second < 128 {
            return (messages, Some(ProtocolError::UnmaskedClose));
        }
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
        let start = at + 2 + wide + 4;
        if !control {
            let whole = length + if opcode == 0 { message_length } else { 0 };
            let limit = MAX_MESSAGE_BYTES as u128;
            if whole > if opcode == 2 { limit } else { 4 * limit } {
                return (messages, Some(ProtocolError::TooBig));
            }
            if bytes.len() < start {
                return (messages, None); // the length counts once the mask is there
            }
            message_length = whole;
            if whole > limit && within {
                (fragments, within) = (None, false);
                messages.push(Message::Discarded { length: whole as usize });
            } else if !within && !fin && length < SHORT_FRAGMENT_BYTES as u128 {
                messages.push(Message::ShortFragment);
            }
        }
        let end = start + length as usize;
        if bytes.len() < end || bytes.len() < start {
            return (messages, None);
        }
        let payload: Vec<u8> = (start..end)
            .map(|place| bytes[place] ^ bytes[start - 4 + (place - start) % 4])
            .collect();
        at = end;
        if !control && !within {
            within = fin;
            continue;
        }
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
                let mut whole = fragments.take().unwrap_or_default();
                whole.extend(payload);
                if !fin {
                    // Of at most `MAX_MESSAGE_BYTES`, so each is short.
                    messages.push(Message::ShortFragment);
                    fragments = Some(whole);
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
