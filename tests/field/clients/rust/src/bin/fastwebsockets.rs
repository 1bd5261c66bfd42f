use std::future::Future;

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, handshake};
use field_clients::{address, reply};
use http_body_util::Empty;
use hyper::{Request, body::Bytes};
use tokio::net::TcpStream;

struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (host, path) = address();
    let stream = TcpStream::connect(&host).await.expect("a server");
    let request = Request::get(path)
        .header("Host", host)
        .header("Upgrade", "websocket")
        .header("Connection", "upgrade")
        .header("Sec-WebSocket-Key", handshake::generate_key())
        .header("Sec-WebSocket-Version", "13")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let socket = match handshake::client(&Spawn, request, stream).await {
        Ok((socket, _)) => socket,
        Err(error) => return println!("refused {error}"),
    };
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await.expect("a frame");
        match frame.opcode {
            OpCode::Text => {
                if let Some(answer) = reply(std::str::from_utf8(&frame.payload).expect("UTF-8")) {
                    let answer = Frame::text(Payload::Owned(answer.into_bytes()));
                    socket.write_frame(answer).await.expect("an open socket");
                }
            }
            OpCode::Close => {
                let (code, reason) = frame.payload.split_at(2);
                let code = u16::from_be_bytes([code[0], code[1]]);
                return println!("closed {code} {}", String::from_utf8_lossy(reason));
            }
            _ => {}
        }
    }
}
