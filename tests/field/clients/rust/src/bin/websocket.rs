use field_clients::{reply, url};
use websocket::{ClientBuilder, OwnedMessage};

fn main() {
    let mut builder = ClientBuilder::new(&url()).expect("a URL");
    let mut socket = match builder.connect_insecure() {
        Ok(socket) => socket,
        Err(error) => return println!("refused {error}"),
    };
    loop {
        match socket.recv_message() {
            Ok(OwnedMessage::Text(text)) => {
                if let Some(answer) = reply(&text) {
                    socket.send_message(&OwnedMessage::Text(answer)).expect("an open socket");
                }
            }
            // It answers none by itself.
            Ok(OwnedMessage::Ping(data)) => {
                socket.send_message(&OwnedMessage::Pong(data)).expect("an open socket");
            }
            Ok(OwnedMessage::Close(close)) => {
                let (code, reason) =
                    close.map(|close| (close.status_code, close.reason)).unwrap_or_default();
                return println!("closed {code} {reason}");
            }
            Ok(_) => {}
            Err(error) => return println!("error {error}"),
        }
    }
}
