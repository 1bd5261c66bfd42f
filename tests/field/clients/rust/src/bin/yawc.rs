use field_clients::{reply, url};
use futures_util::{SinkExt, StreamExt};
use yawc::{Frame, OpCode, WebSocket};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut socket = match WebSocket::connect(url().parse().expect("a URL")).await {
        Ok(socket) => socket,
        Err(error) => return println!("refused {error}"),
    };
    while let Some(frame) = socket.next().await {
        match frame.opcode() {
            OpCode::Text => {
                if let Some(answer) = reply(frame.as_str()) {
                    socket.send(Frame::text(answer)).await.expect("an open socket");
                }
            }
            OpCode::Close => {
                let code = frame.close_code().map_or(0, u16::from);
                println!(
                    "closed {code} {}",
                    frame.close_reason().ok().flatten().unwrap_or_default()
                );
            }
            _ => {}
        }
    }
}
