//! A network between clients and a server that fails as networks do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// What becomes of the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They arrive.
    Fair,
    /// They arrive so much later.
    Late(Duration),
    /// They do not arrive, and nobody is told: both ends believe in their connection.
    Silent,
    /// Half of the next ones arrives, then both ends are reset.
    Torn,
    /// Both ends are reset.
    Reset,
}

/// A TCP proxy on a port of its own.
pub struct Network {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<Weather>>>>,
    /// The weather of connections to come.
    climate: Arc<Mutex<Weather>>,
    accepting: JoinHandle<()>,
}

impl Network {
    pub async fn before(server: SocketAddr) -> Self {
        Self::among(vec![server]).await
    }

    /// One that takes connections to one server after the other, as long as they take them.
    pub async fn among(mut servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let climate = Arc::new(Mutex::new(Weather::Fair));
        let (known, to_come) = (connections.clone(), climate.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let weather = watch::Sender::new(*to_come.lock().unwrap());
                servers.rotate_left(1);
                tokio::spawn(carry(client, servers.clone(), weather.subscribe()));
                known.lock().unwrap().push(weather);
            }
        });
        Self { address, connections, climate, accepting }
    }

    /// The weather of every connection that is open, and of those that are opened later.
    pub fn stays(&self, weather: Weather) {
        *self.climate.lock().unwrap() = weather;
        self.turns(weather);
    }

    /// The weather of every connection that is open; those that are opened later have fair weather.
    pub fn turns(&self, weather: Weather) {
        for connection in self.connections.lock().unwrap().iter() {
            connection.send_replace(weather);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The connection is to be reset.
struct Struck;

async fn carry(mut client: TcpStream, servers: Vec<SocketAddr>, weather: watch::Receiver<Weather>) {
    let Ok(mut server) = TcpStream::connect(&servers[..]).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let carried = tokio::try_join!(
        pass(from_client, to_server, weather.clone()),
        pass(from_server, to_client, weather)
    );
    if carried.is_err() {
        client.set_zero_linger().unwrap();
        server.set_zero_linger().unwrap();
    }
}

/// Passes bytes on until one end closes, or the weather ends it.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) -> Result<(), Struck> {
    let mut bytes = [0; 4096];
    loop {
        let now = *weather.borrow_and_update();
        let read = match now {
            Weather::Reset => return Err(Struck),
            Weather::Silent => {
                weather.changed().await.map_err(|_| Struck)?;
                continue;
            }
            Weather::Fair | Weather::Late(_) | Weather::Torn => tokio::select! {
                biased;
                changed = weather.changed() => {
                    changed.map_err(|_| Struck)?;
                    continue;
                }
                read = from.read(&mut bytes) => read.map_err(|_| Struck)?,
            },
        };
        if read == 0 {
            return to.shutdown().await.map_err(|_| Struck);
        }
        if let Weather::Late(delay) = now {
            sleep(delay).await;
        }
        let arrives = if now == Weather::Torn { read / 2 } else { read };
        to.write_all(&bytes[..arrives]).await.map_err(|_| Struck)?;
        if now == Weather::Torn {
            return Err(Struck);
        }
    }
}
