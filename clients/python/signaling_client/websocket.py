"""The WebSocket interface that a membership needs, over any release of `websockets` since 10.4."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import websockets
from websockets.exceptions import ConnectionClosed, WebSocketException

# At DEBUG, websockets logs every frame, and tokens with them.
_quiet = logging.getLogger("signaling_client.websocket")
_quiet.setLevel(logging.INFO)


class Closed(Exception):  # noqa: N818  (a close is not always an error)
    """The socket is closed, or failed to open (1006)."""

    def __init__(self, code: int, reason: str = "") -> None:
        """Takes the close code (RFC 6455, section 7.4) and the close reason."""
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Socket(Protocol):
    """One WebSocket."""

    async def recv(self) -> str | bytes:
        """Returns the next frame; raises :class:`Closed` after the last. May be cancelled."""

    async def send(self, text: str) -> None:
        """Sends a frame; raises :class:`Closed`."""

    async def close(self) -> None:
        """Sends a Close frame with 1000, which leaves the room, and waits for the answer."""

    async def abort(self) -> None:
        """Drops the connection without a Close frame, which would leave the room. Idempotent."""


class OpenSocket(Protocol):
    """Opens a WebSocket; raises :class:`Closed`. May be cancelled."""

    async def __call__(self, url: str) -> Socket:
        """Opens a WebSocket to `url`."""


async def open_socket(url: str) -> Socket:
    """Opens a WebSocket with `websockets`."""
    try:
        connection = await websockets.connect(
            url,
            compression=None,
            open_timeout=None,  # the caller sets the timeout
            ping_interval=None,  # the protocol has its own ping; this one would send a Close frame
            close_timeout=1,
            max_size=None,  # the server limits the size
            logger=_quiet,
        )
    except (OSError, WebSocketException) as error:
        raise Closed(1006, f"{type(error).__name__}: {error}") from error
    return _WebSocket(connection)


class _WebSocket:
    def __init__(self, connection: Any) -> None:
        # The class differs between releases 10.4 and 14; both have what is used here.
        self._connection = connection
        self._closing: asyncio.Task[None] | None = None

    async def recv(self) -> str | bytes:
        try:
            frame: str | bytes = await self._connection.recv()
            return frame
        except ConnectionClosed:
            raise self._closed() from None

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed:
            raise self._closed() from None

    async def close(self) -> None:
        # In a task of its own, because close() of release 10.4 swallows a cancellation.
        self._closing = asyncio.create_task(self._connection.close(1000))
        await asyncio.shield(self._closing)

    async def abort(self) -> None:
        self._connection.transport.abort()
        await self._connection.wait_closed()
        # Waits for the background tasks of release 10.4.
        await (self._closing or self._connection.close())

    def _closed(self) -> Closed:
        return Closed(self._connection.close_code or 1006, self._connection.close_reason or "")
