"""The events of a session, and the types in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

StateName: TypeAlias = Literal["connecting", "connected", "reconnecting", "closed"]
"""`connecting` until the client first joins, `reconnecting` while there is no joined socket after
that, `closed` at the end."""

IceTransportPolicy: TypeAlias = Literal["all", "relay"]
"""`relay` if the token of this client allows connections through TURN servers only."""

SignalType: TypeAlias = Literal["offer", "answer", "ice_candidate"]


class SignalError(Exception):
    """An error of a session or of a login.

    `code` is the error code of the server, or one of the client's own: `closed`, `no_token`,
    `events_lost`, `internal_error`, `message_too_big`; from a login `unauthorized`, `unreachable`, or `http_` followed
    by the status. After a `fatal` error the session has ended, and reconnecting with the same
    options would fail again.
    """

    def __init__(
        self, code: str, message: str, fatal: bool = False, retry_after: float | None = None
    ) -> None:
        """`retry_after` is the delay in seconds that the server asks for before a retry."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.fatal = fatal
        self.retry_after = retry_after

    def __repr__(self) -> str:
        """Shows the code, the message and whether the error is fatal."""
        return f"SignalError({self.code!r}, {self.message!r}, fatal={self.fatal})"


@dataclass(slots=True, eq=False)
class Peer:
    """Another member of the room; the same object for as long as it is a member."""

    id: str
    """Its client id."""
    username: str
    polite: bool
    """Whether this client is the polite one of the pair: on an offer collision it accepts the
    peer's offer. The polite client joined later, and offers first."""
    connected: bool = False
    """Set by the program while a connection to this peer exists. If the peer is missing after a
    crash of the server, it then has 30 seconds to return before it is removed, because the call
    continues meanwhile."""
    name: str | None = None
    """The display name that its token gives it; None if it gives none."""


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A peer is in the room: it has joined, or was there when this client joined."""

    peer: Peer
    existing: bool = False
    """Whether it was there when this client joined."""


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A peer has left the room."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerState:
    """The server has lost a peer's socket (`reconnecting`), or has it again (`connected`)."""

    peer: Peer
    state: str


@dataclass(frozen=True, slots=True)
class Message:
    """A peer has sent `data`, any JSON value, through the server."""

    peer: Peer
    data: Any


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """An administrator of the server has sent `data`, any JSON value, to the room."""

    data: Any


@dataclass(frozen=True, slots=True)
class Signal:
    """A description or a candidate, as the peer sent it; `None` is the end of its candidates."""

    peer: Peer
    type: SignalType
    payload: Any


@dataclass(frozen=True, slots=True)
class IceServers:
    """ICE servers with new credentials, or another `ice_transport_policy` of the session: for every
    connection."""

    servers: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """The session has changed its state, or has lost another socket."""

    state: StateName
    retry_in: float | None = None
    """The delay until the next attempt, in seconds."""
    code: int | None = None
    """The close code of the last socket."""
    reason: str = ""
    """The close reason of the last socket."""
    resumed: bool = False
    """With `connected`: the membership was resumed. Restart ICE on connections that are not
    connected."""


@dataclass(frozen=True, slots=True)
class Error:
    """An error; unless it is fatal, the session continues."""

    error: SignalError


Event: TypeAlias = (
    PeerJoined
    | PeerLeft
    | PeerState
    | Message
    | ServerMessage
    | Signal
    | IceServers
    | State
    | Error
)
