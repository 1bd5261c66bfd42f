use field_clients::{reply, url};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{connect_async, tungstenite::Message};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (mut socket, _) = match connect_async(url()).await {
        Ok(connected) => connected,
        Err(error) => return println!("refused {error}"),
    };
    while let Some(message) = socket.next().await {
        match message {
            Ok(Message::Text(text)) => {
                if let Some(answer) = reply(&text) {
                    socket.send(answer.into()).await.expect("an open socket");
                }
            }
            Ok(Message::Close(Some(close))) => println!("closed {} {}", close.code, close.reason),
            Ok(_) => {}
            Err(error) => println!("error {error}"),
        }
    }
}
