"""A clock that only tests move, and sockets whose other end is the test."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from unittest import IsolatedAsyncioTestCase, mock

from signaling_client import Error, Event, PeerLeft, Session, State
from signaling_client.session import Connecting
from signaling_client.signal import Frame, GetToken
from signaling_client.wire import Closed, Socket

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
    """Lets everything run that needs no time; here nothing waits for more than a few steps."""
    for _ in range(30):
        await asyncio.sleep(0)


class Clock:
    """The running loop's time, which stands still but for `passes`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(False)  # it is many times slower so
        call_at = loop.call_at
        self.now = loop.time()
        self._timers: list[asyncio.TimerHandle] = []

        def noted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            timer = call_at(*args, **kwargs)
            self._timers.append(timer)
            return timer

        loop.call_at = noted  # type: ignore[method-assign, assignment]
        loop.time = lambda: self.now  # type: ignore[method-assign]

    async def passes(self, seconds: float) -> None:
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
        self._heard: asyncio.Queue[str | Closed] = asyncio.Queue()

    async def recv(self) -> str:
        heard = await self._heard.get()
        if isinstance(heard, Closed):
            raise heard
        return heard

    async def send(self, text: str) -> None:
        if self.is_stuck:
            await asyncio.get_running_loop().create_future()
        self.sent.append(json.loads(text))

    async def close(self) -> None:
        self.closed_with = 1000
        self._heard.put_nowait(Closed(1000))

    async def abort(self) -> None:
        self.is_aborted = True

    async def says(self, *frames: Frame) -> None:
        for frame in frames:
            self._heard.put_nowait(json.dumps(frame))
        await settled()

    async def breaks(self, code: int = 1006, reason: str = "") -> None:
        self._heard.put_nowait(Closed(code, reason))
        await settled()

    def said(self, kind: str) -> list[Frame]:
        return [frame for frame in self.sent if frame["type"] == kind]


class ScriptedCase(IsolatedAsyncioTestCase):
    """A test on its own clock, where chance is always one half."""

    async def asyncSetUp(self) -> None:
        self.enterContext(mock.patch.object(random, "random", lambda: 0.5))
        self.clock = Clock()
        self.sockets: list[FakeSocket] = []
        self.told: list[Event] = []
        self._reader: asyncio.Task[None] | None = None
        self._joining: list[asyncio.Task[Session]] = []

    async def asyncTearDown(self) -> None:
        for joining in self._joining:
            joining.cancel()
            await asyncio.wait([joining])
            if not joining.cancelled() and not joining.exception():
                await joining.result().close()
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

    async def begin(
        self,
        url: str = "https://example.com/calls/",
        room: str = "den",
        token: str | None = "T",
        get_token: GetToken | None = None,
        client_id: str | None = None,
    ) -> asyncio.Task[Session]:
        async def join() -> Session:
            return await Connecting(url, room, token, get_token, client_id, self.open)

        self._joining.append(asyncio.create_task(join()))
        await settled()
        return self._joining[-1]

    async def enter(self, **options: Any) -> Session:
        """A session that is in, with Bob there; what it tells from now on is in `told`."""
        joining = await self.begin(**options)
        await self.socket.says(REQUIRED)
        await self.socket.says(success(), users(BOB))
        session = await joining

        async def read() -> None:
            async for event in session:
                self.told.append(event)

        self._reader = asyncio.create_task(read())
        await settled()
        self.told.clear()
        return session

    async def comes_back(self, after: float = 0.15) -> None:
        """The socket breaks, and another one is there and asks who we are."""
        await self.socket.breaks()
        await self.clock.passes(after)
        await self.socket.says(REQUIRED)

    def states(self) -> list[State]:
        return [event for event in self.told if isinstance(event, State)]

    def errors(self) -> list[tuple[str, bool]]:
        return [(e.error.code, e.error.fatal) for e in self.told if isinstance(e, Error)]

    def left(self) -> list[str]:
        return [event.peer.id for event in self.told if isinstance(event, PeerLeft)]
