use field_clients::{reply, url};
use ws::{CloseCode, Error, Handler, Message, Result, Sender};

struct Room(Sender);

impl Handler for Room {
    fn on_message(&mut self, message: Message) -> Result<()> {
        reply(message.as_text()?).map_or(Ok(()), |answer| self.0.send(answer))
    }

    fn on_close(&mut self, code: CloseCode, reason: &str) {
        let code: u16 = code.into();
        println!("closed {code} {reason}");
    }

    fn on_error(&mut self, error: Error) {
        println!("error {error}");
    }
}

fn main() {
    if let Err(error) = ws::connect(url(), Room) {
        println!("refused {error}");
    }
}
