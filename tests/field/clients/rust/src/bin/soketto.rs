use field_clients::{address, reply};
use soketto::{
    Data, Incoming,
    handshake::{Client, ServerResponse},
};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncReadCompatExt;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (host, path) = address();
    let stream = TcpStream::connect(&host).await.expect("a server");
    let mut client = Client::new(stream.compat(), &host, &path);
    match client.handshake().await {
        Ok(ServerResponse::Accepted { .. }) => {}
        Ok(ServerResponse::Rejected { status_code }) => return println!("refused {status_code}"),
        Ok(ServerResponse::Redirect { status_code, .. }) => {
            return println!("refused {status_code}");
        }
        Err(error) => return println!("refused {error}"),
    }
    let (mut sender, mut receiver) = client.into_builder().finish();
    let mut message = Vec::new();
    loop {
        message.clear();
        match receiver.receive(&mut message).await {
            Ok(Incoming::Data(Data::Text(_))) => {
                if let Some(answer) = reply(std::str::from_utf8(&message).expect("UTF-8")) {
                    sender.send_text(answer).await.expect("an open socket");
                    sender.flush().await.expect("an open socket");
                }
            }
            Ok(Incoming::Closed(reason)) => {
                return println!("closed {} {}", reason.code, reason.descr.unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => return println!("closed {error}"),
        }
    }
}
