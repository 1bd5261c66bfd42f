"""An asyncio client of signaling-server. Start at :func:`connect`."""

from .accounts import Account, login
from .events import (
    Error,
    Event,
    IceServers,
    IceTransportPolicy,
    Message,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerState,
    ServerMessage,
    Signal,
    SignalError,
    State,
)
from .session import Session, connect

__all__ = [
    "Account",
    "Error",
    "Event",
    "IceServers",
    "IceTransportPolicy",
    "Message",
    "Peer",
    "PeerJoined",
    "PeerLeft",
    "PeerState",
    "ServerMessage",
    "Session",
    "Signal",
    "SignalError",
    "State",
    "connect",
    "login",
]
