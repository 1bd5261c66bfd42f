"""One room and its other members."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Self

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
    SignalType,
    State,
    StateName,
)
from .membership import Joined, Membership, MembershipEvent
from .send_buffer import Frame
from .tokens import GetToken
from .websocket import OpenSocket, open_socket

log = logging.getLogger("signaling_client")

MISSING_PEER_TIMEOUT = 30.0
"""How many seconds a connected peer may be missing from the room after a join without resume."""
MAX_QUEUED_EVENTS = 1_000
"""How many events wait for the reader; beyond that the oldest is dropped."""


def connect(
    url: str,
    room: str,
    *,
    token: str | None = None,
    get_token: GetToken | None = None,
    client_id: str | None = None,
) -> Connecting:
    """Joins `room` on the server at `url`: ``await`` it, or use it with ``async with``.

    `token` comes from ``POST /auth/login``; `get_token(renew)`, a function or a coroutine function,
    is called whenever a token is needed, with True if it has to be a new one. With neither of them
    the client joins as a guest. `client_id` is unique in its room; the server assigns one if it is
    left out.

    Raises SignalError if the server refuses the client, ValueError if `url` is not the URL of a
    server. While the server cannot be reached, this keeps trying.
    """
    return Connecting(url, room, token, get_token, client_id)


class Connecting:
    """Returned by :func:`connect`; awaiting or entering it gives a :class:`Session`."""

    def __init__(
        self,
        url: str,
        room: str,
        token: str | None,
        get_token: GetToken | None,
        client_id: str | None,
        open_socket: OpenSocket = open_socket,
    ) -> None:
        """Opens no socket yet."""
        self._url, self._room = url, room
        self._token, self._get_token, self._client_id = token, get_token, client_id
        self._open_socket = open_socket
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        """Waits until the client has joined."""
        return self._join().__await__()

    async def __aenter__(self) -> Session:
        """Waits until the client has joined."""
        self._session = await self._join()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the room."""
        if self._session:
            await self._session.close()

    async def _join(self) -> Session:
        session = Session(self)
        try:
            await session._first_join
        except BaseException:
            await session.close()
            raise
        return session


