"""Rooms of signaling-server from asyncio. Start at :func:`connect`."""

from .accounts import Account, login
from .events import (
    Error,
    Event,
    IceServers,
    Message,
    Peer,
    PeerJoined,
    PeerLeft,
    PeerState,
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
    "Message",
    "Peer",
    "PeerJoined",
    "PeerLeft",
    "PeerState",
    "Session",
    "Signal",
    "SignalError",
    "State",
    "connect",
    "login",
]
