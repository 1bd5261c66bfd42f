"""A clock that only tests advance, and scripted sockets."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from unittest import IsolatedAsyncioTestCase, mock

from signaling_client import Error, Event, PeerLeft, Session, State
from signaling_client.send_buffer import Frame
from signaling_client.session import Connecting
from signaling_client.tokens import GetToken
from signaling_client.websocket import Closed, Socket

BOB = {"client_id": "bob-1", "username": "bob", "polite": True}
REQUIRED = {"type": "auth_required"}
RESUME_FAILED = {"type": "error", "code": "resume_failed", "message": "too late"}


def success(**more: Any) -> Frame:
    return {
        "type": "auth_success",
        "user": "alice",
        "client_id": "alice-1",
        "resume_token": "R1",
        **more,
    }


def resumed(replayed: int = 0, **more: Any) -> Frame:
    return {"type": "resumed", "client_id": "alice-1", "replayed": replayed, "users": [BOB], **more}


def users(*members: Frame) -> Frame:
    return {"seq": 1, "type": "users_in_room", "users": list(members)}


async def settled() -> None:
    """Runs all tasks that are ready; no chain of tasks here takes more than a few steps."""
    for _ in range(30):
        await asyncio.sleep(0)


class Clock:
    """The time of the running loop, which only `advance` moves."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(False)  # debug mode is many times slower
        call_at = loop.call_at
        self.now = loop.time()
        self._timers: list[asyncio.TimerHandle] = []

        def record_timer(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            timer = call_at(*args, **kwargs)
            self._timers.append(timer)
            return timer

        loop.call_at = record_timer  # type: ignore[method-assign, assignment]
        loop.time = lambda: self.now  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            await settled()
            self._timers = [timer for timer in self.pending() if timer.when() > self.now]
            due = min((timer.when() for timer in self._timers), default=end)
            if due >= end:
                break
            self.now = due
        self.now = end
        await settled()

    def pending(self) -> list[asyncio.TimerHandle]:
        return [timer for timer in self._timers if not timer.cancelled()]


class FakeSocket:
    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: list[Frame] = []
        self.is_stuck = False
        self.is_aborted = False
        self.closed_with: int | None = None
        self._incoming: asyncio.Queue[str | Closed] = asyncio.Queue()

    async def recv(self) -> str:
        frame = await self._incoming.get()
        if isinstance(frame, Closed):
            raise frame
        return frame

    async def send(self, text: str) -> None:
        if self.is_stuck:
            await asyncio.get_running_loop().create_future()
        self.sent.append(json.loads(text))

    async def close(self) -> None:
        self.closed_with = 1000
        self._incoming.put_nowait(Closed(1000))

    async def abort(self) -> None:
        self.is_aborted = True

    async def receive(self, *frames: Frame) -> None:
        for frame in frames:
            self._incoming.put_nowait(json.dumps(frame))
        await settled()

    async def drop(self, code: int = 1006, reason: str = "") -> None:
        self._incoming.put_nowait(Closed(code, reason))
        await settled()

    def sent_of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.sent if frame["type"] == kind]


class ScriptedCase(IsolatedAsyncioTestCase):
    """A test on its own clock, where every random number is one half."""

    async def asyncSetUp(self) -> None:
        self.enterContext(mock.patch.object(random, "random", lambda: 0.5))
        self.clock = Clock()
        self.sockets: list[FakeSocket] = []
        self.events: list[Event] = []
        self._reader: asyncio.Task[None] | None = None
        self._connecting: list[asyncio.Task[Session]] = []

    async def asyncTearDown(self) -> None:
        for connecting in self._connecting:
            connecting.cancel()
            await asyncio.wait([connecting])
            if not connecting.cancelled() and not connecting.exception():
                await connecting.result().close()
        if self._reader:
            await self._reader
        left_over = asyncio.all_tasks() - {asyncio.current_task()}
        self.assertEqual(left_over, set(), "tasks are left over")
        self.assertEqual([t for t in self.clock.pending() if t.when() > self.clock.now], [])

    @property
    def socket(self) -> FakeSocket:
        return self.sockets[-1]

    async def open(self, url: str) -> Socket:
        self.sockets.append(FakeSocket(url))
        return self.socket

    async def start(
        self,
        url: str = "https://example.com/calls/",
        room: str = "den",
        token: str | None = "T",
        get_token: GetToken | None = None,
        client_id: str | None = None,
    ) -> asyncio.Task[Session]:
        async def connect() -> Session:
            return await Connecting(url, room, token, get_token, client_id, self.open)

        self._connecting.append(asyncio.create_task(connect()))
        await settled()
        return self._connecting[-1]

    async def join(self, welcome: Frame | None = None, **options: Any) -> Session:
        """A connected session with Bob in the room; its events from now on are in `events`."""
        connecting = await self.start(**options)
        await self.socket.receive(REQUIRED)
        await self.socket.receive(welcome or success(), users(BOB))
        session = await connecting
        await self.read(session)
        self.events.clear()
        return session

    async def read(self, session: Session) -> None:
        """Adds the events of a new session to `events`, from its beginning."""

        async def read() -> None:
            async for event in session:
                self.events.append(event)

        self._reader = asyncio.create_task(read())
        await settled()

    async def reconnect(self, after: float = 0.15) -> None:
        """Drops the socket, and opens the next one up to `auth_required`."""
        await self.socket.drop()
        await self.clock.advance(after)
        await self.socket.receive(REQUIRED)

    def states(self) -> list[State]:
        return [event for event in self.events if isinstance(event, State)]

    def errors(self) -> list[tuple[str, bool]]:
        return [(e.error.code, e.error.fatal) for e in self.events if isinstance(e, Error)]

    def left(self) -> list[str]:
        return [event.peer.id for event in self.events if isinstance(event, PeerLeft)]
