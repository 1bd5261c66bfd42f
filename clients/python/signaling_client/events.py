"""What a session tells of itself and of the others in its room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

StateName: TypeAlias = Literal["connecting", "connected", "reconnecting", "closed"]
"""`connecting` until the first seat, `reconnecting` whenever there is none, `closed` for good."""

SignalType: TypeAlias = Literal["offer", "answer", "ice_candidate"]


class SignalError(Exception):
    """What went wrong.

    `code` is the server's word, or one of ours: `closed`, `no_token`, `events_lost`,
    `internal_error`; from a login `unauthorized`, `unreachable`, or `http_` and the status. After a
    `fatal` one the session is over, and coming back makes no sense as it is.
    """

    def __init__(
        self, code: str, message: str, fatal: bool = False, retry_after: float | None = None
    ) -> None:
        """Says `message`; `retry_after` is how many seconds the server asks to wait."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.fatal = fatal
        self.retry_after = retry_after

    def __repr__(self) -> str:
        """What it says, and how bad it is."""
        return f"SignalError({self.code!r}, {self.message!r}, fatal={self.fatal})"


@dataclass(slots=True, eq=False)
class Peer:
    """Another member of the room; the same object for as long as it is one."""

    id: str
    """Its client id."""
    username: str
    polite: bool
    """Whether we give way to it when both offer at once. If so we came later, and offer first."""
    connected: bool = False
    """Yours to set while a connection to this peer stands: after a crash of the server it then has
    30 seconds to come back before it counts as gone, for the call goes on meanwhile."""


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """Somebody is there: from now on, or since before we came."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """Somebody is gone."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerState:
    """The server has lost a peer's socket (`reconnecting`), or it is back (`connected`)."""

    peer: Peer
    state: str


@dataclass(frozen=True, slots=True)
class Message:
    """A peer has said `data`, any JSON value, by the way of the server."""

    peer: Peer
    data: Any


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """An administrator of the server has said `data`, any JSON value."""

    data: Any


@dataclass(frozen=True, slots=True)
class Signal:
    """A description or a candidate of a peer, as it sent it; `None` ends its candidates."""

    peer: Peer
    type: SignalType
    payload: Any


@dataclass(frozen=True, slots=True)
class IceServers:
    """ICE servers with fresh credentials, for every connection."""

    servers: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """The session has come to another state, or lost another socket."""

    state: StateName
    retry_in: float | None = None
    """Seconds until the next attempt."""
    code: int | None = None
    """The close code of the last socket."""
    reason: str = ""
    """What it said."""
    resumed: bool = False
    """With `connected`: we go on where we were. Connections that are not well restart ICE."""


@dataclass(frozen=True, slots=True)
class Error:
    """Something went wrong; unless it is fatal, the session goes on."""

    error: SignalError


Event: TypeAlias = (
    PeerJoined | PeerLeft | PeerState | Message | ServerMessage | Signal | IceServers | State | Error
)
