//! A TCP proxy between clients and servers that fails as networks do.

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
pub enum LinkState {
    /// They arrive.
    Normal,
    /// They arrive so much later.
    Delayed(Duration),
    /// They do not arrive, and both ends keep their connection.
    Silent,
    /// Half of the next ones arrives, then both ends are reset.
    Truncated,
    /// Both ends are reset.
    Reset,
}

/// A proxy on a port of its own.
pub struct FaultyProxy {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<LinkState>>>>,
    /// The state of connections to come.
    initial: Arc<Mutex<LinkState>>,
    accepting: JoinHandle<()>,
}

impl FaultyProxy {
    pub async fn before(server: SocketAddr) -> Self {
        Self::balancing(vec![server]).await
    }

    /// A proxy that takes connections to one server after the other, as long as they accept.
    pub async fn balancing(mut servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let initial = Arc::new(Mutex::new(LinkState::Normal));
        let (known, to_come) = (connections.clone(), initial.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let state = watch::Sender::new(*to_come.lock().unwrap());
                servers.rotate_left(1);
                tokio::spawn(carry(client, servers.clone(), state.subscribe()));
                known.lock().unwrap().push(state);
            }
        });
        Self { address, connections, initial, accepting }
    }

    /// Sets the state of the open connections and of those that are opened later.
    pub fn set_all(&self, state: LinkState) {
        *self.initial.lock().unwrap() = state;
        self.set_open(state);
    }

    /// Sets the state of the open connections alone.
    pub fn set_open(&self, state: LinkState) {
        for connection in self.connections.lock().unwrap().iter() {
            connection.send_replace(state);
        }
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Both ends are to be reset.
struct MustReset;

async fn carry(mut client: TcpStream, servers: Vec<SocketAddr>, state: watch::Receiver<LinkState>) {
    let Ok(mut server) = TcpStream::connect(&servers[..]).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let carried = tokio::try_join!(
        pass(from_client, to_server, state.clone()),
        pass(from_server, to_client, state)
    );
    if carried.is_err() {
        client.set_zero_linger().unwrap();
        server.set_zero_linger().unwrap();
    }
}

/// Passes bytes on until one end closes, or the state ends it.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<LinkState>,
) -> Result<(), MustReset> {
    let mut bytes = [0; 4096];
    loop {
        let now = *state.borrow_and_update();
        let read = match now {
            LinkState::Reset => return Err(MustReset),
            LinkState::Silent => {
                state.changed().await.map_err(|_| MustReset)?;
                continue;
            }
            LinkState::Normal | LinkState::Delayed(_) | LinkState::Truncated => tokio::select! {
                biased;
                changed = state.changed() => {
                    changed.map_err(|_| MustReset)?;
                    continue;
                }
                read = from.read(&mut bytes) => read.map_err(|_| MustReset)?,
            },
        };
        if read == 0 {
            return to.shutdown().await.map_err(|_| MustReset);
        }
        if let LinkState::Delayed(delay) = now {
            sleep(delay).await;
        }
        let arrives = if now == LinkState::Truncated { read / 2 } else { read };
        to.write_all(&bytes[..arrives]).await.map_err(|_| MustReset)?;
        if now == LinkState::Truncated {
            return Err(MustReset);
        }
    }
}
