"""A WebSocket as a membership needs it, over any release of `websockets` from 10.4 on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import websockets
from websockets.exceptions import ConnectionClosed, WebSocketException

# At DEBUG, websockets writes every frame into the log, and with them tokens.
_quiet = logging.getLogger("signaling_client.websocket")
_quiet.setLevel(logging.INFO)


class Closed(Exception):  # noqa: N818  (an end is no error)
    """The socket is gone, or never opened (1006)."""

    def __init__(self, code: int, reason: str = "") -> None:
        """Takes the close code (RFC 6455, section 7.4) and the reason that came with it."""
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Socket(Protocol):
    """One WebSocket."""

    async def recv(self) -> str | bytes:
        """Waits for the next frame; raises :class:`Closed` after the last. May be cancelled."""

    async def send(self, text: str) -> None:
        """Sends a frame; raises :class:`Closed`."""

    async def close(self) -> None:
        """Leaves: a Close frame with 1000, and the server's answer."""

    async def abort(self) -> None:
        """Lets go without a Close frame, for that would give up the seat. Harmless when closed."""


class OpenSocket(Protocol):
    """Opens a WebSocket; raises :class:`Closed`. May be cancelled."""

    async def __call__(self, url: str) -> Socket:
        """Opens the one at `url`."""


async def open_socket(url: str) -> Socket:
    """Opens a WebSocket with `websockets`."""
    try:
        connection = await websockets.connect(
            url,
            compression=None,
            open_timeout=None,  # whose time runs out is the caller's business
            ping_interval=None,  # the protocol has its own, and a failed one must not say goodbye
            close_timeout=1,
            max_size=None,  # the server has a limit
            logger=_quiet,
        )
    except (OSError, WebSocketException) as error:
        raise Closed(1006, f"{type(error).__name__}: {error}") from error
    return _WebSocket(connection)


class _WebSocket:
    def __init__(self, connection: Any) -> None:
        # Of one class in release 10.4 and of another since 14: what is used here, both have.
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
        # In a task of its own: that of 10.4 swallows a cancellation.
        self._closing = asyncio.create_task(self._connection.close(1000))
        await asyncio.shield(self._closing)

    async def abort(self) -> None:
        self._connection.transport.abort()
        await self._connection.wait_closed()
        # Waits for what 10.4 has running beside it.
        await (self._closing or self._connection.close())

    def _closed(self) -> Closed:
        return Closed(self._connection.close_code or 1006, self._connection.close_reason or "")
