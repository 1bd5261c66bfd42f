"""Outgoing frames that may have to be sent, or sent again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeAlias

from .events import SignalError

Frame: TypeAlias = dict[str, Any]

ACK_BYTES = len(',"ack":18446744073709551615')
"""What an acknowledgement may add to a frame."""

MAX_FRAMES = 200
"""How many frames are kept; beyond that the oldest is dropped."""


class SendBuffer:
    """The frames that are unsent, or sent and not yet confirmed by a pong.

    Each carries an `id`. The server discards a frame whose id it has already relayed, so a frame
    may be sent again after a resume.
    """

    def __init__(self) -> None:
        """An empty buffer."""
        self._frames: deque[str] = deque()
        self._last_id = 0
        # How many of the frames the awaited pong will confirm.
        self._pinged: int | None = None

    def __iter__(self) -> Iterator[str]:
        """The kept frames as JSON, oldest first."""
        return iter(self._frames)

    @property
    def is_pong_awaited(self) -> bool:
        """Whether a ping was sent on this socket and not answered yet."""
        return self._pinged is not None

    def append(self, frame: Frame, max_bytes: int | None) -> str:
        """Numbers a frame, keeps it and returns it as JSON.

        Raises TypeError or ValueError for what is not JSON, and SignalError for what is longer than
        `max_bytes`.
        """
        text = encode({**frame, "id": self._last_id + 1})
        if error := size_error(text, max_bytes):
            raise error
        self._last_id += 1
        self._frames.append(text)
        if len(self._frames) > MAX_FRAMES:
            self._frames.popleft()
            if self._pinged:
                self._pinged -= 1
        return text

    def mark_pinged(self) -> None:
        """The next pong will confirm all frames that are kept now."""
        self._pinged = len(self._frames)

    def confirm_pinged(self) -> None:
        """Removes the frames that were kept at the time of the ping: they have arrived."""
        for _ in range(self._pinged or 0):
            self._frames.popleft()
        self._pinged = None

    def forget_ping(self) -> None:
        """No pong is awaited any more: the ping belonged to another socket."""
        self._pinged = None

    def remove_larger(self, max_bytes: int | None) -> list[SignalError]:
        """Removes the frames that are longer than `max_bytes`. No pong may be awaited."""
        errors = [(text, size_error(text, max_bytes)) for text in self._frames]
        self._frames = deque(text for text, error in errors if not error)
        return [error for _, error in errors if error]

    def clear(self) -> None:
        """Removes all frames."""
        self._frames.clear()


def size_error(text: str, max_bytes: int | None) -> SignalError | None:
    """The error for a frame that the server would discard for its size; None if it is not known."""
    length = len(text.encode()) + ACK_BYTES
    if max_bytes is None or length <= max_bytes:
        return None
    reason = f"a message of {length} bytes is longer than the {max_bytes} that the server accepts"
    return SignalError("message_too_big", reason)


def encode(frame: Frame) -> str:
    """A frame as JSON. Raises TypeError or ValueError for what is not JSON."""
    text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # raises for a lone surrogate: the caller should get that error, not the socket
    return text
