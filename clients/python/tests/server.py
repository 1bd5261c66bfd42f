"""The real server, and a TCP proxy to it that can be cut."""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import tempfile
import time
import urllib.request
from pathlib import Path
from unittest import IsolatedAsyncioTestCase

from signaling_client import Event, Message, Session, State

ROOT = Path(__file__).parents[3]
BINARY = Path(os.environ.get("SIGNALING_SERVER") or ROOT / "target/debug/signaling-server")
PASSWORD = "password123"
# In seconds; longer than anything takes, also on a busy machine.
TIMEOUT = 60.0


_children: dict[int, asyncio.subprocess.Process] = {}


async def launch(
    *command: str | Path, cwd: str | Path, env: dict[str, str]
) -> asyncio.subprocess.Process:
    """Starts a process with a pipe for its output; it is killed when this process exits."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    _children[process.pid] = process
    return process


@atexit.register
def _end_children() -> None:
    """Cleans up after an interrupted run."""
    for number, process in _children.items():
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """The server with the accounts of DEBUG, restartable on its own port and folder."""

    def __init__(self, home: str, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        # The server inherits nothing from the environment of the tests.
        self._env = {
            "PATH": os.environ["PATH"],
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DEBUG": "true",
            "REQUIRE_HTTPS": "false",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "INFO",
            "SECRET_KEY": secrets.token_hex(32),
            "JWT_SECRET_KEY": secrets.token_hex(32),
            "RATE_LIMIT_PER_MINUTE": "100000",
            "JOINS_PER_MINUTE": "0",
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    def token(self, username: str, lifetime: float) -> str:
        """A token as the server would sign it, valid for `lifetime` seconds."""
        claims = {"sub": username, "exp": int(time.time() + lifetime)}
        head, body = (_base64(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
        key = self._env["JWT_SECRET_KEY"].encode()
        signature = hmac.digest(key, f"{head}.{body}".encode(), "sha256")
        return f"{head}.{body}.{_base64(signature)}"

    async def until_members(self, room: str, number: int) -> None:
        """Waits until `room` has `number` members."""
        async with asyncio.timeout(TIMEOUT):
            while await self.members(room) != number:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def members(self, room: str) -> int:
        def fetch() -> int:
            with urllib.request.urlopen(f"{self.url}/api/rooms", timeout=TIMEOUT) as response:
                rooms = {room["room_id"]: room["connected_users"] for room in json.load(response)}
            return int(rooms.get(room, 0))

        return await asyncio.to_thread(fetch)

    async def start(self) -> None:
        if not os.access(BINARY, os.X_OK):
            raise RuntimeError(f"{BINARY} is missing: cargo build, or set SIGNALING_SERVER")
        self._process = await launch(BINARY, cwd=self._home, env=self._env)
        is_open = asyncio.Event()
        self._reading = asyncio.create_task(self._read(self._process, is_open))
        waiting = asyncio.create_task(is_open.wait())
        await asyncio.wait(
            [waiting, self._reading], timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if not is_open.is_set():
            raise RuntimeError("the server did not start")

    async def _read(self, process: asyncio.subprocess.Process, is_open: asyncio.Event) -> None:
        assert process.stdout
        async for line in process.stdout:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("fields", entry).get("message") == "listening":
                is_open.set()

    async def end(self, number: int = signal.SIGTERM) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()
        if self._reading:
            await self._reading


class Proxy:
    """Forwards TCP connections to `port`. After `cut` it drops all data, including TCP closes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.is_cut = False
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        if self.is_cut:
            client_writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {client_writer, server_writer}
        for reader, writer in (
            (client_reader, server_writer),
            (server_reader, client_writer),
        ):
            task = asyncio.create_task(self._forward(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if not self.is_cut:
                    writer.write(data)
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        self.is_cut = True

    def restore(self) -> None:
        """Forwards new connections again; the existing ones are reset."""
        self.is_cut = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def end(self) -> None:
        self.restore()
        if self._server:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks)


class Recorder:
    """Records the events of a session, as its only reader."""

    def __init__(self, session: Session) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(session))

    async def _read(self, session: Session) -> None:
        async for event in session:
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    async def until(self, kind: type[Event], number: int = 1, within: float = TIMEOUT) -> None:
        """Waits for `number` events of a kind."""
        async with self._changed, asyncio.timeout(within):
            await self._changed.wait_for(lambda: len(self.of(kind)) >= number)

    async def until_state(self, name: str, within: float = TIMEOUT) -> State:
        """Waits until the latest state is `name`."""
        async with self._changed, asyncio.timeout(within):
            await self._changed.wait_for(lambda: self.states()[-1:] == [name])
        return [event for event in self.events if isinstance(event, State)][-1]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self) -> list[str]:
        return [event.state for event in self.events if isinstance(event, State)]

    def messages(self) -> list[object]:
        return [event.data for event in self.events if isinstance(event, Message)]


class ServerCase(IsolatedAsyncioTestCase):
    """A test with real servers, which are stopped after it."""

    async def serve(self, **settings: str) -> Server:
        home = self.enterContext(tempfile.TemporaryDirectory(prefix="signaling-test-"))
        server = Server(home, **settings)
        self.addAsyncCleanup(server.end)
        await server.start()
        return server

    async def proxy(self, server: Server) -> Proxy:
        proxy = Proxy(server.port)
        self.addAsyncCleanup(proxy.end)
        await proxy.start()
        return proxy

    async def record(self, session: Session) -> Recorder:
        self.addAsyncCleanup(session.close)
        return Recorder(session)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
