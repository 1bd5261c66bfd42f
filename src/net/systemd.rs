//! A listening socket that systemd hands over.

use std::io;

use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The socket that whoever started us listens on already (systemd's `LISTEN_FDS`, sd_listen_fds(3)): it stays
/// open while one process follows the other. Takes it out of the environment: call it once, before there
/// are threads.
///
/// # Errors
///
/// When what was handed over is not one TCP socket.
pub fn inherited_listener() -> io::Result<Option<std::net::TcpListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("one socket is served, and more were handed over"));
    }
    sockets.take_tcp_listener(0)
}

/// Listens on a socket that was [handed over](handed_over).
///
/// # Errors
///
/// What the system says.
pub fn adopt_listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