class Session:
    """A membership of a room, until :meth:`close` or a fatal error. Made by :func:`connect`.

    Iterate over it for its events, until it is closed: the state `connected`, a :class:`PeerJoined`
    for every member that is already in the room, and then all later events in order. There is one
    queue, so only one task may iterate. The queue holds 1,000 events. If it overflows, the oldest
    are dropped, with a warning in the log and an :class:`Error` `events_lost` in their place.
    """

    def __init__(self, options: Connecting) -> None:
        """Starts to join, as a task of the running event loop."""
        self._peers: dict[str, Peer] = {}
        # The client ids of the members that the server lists; `_peers` may also hold missing ones.
        self._present: set[str] = set()
        self._missing_timer: asyncio.TimerHandle | None = None
        self._events: deque[Event] = deque()
        self._dropped_events = 0
        self._has_event = asyncio.Event()
        self._first_join: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._membership = Membership(
            options._url,
            options._room,
            self._handle_event,
            token=options._token,
            get_token=options._get_token,
            client_id=options._client_id,
            open_socket=options._open_socket,
        )
        self._task = asyncio.create_task(self._membership.run())

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The other members, by client id."""
        return MappingProxyType(self._peers)

    @property
    def id(self) -> str:
        """The client id of this client."""
        return self._membership.client_id or ""

    @property
    def username(self) -> str:
        """The username of this client."""
        return self._membership.username or ""

    @property
    def state(self) -> StateName:
        """The state of the session."""
        return self._membership.state

    @property
    def ice_servers(self) -> list[dict[str, Any]]:
        """The ICE servers in the JSON of RTCPeerConnection; empty if the server provides none."""
        return self._membership.ice_servers

    @property
    def ice_transport_policy(self) -> IceTransportPolicy:
        """The `iceTransportPolicy` of every RTCPeerConnection: `relay` if the token demands it."""
        return self._membership.ice_transport_policy

    def send(self, data: Any, to: str | None = None) -> None:
        """Sends any JSON value to every peer, or to the one with the client id `to`.

        It does not block. Frames that were sent without a connection, or may have been lost with
        it, are sent again after a resume: the last 200. On a closed session it does nothing.

        Raises TypeError or ValueError if `data` is not JSON, and SignalError `message_too_big` if
        it is longer than the server accepts; then nothing is sent, and the session goes on.
        """
        self._send({"type": "message", "data": data}, to)

    def signal(self, type: SignalType, payload: Any, to: str) -> None:  # noqa: A002
        """Sends a description or a candidate (None: end of candidates) to `to`, as :meth:`send`."""
        self._send({"type": type, "candidate" if type == "ice_candidate" else type: payload}, to)

    async def close(self) -> None:
        """Sends the queued frames and leaves the room. May be called again, and cancelled."""
        try:
            await self._membership.leave()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        """Returns the session."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the room."""
        await self.close()

    def __aiter__(self) -> Self:
        """Returns the session: see the class."""
        return self

    async def __anext__(self) -> Event:
        """The next event; may be cancelled."""
        while not self._events:
            if self.state == "closed":
                raise StopAsyncIteration
            self._has_event.clear()
            await self._has_event.wait()
        if self._dropped_events:
            text = f"{self._dropped_events} events were dropped because they were not read in time"
            self._dropped_events = 0
            return Error(SignalError("events_lost", text))
        return self._events.popleft()

    def __repr__(self) -> str:
        """Shows the client id and the state; no token."""
        return f"<Session {self.id!r} {self.state}, {len(self._peers)} peers>"

    # --- events of the membership -----------------------------------------------------------------

    def _send(self, frame: Frame, to: str | None) -> None:
        self._membership.send(frame if to is None else {**frame, "to": to})

    def _handle_event(self, event: MembershipEvent) -> None:
        match event:
            case Joined(members):
                self._handle_joined(members)
            case State():
                if event.state == "connected" and not self._first_join.done():
                    self._first_join.set_result(None)
                if event.state == "closed":
                    self._handle_closed()
                self._emit(event)
            case Error(error):
                if error.fatal and not self._first_join.done():
                    self._first_join.set_exception(error)
                self._emit(event)
            case IceServers():
                self._emit(event)
            case _:
                self._handle_frame(event)

    def _handle_joined(self, members: list[Frame]) -> None:
        self._present = {member["client_id"] for member in members}
        for member in members:
            self._add_peer(member, existing=True)
        # After a restart of the server a missing peer may reconnect later; its call goes on.
        self._remove_peers(peer for peer in self._missing_peers() if not peer.connected)
        self._cancel_missing_timer()
        loop = asyncio.get_running_loop()
        self._missing_timer = loop.call_later(
            MISSING_PEER_TIMEOUT, lambda: self._remove_peers(self._missing_peers())
        )

    def _handle_frame(self, frame: Frame) -> None:
        peer = self._peers.get(frame.get("from") or frame.get("client_id") or "")
        match frame:
            case {"type": "user_joined", "client_id": client_id}:
                self._present.add(client_id)
                self._add_peer(frame)
            case {"type": "user_left", "client_id": client_id}:
                self._present.discard(client_id)
                if peer:
                    self._remove_peers([peer])
            case {"type": "peer_state", "state": state} if peer:
                self._emit(PeerState(peer, state))
            case {"type": "message"} if peer:
                self._emit(Message(peer, frame.get("data")))
            case {"type": "server_message"}:
                self._emit(ServerMessage(frame.get("data")))
            case {"type": "offer" | "answer" as kind} if peer:
                self._emit(Signal(peer, kind, frame.get(kind)))
            case {"type": "ice_candidate"} if peer:
                # The end of candidates may be null, empty or left out; here it is always None.
                self._emit(Signal(peer, "ice_candidate", frame.get("candidate") or None))

    def _add_peer(self, member: Frame, *, existing: bool = False) -> None:
        known = self._peers.get(member["client_id"])
        if known:
            # The latest roles, which the server has sent to the peer too: they must not clash.
            known.username, known.polite = member["username"], member["polite"]
            known.name = member.get("name")
            return
        peer = Peer(
            member["client_id"], member["username"], member["polite"], name=member.get("name")
        )
        self._peers[peer.id] = peer
        self._emit(PeerJoined(peer, existing))

    def _missing_peers(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.id not in self._present]

    def _remove_peers(self, peers: Iterable[Peer]) -> None:
        for peer in list(peers):
            del self._peers[peer.id]
            self._emit(PeerLeft(peer))

    def _handle_closed(self) -> None:
        self._cancel_missing_timer()
        self._remove_peers(self._peers.values())
        if not self._first_join.done():
            self._first_join.cancel()

    def _cancel_missing_timer(self) -> None:
        if self._missing_timer:
            self._missing_timer.cancel()

    def _emit(self, event: Event) -> None:
        # No task can read events before the first join, which may take long.
        if not self._first_join.done():
            if isinstance(event, Error):
                log.warning("not joined yet: %s", event.error.code)
            return
        self._events.append(event)
        if len(self._events) > MAX_QUEUED_EVENTS:
            self._events.popleft()
            if not self._dropped_events:
                log.warning("event queue overflow: no task iterates over %r", self)
            self._dropped_events += 1
        self._has_event.set()
