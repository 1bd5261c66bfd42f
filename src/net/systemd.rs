//! A listening socket that systemd hands over.

use std::io;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use super::{accept::bound_kernel_buffers, socket::Listener};

/// A listening socket of another process, before there is a runtime.
#[derive(Debug)]
pub enum InheritedListener {
    /// `ListenStream=127.0.0.1:8080`
    Tcp(std::net::TcpListener),
    /// `ListenStream=/run/signaling/socket`
    Unix(std::os::unix::net::UnixListener),
}

/// The listening socket that systemd hands over (`LISTEN_FDS`, sd_listen_fds(3)): it stays open while one process follows
/// another. Removes the variables from the environment: call it once, before there are threads.
///
/// # Errors
///
/// When systemd hands over anything but one TCP or Unix socket.
pub fn inherited_listener() -> io::Result<Option<InheritedListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("one socket is served, and more were handed over"));
    }
    match sockets.take_tcp_listener(0) {
        Ok(listener) => Ok(listener.map(InheritedListener::Tcp)),
        Err(no_tcp_socket) => match sockets.take_unix_listener(0) {
            Ok(listener) => Ok(listener.map(InheritedListener::Unix)),
            Err(_) => Err(no_tcp_socket),
        },
    }
}

/// Listens on an [inherited](inherited_listener) socket.
///
/// # Errors
///
/// The error of the system.
pub fn adopt_listener(listener: InheritedListener) -> io::Result<Listener> {
    match listener {
        InheritedListener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            bound_kernel_buffers(&listener);
            Ok(Listener::Tcp(listener))
        }
        InheritedListener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(Listener::Unix)
        }
    }
}
