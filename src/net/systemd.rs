//! A listening socket that systemd hands over.

use std::io;

use listenfd::ListenFd;
use tokio::net::TcpListener;

use super::accept::bound_kernel_buffers;

/// The listening socket that systemd hands over (`LISTEN_FDS`, sd_listen_fds(3)): it stays open while one process follows
/// another. Removes the variables from the environment: call it once, before there are threads.
///
/// # Errors
///
/// When systemd hands over anything but one TCP socket.
pub fn inherited_listener() -> io::Result<Option<std::net::TcpListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("one socket is served, and more were handed over"));
    }
    sockets.take_tcp_listener(0)
}

/// Listens on an [inherited](inherited_listener) socket.
///
/// # Errors
///
/// The error of the system.
pub fn adopt_listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    bound_kernel_buffers(&listener);
    Ok(listener)
}
