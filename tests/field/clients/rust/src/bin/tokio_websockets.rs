use field_clients::{reply, url};
use futures_util::{SinkExt, StreamExt};
use tokio_websockets::{ClientBuilder, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let builder = ClientBuilder::from_uri(url().parse().expect("a URI"));
    let (mut socket, _) = match builder.connect().await {
        Ok(connected) => connected,
        Err(error) => return println!("refused {error}"),
    };
    while let Some(message) = socket.next().await {
        match message {
            Ok(message) if message.is_text() => {
                if let Some(answer) = reply(message.as_text().expect("text")) {
                    socket.send(Message::text(answer)).await.expect("an open socket");
                }
            }
            Ok(message) => {
                if let Some((code, reason)) = message.as_close() {
                    println!("closed {} {reason}", u16::from(code));
                }
            }
            Err(error) => println!("error {error}"),
        }
    }
}
