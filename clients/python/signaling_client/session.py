"""One room, and everyone else in it."""

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
from .signal import Frame, GetToken, Joined, Membership, News
from .wire import OpenSocket, open_socket

log = logging.getLogger("signaling_client")

MISSING_FOR = 30.0
"""Seconds for which a connected peer may be missing after we had to sit down anew."""
MOST_EVENTS = 1_000
"""Events that wait for somebody to iterate."""


def connect(
    url: str,
    room: str,
    *,
    token: str | None = None,
    get_token: GetToken | None = None,
    client_id: str | None = None,
) -> Connecting:
    """Enters `room` on the server at `url`: ``await`` it, or use it with ``async with``.

    `token` is one that ``POST /auth/login`` gave; `get_token(renew)`, a function or a coroutine
    function, is asked whenever one is needed, and with True where it has to be a new one. Without
    both we are a guest. `client_id` is unique in its room; the server chooses where it is left out.

    Raises SignalError if the server does not let us in, ValueError if `url` is none. While the
    server cannot be reached, this goes on trying.
    """
    return Connecting(url, room, token, get_token, client_id)


class Connecting:
    """What :func:`connect` gives: awaited, or entered with ``async with``, it is a session."""

    def __init__(
        self,
        url: str,
        room: str,
        token: str | None,
        get_token: GetToken | None,
        client_id: str | None,
        open_socket: OpenSocket = open_socket,
    ) -> None:
        """Does nothing yet."""
        self._url, self._room = url, room
        self._token, self._get_token, self._client_id = token, get_token, client_id
        self._open_socket = open_socket
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        """Waits until we are in."""
        return self._enter().__await__()

    async def __aenter__(self) -> Session:
        """Waits until we are in."""
        self._session = await self._enter()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves."""
        if self._session:
            await self._session.close()

    async def _enter(self) -> Session:
        session = Session(self)
        try:
            await session._entered
        except BaseException:
            await session.close()
            raise
        return session


class Session:
    """A place in a room, until :meth:`close` or a fatal error. Made by :func:`connect`.

    Iterate over it for its events, until it is closed: that we are in, a :class:`PeerJoined` for
    everyone who was there, and then what happens, in order. There is one queue, so let one task
    iterate. It holds 1,000 events; where nobody comes for them the oldest go, which is said in the
    log, and by an :class:`Error` `events_lost` in their place.
    """

    def __init__(self, how: Connecting) -> None:
        """Begins to enter; of the running event loop."""
        self._peers: dict[str, Peer] = {}
        # Who is there by the server's word.
        self._present: set[str] = set()
        self._missing: asyncio.TimerHandle | None = None
        self._events: deque[Event] = deque()
        self._lost_events = 0
        self._news = asyncio.Event()
        self._entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._membership = Membership(
            how._url,
            how._room,
            self._told,
            token=how._token,
            get_token=how._get_token,
            client_id=how._client_id,
            open_socket=how._open_socket,
        )
        self._life = asyncio.create_task(self._membership.live())

    @property
    def peers(self) -> Mapping[str, Peer]:
        """The others, by client id."""
        return MappingProxyType(self._peers)

    @property
    def id(self) -> str:
        """Our own client id."""
        return self._membership.client_id or ""

    @property
    def username(self) -> str:
        """Our own name."""
        return self._membership.username or ""

    @property
    def state(self) -> StateName:
        """How it stands."""
        return self._membership.state

    @property
    def ice_servers(self) -> list[dict[str, Any]]:
        """What the server gave for RTCPeerConnections, in their JSON; empty if it has none."""
        return self._membership.ice_servers

    def send(self, data: Any, to: str | None = None) -> None:
        """Says any JSON value to everyone, or to the peer whose client id is `to`.

        It does not wait. What is said while there is no connection, or may not have arrived, is
        said again after a resume: the last 200 frames. After the end nobody hears it.

        Raises TypeError or ValueError if `data` is not JSON.
        """
        self._say({"type": "message", "data": data}, to)

    def signal(self, type: SignalType, payload: Any, to: str) -> None:  # noqa: A002
        """Sends a description or a candidate (None: there are no more) to `to`, as :meth:`send`."""
        self._say({"type": type, "candidate" if type == "ice_candidate" else type: payload}, to)

    async def close(self) -> None:
        """Leaves, after what has been said is on its way. May be called again, and cancelled."""
        try:
            await self._membership.leave()
        finally:
            self._life.cancel()
            await asyncio.wait([self._life])

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves."""
        await self.close()

    def __aiter__(self) -> Self:
        """Itself: see the class."""
        return self

    async def __anext__(self) -> Event:
        """The next event; may be cancelled."""
        while not self._events:
            if self.state == "closed":
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self._lost_events:
            text = f"{self._lost_events} events are gone, for nobody came for them"
            self._lost_events = 0
            return Error(SignalError("events_lost", text))
        return self._events.popleft()

    def __repr__(self) -> str:
        """Who and where; no token."""
        return f"<Session {self.id!r} {self.state}, {len(self._peers)} peers>"

    # --- what the membership tells ----------------------------------------------------------------

    def _say(self, frame: Frame, to: str | None) -> None:
        self._membership.say(frame if to is None else {**frame, "to": to})

    def _told(self, news: News) -> None:
        match news:
            case Joined(members):
                self._joined(members)
            case State():
                if news.state == "connected" and not self._entered.done():
                    self._entered.set_result(None)
                if news.state == "closed":
                    self._over()
                self._emit(news)
            case Error(error):
                if error.fatal and not self._entered.done():
                    self._entered.set_exception(error)
                self._emit(news)
            case IceServers():
                self._emit(news)
            case _:
                self._heard(news)

    def _joined(self, members: list[Frame]) -> None:
        self._present = {member["client_id"] for member in members}
        for member in members:
            self._meets(member)
        # Calls go on without a server: whoever is missing may only be slower to come back.
        self._part_from(peer for peer in self._absent() if not peer.connected)
        self._stop_waiting()
        loop = asyncio.get_running_loop()
        self._missing = loop.call_later(MISSING_FOR, lambda: self._part_from(self._absent()))

    def _heard(self, frame: Frame) -> None:
        peer = self._peers.get(frame.get("from") or frame.get("client_id") or "")
        match frame:
            case {"type": "user_joined", "client_id": client_id}:
                self._present.add(client_id)
                self._meets(frame)
            case {"type": "user_left", "client_id": client_id}:
                self._present.discard(client_id)
                if peer:
                    self._part_from([peer])
            case {"type": "peer_state", "state": state} if peer:
                self._emit(PeerState(peer, state))
            case {"type": "message"} if peer:
                self._emit(Message(peer, frame.get("data")))
            case {"type": "server_message"}:
                self._emit(ServerMessage(frame.get("data")))
            case {"type": "offer" | "answer" as kind} if peer:
                self._emit(Signal(peer, kind, frame.get(kind)))
            case {"type": "ice_candidate"} if peer:
                # The end of candidates has three spellings, and here one.
                self._emit(Signal(peer, "ice_candidate", frame.get("candidate") or None))

    def _meets(self, member: Frame) -> None:
        known = self._peers.get(member["client_id"])
        if known:
            # The server's last word, which the peer has heard too: roles must not clash.
            known.username, known.polite = member["username"], member["polite"]
            return
        peer = Peer(member["client_id"], member["username"], member["polite"])
        self._peers[peer.id] = peer
        self._emit(PeerJoined(peer))

    def _absent(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.id not in self._present]

    def _part_from(self, peers: Iterable[Peer]) -> None:
        for peer in list(peers):
            del self._peers[peer.id]
            self._emit(PeerLeft(peer))

    def _over(self) -> None:
        self._stop_waiting()
        self._part_from(self._peers.values())
        if not self._entered.done():
            self._entered.cancel()

    def _stop_waiting(self) -> None:
        if self._missing:
            self._missing.cancel()

    def _emit(self, event: Event) -> None:
        # Before we are in nobody can listen, and trying may take long.
        if not self._entered.done():
            if isinstance(event, Error):
                log.warning("not in yet: %s", event.error.code)
            return
        self._events.append(event)
        if len(self._events) > MOST_EVENTS:
            self._events.popleft()
            if not self._lost_events:
                log.warning("events are lost: nobody iterates over %r", self)
            self._lost_events += 1
        self._news.set()
