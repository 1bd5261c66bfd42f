use field_clients::{reply, url};
use tungstenite::{Message, connect};

fn main() {
    let (mut socket, _) = match connect(url()) {
        Ok(connected) => connected,
        Err(error) => return println!("refused {error}"),
    };
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                if let Some(answer) = reply(&text) {
                    socket.send(answer.into()).expect("an open socket");
                }
            }
            Ok(Message::Close(Some(close))) => println!("closed {} {}", close.code, close.reason),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
