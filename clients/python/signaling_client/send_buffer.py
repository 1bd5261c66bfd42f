"""Outgoing frames that may have to be sent, or sent again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from .events import SignalError

Frame: TypeAlias = dict[str, Any]

ACK_BYTES = len(',"ack":18446744073709551615')
"""What an acknowledgement may add to a frame."""

MAX_FRAMES = 200
"""How many frames are kept; beyond that the oldest is dropped."""


class SendBuffer:
    """The frames that are unsent, or sent and neither confirmed by a pong nor refused.

    Each carries an `id`. The server discards a frame whose id it has already relayed, so a frame
    may be sent again after a resume.
    """

    def __init__(self) -> None:
        """An empty buffer."""
        # By id, in the order of sending.
        self._frames: dict[int, str] = {}
        self._last_id = 0
        # The last of the frames that the awaited pong will confirm.
        self._pinged: int | None = None

    def __iter__(self) -> Iterator[str]:
        """The kept frames as JSON, oldest first."""
        return iter(self._frames.values())

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
        self._frames[self._last_id] = text
        if len(self._frames) > MAX_FRAMES:
            del self._frames[next(iter(self._frames))]
        return text

    def refuse(self, frame_id: object) -> None:
        """Removes a frame that the server has refused.

        After a resume it would arrive, late and behind those that followed it.
        """
        if isinstance(frame_id, int):
            self._frames.pop(frame_id, None)

    def mark_pinged(self) -> None:
        """The next pong will confirm all frames that are kept now."""
        self._pinged = self._last_id

    def confirm_pinged(self) -> None:
        """Removes the frames that were kept at the time of the ping: they have arrived."""
        confirmed = self._pinged or 0
        self._frames = {number: text for number, text in self._frames.items() if number > confirmed}
        self._pinged = None

    def forget_ping(self) -> None:
        """No pong is awaited any more: the ping belonged to another socket."""
        self._pinged = None

    def remove_larger(self, max_bytes: int | None) -> list[SignalError]:
        """Removes the frames that are longer than `max_bytes`. No pong may be awaited."""
        errors = {number: size_error(text, max_bytes) for number, text in self._frames.items()}
        self._frames = {n: text for n, text in self._frames.items() if not errors[n]}
        return [error for error in errors.values() if error]

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
