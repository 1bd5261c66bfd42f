"""One membership of one room over as many WebSockets as it takes (docs/build/protocol.md).

The states and clocks are those of docs/build/clients.md. Knows no WebRTC.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

from .events import Error, IceServers, SignalError, State, StateName
from .wire import Closed, OpenSocket, Socket, open_socket

log = logging.getLogger("signaling_client")

Frame: TypeAlias = dict[str, Any]

GetToken: TypeAlias = Callable[[bool], str | Awaitable[str]]
"""Gives a token; asked with True after one was refused or is about to run out. Called on the event
loop, so a plain function must not block. A fatal :class:`SignalError` from it says that there will
be none, and ends the session; after anything else it is asked again."""

# All in seconds.
PING_EVERY = 15.0
PONG_WITHIN = 10.0
FIRST_PAUSE = 0.3
LONGEST_PAUSE = 15.0
RENEW_BEFORE = 60.0
RENEW_AGAIN = 15.0
LEAVE_WITHIN = 3.0

MOST_KEPT = 200
"""Frames that wait for a socket, and that may have to be said again."""
ACK_AFTER = 32
"""Unacknowledged frames that make us say so on our own."""
FEATURES = ["resume", "peer_state", "ice"]
TOKEN_REASONS = {"Invalid token", "Token expired"}
"""Closes after which a token makes the difference: once, a fresh one is tried."""
RETRIED = {1001, 1005, 1006, 1011, 1012, 1013, 1014}


@dataclass(frozen=True, slots=True)
class Joined:
    """We sit down anew, among these."""

    members: list[Frame]


News: TypeAlias = Joined | State | Error | IceServers | Frame
"""What a membership tells; a frame is one that it has no business with."""


def pause_before(number: int, share: float) -> float:
    """Seconds to wait before attempt `number`: a `share`, 0 to 1, of twice as much each time."""
    # Far beyond the longest pause, 2 ** number is no float any more.
    return share * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(number, 16))


def expiry_of(token: str) -> float | None:
    """When a JWT runs out, in seconds since the epoch; None if it does not say."""
    try:
        claims = token.split(".")[1]
        expiry = json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"]
        return float(expiry)
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def renewal_in(token: str, now: float) -> float | None:
    """Seconds until a token that is good at `now` should be renewed; None for any other."""
    left = (expiry_of(token) or now) - now
    return max(1.0, left - min(RENEW_BEFORE, left / 2)) if left > 0 else None


def address(url: str, room: str) -> str:
    """Where `room` is on the server at `url`; raises ValueError where that is no address."""
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{url!r} is not the address of a server, such as https://example.com")
    path = parts.path.removesuffix("/")
    return f"{schemes[parts.scheme]}://{parts.netloc}{path}/ws/{quote(room, safe='')}"


class Membership:
    """Enters a room when :meth:`live` begins, and stays in until it ends. Tells `tell` about it."""

    def __init__(
        self,
        url: str,
        room: str,
        tell: Callable[[News], None],
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        client_id: str | None = None,
        open_socket: OpenSocket = open_socket,
    ) -> None:
        """Does nothing yet; raises ValueError where `url` is no address of a server."""
        self.client_id = client_id
        self.username: str | None = None
        self.ice_servers: list[Frame] = []
        self.state: StateName = "connecting"

        self._url = address(url, room)
        self._tell = tell
        self._given_token = token
        self._get_token = get_token
        self._open_socket = open_socket

        self._socket: Socket | None = None
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._is_seated = asyncio.Event()
        # When we ping or, waiting for something, give up; in the loop's time.
        self._deadline = 0.0
        self._attempt = 0
        self._reconnect_in: float | None = None
        self._last_error: Frame = {}

        self._resume_token: str | None = None
        self._last_seq = 0
        self._acked = 0
        # Up to here, what comes was meant for the socket before.
        self._replayed_to = 0

        # Said and perhaps not heard, and what waits for a socket: JSON objects with an id each.
        self._kept: deque[str] = deque()
        self._next_id = 0
        # How many of `_kept` the pong that is awaited answers for.
        self._pinged: int | None = None

        self._renew = False
        self._has_renewed = False
        self._refresher: asyncio.Task[None] | None = None

    # --- what a session says ----------------------------------------------------------------------

    def say(self, frame: Frame) -> None:
        """Says something, in order, also over a reconnect; to nobody when the session is over.

        Raises TypeError or ValueError for what is not JSON.
        """
        if self.state == "closed":
            return
        # An id makes it safe to say again what may have arrived.
        text = _encode({**frame, "id": self._next_id + 1})
        self._next_id += 1
        self._kept.append(text)
        if len(self._kept) > MOST_KEPT:
            self._kept.popleft()
            if self._pinged:
                self._pinged -= 1
        if self._is_seated.is_set():
            self._send(text)

    async def leave(self) -> None:
        """Says what is still to be said, and goodbye. The state is `closed` at once."""
        if self.state == "closed":
            return
        self._become(State("closed", code=1000))
        socket, self._socket = self._socket, None
        if socket:
            try:
                async with asyncio.timeout(LEAVE_WITHIN):
                    await self._outbox.join()
                    await socket.close()
            except TimeoutError:
                pass  # whoever cancels `live` lets go of it

    # --- the life of a session --------------------------------------------------------------------

    async def live(self) -> None:
        """Goes on until the session is over. To be cancelled after :meth:`leave`."""
        try:
            while self.state != "closed":
                closed = await self._sit()
                pause = self._lost(closed)
                if pause is not None:
                    await asyncio.sleep(pause)
        except Exception as fault:
            # A session must not stand there as if it were well.
            log.exception("the session ends")
            self._fail(SignalError("internal_error", f"{type(fault).__name__}: {fault}", True))
        finally:
            if self._refresher:
                self._refresher.cancel()
                await asyncio.wait([self._refresher])

    async def _sit(self) -> Closed:
        """One socket's life, and how it ended."""
        self._last_error = {}
        self._outbox = asyncio.Queue()
        # A socket that neither opens nor fails would be waited for without end.
        self._expect(PONG_WITHIN)
        try:
            async with asyncio.timeout_at(self._deadline):
                socket = await self._open_socket(self._url)
        except Closed as closed:
            return closed
        except TimeoutError:
            return Closed(1006, "Nothing heard")
        self._socket = socket
        writer = asyncio.create_task(_write(socket, self._outbox))
        try:
            return await self._listen(socket)
        finally:
            self._is_seated.clear()
            self._socket = None
            writer.cancel()
            await socket.abort()
            await asyncio.wait([writer])

    async def _listen(self, socket: Socket) -> Closed:
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._heard(json.loads(await socket.recv()))
            except Closed as closed:
                return closed
            except TimeoutError:
                if not self._is_seated.is_set() or self._pinged is not None:
                    return Closed(1006, "Nothing heard")
                self._ping()

    def _lost(self, closed: Closed) -> float | None:
        """What the end of a socket means: a pause in seconds, or None for the end of it all."""
        if self.state == "closed":
            return None
        code, reason, error = closed.code, closed.reason, self._last_error
        retry = error.get("retry")
        may_renew = self._get_token and reason in TOKEN_REASONS and not self._has_renewed
        if may_renew:
            self._renew = self._has_renewed = True
            self._resume_token = None
        elif not (retry if retry is not None else code in RETRIED):
            message = error.get("message") or reason or f"Closed with {code}"
            self._fail(SignalError(error.get("code", "closed"), message, True), code, reason)
            return None
        pause = self._reconnect_in
        if pause is None:
            pause = pause_before(self._attempt, random.random())
            self._attempt += 1
        self._reconnect_in = None
        state: StateName = "connecting" if self.state == "connecting" else "reconnecting"
        self._become(State(state, retry_in=pause, code=code, reason=reason))
        return pause

    def _fail(self, error: SignalError, code: int | None = None, reason: str = "") -> None:
        if self.state != "closed":
            self._tell(Error(error))
            self._become(State("closed", code=code, reason=reason))

    def _become(self, state: State) -> None:
        log.info("%s", state)
        self.state = state.state
        if state.state != "connected":
            self._is_seated.clear()
        self._tell(state)

    # --- what the server says ---------------------------------------------------------------------

    async def _heard(self, frame: Frame) -> None:
        if self.state == "closed":
            return
        seq = frame.get("seq")
        if seq:
            self._last_seq = seq
            if self._last_seq - self._acked >= ACK_AFTER and self._pinged is None:
                self._ping()
        if self._is_seated.is_set():
            self._expect(PING_EVERY if self._pinged is None else PONG_WITHIN)
        match frame:
            case {"type": "auth_required"}:
                if self._resume_token is None:
                    await self._introduce()
                else:
                    token, last = self._resume_token, self._last_seq
                    self._send(_encode({"type": "resume", "resume_token": token, "last_seq": last}))
            case {"type": "auth_success", "client_id": client_id, "user": user}:
                self.client_id, self.username = client_id, user
                self._last_seq = self._acked = self._replayed_to = 0
                self._take(frame)
            case {"type": "users_in_room", "users": members}:
                # What was said in another life is no use to anybody.
                if self.state == "reconnecting":
                    self._kept.clear()
                self._seated(resumed=False)
                self._tell(Joined(members))
            case {"type": "resumed"}:
                self._replayed_to = self._last_seq + frame.get("replayed", 0)
                self._take(frame)
                self._seated(resumed=True)
                for said in self._kept:
                    self._send(said)
            case {"type": "token_refreshed" | "ice_servers"}:
                self._take(frame)
            case {"type": "pong"}:
                # An answer to what was asked on another socket says nothing about this one.
                if seq is None or seq > self._replayed_to:
                    for _ in range(self._pinged or 0):
                        self._kept.popleft()
                    self._pinged = None
                    self._expect(PING_EVERY)
            case {"type": "server_shutdown"}:
                self._reconnect_in = _seconds(frame.get("reconnect_in_ms"))
            case {"type": "error", "code": "resume_failed"}:
                self._resume_token = None
                await self._introduce()
            case {"type": "error"} if "retry" in frame or not self._is_seated.is_set():
                self._last_error = frame
                if self._reconnect_in is None:
                    self._reconnect_in = _seconds(frame.get("retry_after_ms"))
            case {"type": "error"}:
                code, message = frame.get("code", "error"), frame.get("message", "")
                self._tell(Error(SignalError(code, message)))
            case _:
                self._tell(frame)

    def _take(self, frame: Frame) -> None:
        self._resume_token = frame.get("resume_token", self._resume_token)
        if servers := frame.get("iceServers"):
            self.ice_servers = servers
            self._tell(IceServers(servers))

    def _seated(self, *, resumed: bool) -> None:
        self._is_seated.set()
        self._attempt = 0
        self._has_renewed = False
        self._pinged = None
        self._expect(PING_EVERY)
        self._become(State("connected", resumed=resumed))

    # --- tokens -----------------------------------------------------------------------------------

    async def _introduce(self) -> None:
        try:
            token = await self._token(self._renew)
        except Exception as error:
            why = _no_token(error, may_end=True)
            if why.fatal:
                self._fail(why)
            else:
                self._tell(Error(why))
                if self._reconnect_in is None:
                    self._reconnect_in = why.retry_after
            raise Closed(1006, "No token") from error
        self._renew = False
        shown = {"token": token, "clientId": self.client_id}
        given = {name: value for name, value in shown.items() if value is not None}
        self._send(_encode({"type": "auth_token", **given, "features": FEATURES}))
        if self._refresher:
            self._refresher.cancel()
        if token is not None and self._get_token:
            self._refresher = asyncio.create_task(self._keep_fresh(token))

    async def _token(self, renew: bool) -> str | None:
        if self._get_token is None:
            return self._given_token
        token = self._get_token(renew)
        return await token if inspect.isawaitable(token) else token

    async def _keep_fresh(self, token: str) -> None:
        """Shows a new token a minute before the old one runs out."""
        pause = renewal_in(token, time.time())
        while pause is not None:
            await asyncio.sleep(pause)
            await self._is_seated.wait()  # without a network there is no new one either
            try:
                token = await self._token(True) or token
            except Exception as error:
                why = _no_token(error, may_end=False)
                self._tell(Error(why))
                pause = why.retry_after or RENEW_AGAIN
                continue
            await self._is_seated.wait()
            self._send(_encode({"type": "auth_token", "token": token}))
            pause = renewal_in(token, time.time())

    # --- the socket -------------------------------------------------------------------------------

    def _send(self, text: str) -> None:
        if self._is_seated.is_set() and self._last_seq > self._acked:
            self._acked = self._last_seq
            text = f'{text[:-1]},"ack":{self._acked}}}'
        # A socket that takes nothing is given up at the next ping, and what is here goes with it.
        self._outbox.put_nowait(text)

    def _ping(self) -> None:
        self._pinged = len(self._kept)
        self._send(_encode({"type": "ping"}))
        self._expect(PONG_WITHIN)

    def _expect(self, within: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + within


async def _write(socket: Socket, outbox: asyncio.Queue[str]) -> None:
    while True:
        text = await outbox.get()
        try:
            await socket.send(text)
        except Closed:
            pass  # who listens hears of it
        finally:
            outbox.task_done()


def _no_token(error: Exception, *, may_end: bool) -> SignalError:
    """Why there is no token now; what is thrown of our own kind may say that there will be none."""
    if isinstance(error, SignalError) and (may_end or not error.fatal):
        return error
    return SignalError("no_token", f"get_token: {str(error) or type(error).__name__}")


def _encode(frame: Frame) -> str:
    text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # half a surrogate pair is no text: the caller should hear of it, not the socket
    return text


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
