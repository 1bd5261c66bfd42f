"""Keeps one membership of one room over successive WebSockets (docs/build/protocol.md).

The states and timers are those of docs/build/clients.md. It knows nothing of WebRTC.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from .events import Error, IceServers, IceTransportPolicy, SignalError, State, StateName
from .reconnect import RETRIED_CODES, TOKEN_ERRORS, TOKEN_REASONS, retry_delay
from .send_buffer import Frame, SendBuffer, encode
from .tokens import GetToken, lifetime_of, renewal_delay, token_error
from .websocket import Closed, OpenSocket, Socket, open_socket

log = logging.getLogger("signaling_client")

# All in seconds.
PING_INTERVAL = 15.0
RESPONSE_TIMEOUT = 10.0
"""From a ping to the next frame, and from opening a socket to joining."""
REFRESH_RETRY_DELAY = 15.0
LEAVE_TIMEOUT = 3.0

ACK_AFTER = 32
"""So many unacknowledged frames make the client send a ping, which carries the acknowledgement."""
FEATURES = ["resume", "peer_state", "ice", "limits"]


@dataclass(frozen=True, slots=True)
class Joined:
    """The client has joined without resuming; `members` are the others."""

    members: list[Frame]


MembershipEvent: TypeAlias = Joined | State | Error | IceServers | Frame
"""What a membership reports. A frame is one that the membership does not handle itself."""


def room_url(url: str, room: str) -> str:
    """The WebSocket URL of `room`. Raises ValueError if `url` is not the URL of a server."""
    parts = urlsplit(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"{url!r} is not the URL of a server, such as https://example.com")
    path = parts.path.removesuffix("/")
    return f"{schemes[parts.scheme]}://{parts.netloc}{path}/ws/{quote(room, safe='')}"


class Membership:
    """Joins a room when :meth:`run` starts and stays in it until that ends; reports to `emit`."""

    def __init__(
        self,
        url: str,
        room: str,
        emit: Callable[[MembershipEvent], None],
        *,
        token: str | None = None,
        get_token: GetToken | None = None,
        client_id: str | None = None,
        open_socket: OpenSocket = open_socket,
    ) -> None:
        """Opens no socket yet. Raises ValueError if `url` is not the URL of a server."""
        self.client_id = client_id
        self.username: str | None = None
        self.ice_servers: list[Frame] = []
        self.ice_transport_policy: IceTransportPolicy = "all"
        self.state: StateName = "connecting"

        self._url = room_url(url, room)
        self._emit = emit
        self._fixed_token = token
        self._get_token = get_token
        self._open_socket = open_socket

        self._socket: Socket | None = None
        self._send_queue: asyncio.Queue[str] = asyncio.Queue()
        self._is_joined = asyncio.Event()
        # When to send a ping or, while a response is awaited, to abandon the socket; loop time.
        self._deadline = 0.0
        self._attempt = 0
        self._reconnect_in: float | None = None
        self._last_error: Frame = {}

        self._resume_token: str | None = None
        self._last_seq = 0
        self._acked = 0
        # Frames up to this `seq` are replayed from the previous socket.
        self._replay_end = 0
        self._buffer = SendBuffer()
        self._max_message_bytes: int | None = None

        self._renew = False
        self._has_renewed = False
        # The last token that was sent, to be renewed; None if it is fixed, or there is none.
        self._renewable: str | None = None
        self._refresher: asyncio.Task[None] | None = None

    # --- called by the session --------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Sends a frame in order, also across a resume. Does nothing once the session is closed.

        Raises TypeError or ValueError for what is not JSON, and SignalError `message_too_big`.
        """
        if self.state == "closed":
            return
        text = self._buffer.append(frame, self._max_message_bytes)
        if self._is_joined.is_set():
            self._enqueue(text)

    async def leave(self) -> None:
        """Sends the queued frames and a Close frame. The state is `closed` at once."""
        if self.state == "closed":
            return
        self._set_state(State("closed", code=1000))
        socket, self._socket = self._socket, None
        if socket:
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await self._send_queue.join()
                    await socket.close()
            except TimeoutError:
                pass  # cancelling `run` aborts the socket

    # --- one socket after the other ---------------------------------------------------------------

    async def run(self) -> None:
        """Runs until the session is closed. To be cancelled after :meth:`leave`."""
        try:
            while self.state != "closed":
                closed = await self._run_socket()
                delay = self._handle_close(closed)
                if delay is not None:
                    await asyncio.sleep(delay)
        except Exception as fault:
            # Without this the session would look alive although its task has ended.
            log.exception("session ended by an internal error")
            self._fail(SignalError("internal_error", f"{type(fault).__name__}: {fault}", True))
        finally:
            if self._refresher:
                self._refresher.cancel()
                await asyncio.wait([self._refresher])

    async def _run_socket(self) -> Closed:
        """Opens a socket, serves it until it closes, and returns how it closed."""
        self._last_error = {}
        self._send_queue = asyncio.Queue()
        # A socket may neither open nor fail.
        self._set_deadline(RESPONSE_TIMEOUT)
        try:
            async with asyncio.timeout_at(self._deadline):
                socket = await self._open_socket(self._url)
        except Closed as closed:
            return closed
        except TimeoutError:
            return Closed(1006, "No response from the server")
        self._socket = socket
        writer = asyncio.create_task(_write(socket, self._send_queue))
        try:
            return await self._receive(socket)
        finally:
            self._is_joined.clear()
            self._socket = None
            writer.cancel()
            await socket.abort()
            await asyncio.wait([writer])

    async def _receive(self, socket: Socket) -> Closed:
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._handle_frame(json.loads(await socket.recv()))
            except Closed as closed:
                return closed
            except TimeoutError:
                if not self._is_joined.is_set() or self._buffer.is_pong_awaited:
                    return Closed(1006, "No response from the server")
                self._ping()

    def _handle_close(self, closed: Closed) -> float | None:
        """Returns the delay before the next socket in seconds, or None if the session has ended."""
        if self.state == "closed":
            return None
        code, reason, error = closed.code, closed.reason, self._last_error
        retry = error.get("retry")
        is_token_refused = reason in TOKEN_REASONS or error.get("code") in TOKEN_ERRORS
        if self._get_token and is_token_refused and not self._has_renewed:
            self._renew = self._has_renewed = True
            self._resume_token = None
        elif not (retry if retry is not None else code in RETRIED_CODES):
            message = error.get("message") or reason or f"Closed with {code}"
            self._fail(SignalError(error.get("code", "closed"), message, True), code, reason)
            return None
        delay = self._reconnect_in
        if delay is None:
            delay = retry_delay(self._attempt, random.random())
            self._attempt += 1
        self._reconnect_in = None
        state: StateName = "connecting" if self.state == "connecting" else "reconnecting"
        self._set_state(State(state, retry_in=delay, code=code, reason=reason))
        return delay

    def _fail(self, error: SignalError, code: int | None = None, reason: str = "") -> None:
        if self.state != "closed":
            self._emit(Error(error))
            self._set_state(State("closed", code=code, reason=reason))

    def _set_state(self, state: State) -> None:
        log.info("%s", state)
        self.state = state.state
        if state.state != "connected":
            self._is_joined.clear()
        self._emit(state)

    # --- incoming frames --------------------------------------------------------------------------

    async def _handle_frame(self, frame: Frame) -> None:
        if self.state == "closed":
            return
        seq = frame.get("seq")
        if seq:
            self._last_seq = seq
            if self._last_seq - self._acked >= ACK_AFTER and not self._buffer.is_pong_awaited:
                self._ping()
        if self._is_joined.is_set():
            is_awaited = self._buffer.is_pong_awaited
            self._set_deadline(RESPONSE_TIMEOUT if is_awaited else PING_INTERVAL)
        match frame:
            case {"type": "auth_required"}:
                if self._resume_token is None:
                    await self._authenticate()
                else:
                    token, last = self._resume_token, self._last_seq
                    resume = {"type": "resume", "resume_token": token, "last_seq": last}
                    self._enqueue(encode(resume))
            case {"type": "auth_success", "client_id": client_id, "user": user}:
                self.client_id, self.username = client_id, user
                self._last_seq = self._acked = self._replay_end = 0
                self._store_credentials(frame)
                self._store_limits(frame)
                self._schedule_refresh(frame.get("expires_in"))
            case {"type": "users_in_room", "users": members}:
                # The kept frames were addressed to a membership that no longer exists.
                if self.state == "reconnecting":
                    self._buffer.clear()
                self._set_joined(resumed=False)
                self._emit(Joined(members))
            case {"type": "resumed"}:
                self._replay_end = self._last_seq + frame.get("replayed", 0)
                self._store_credentials(frame)
                self._store_limits(frame)
                self._set_joined(resumed=True)
                for error in self._buffer.remove_larger(self._max_message_bytes):
                    self._emit(Error(error))
                for kept in self._buffer:
                    self._enqueue(kept)
            case {"type": "ice_servers"}:
                self._store_credentials(frame)
            case {"type": "token_refreshed"}:
                self._store_credentials(frame)
                self._schedule_refresh(frame.get("expires_in"))
            case {"type": "limits"}:
                self._store_limits(frame)
            case {"type": "pong"}:
                # A replayed pong answers a ping on the previous socket and confirms nothing here.
                if seq is None or seq > self._replay_end:
                    self._buffer.confirm_pinged()
                    self._set_deadline(PING_INTERVAL)
            case {"type": "server_shutdown"}:
                self._reconnect_in = _seconds(frame.get("reconnect_in_ms"))
            case {"type": "error", "code": "resume_failed"}:
                self._resume_token = None
                await self._authenticate()
            case {"type": "error"} if "retry" in frame or not self._is_joined.is_set():
                self._last_error = frame
                if self._reconnect_in is None:
                    self._reconnect_in = _seconds(frame.get("retry_after_ms"))
            case {"type": "error"}:
                self._buffer.refuse(frame.get("id"))
                code, message = frame.get("code", "error"), frame.get("message", "")
                self._emit(Error(SignalError(code, message)))
            case _:
                self._emit(frame)

    def _store_credentials(self, frame: Frame) -> None:
        self._resume_token = frame.get("resume_token", self._resume_token)
        policy = self.ice_transport_policy
        if frame["type"] != "ice_servers":
            is_relay = frame.get("iceTransportPolicy") == "relay"
            self.ice_transport_policy = "relay" if is_relay else "all"
        servers = frame.get("iceServers")
        self.ice_servers = servers or self.ice_servers
        if servers or policy != self.ice_transport_policy:
            self._emit(IceServers(self.ice_servers))

    def _store_limits(self, frame: Frame) -> None:
        self._max_message_bytes = frame.get("limits", {}).get("max_message_bytes")

    def _set_joined(self, *, resumed: bool) -> None:
        self._is_joined.set()
        self._attempt = 0
        self._has_renewed = False
        self._buffer.forget_ping()
        self._set_deadline(PING_INTERVAL)
        self._set_state(State("connected", resumed=resumed))

    # --- tokens -----------------------------------------------------------------------------------

    async def _authenticate(self) -> None:
        try:
            token = await self._token(self._renew)
        except Exception as cause:
            error = token_error(cause, may_be_fatal=True)
            if error.fatal:
                self._fail(error)
            else:
                self._emit(Error(error))
                if self._reconnect_in is None:
                    self._reconnect_in = error.retry_after
            raise Closed(1006, "No token") from cause
        self._renew = False
        fields = {"token": token, "clientId": self.client_id}
        present = {name: value for name, value in fields.items() if value is not None}
        self._enqueue(encode({"type": "auth_token", **present, "features": FEATURES}))
        self._renewable = token if self._get_token else None

    async def _token(self, renew: bool) -> str | None:
        if self._get_token is None:
            return self._fixed_token
        token = self._get_token(renew)
        return await token if inspect.isawaitable(token) else token

    def _schedule_refresh(self, lifetime: float | None) -> None:
        """Renews the last token in time; `lifetime` in seconds from now, if the server told it."""
        if self._refresher:
            self._refresher.cancel()
        token = self._renewable
        if token is not None:
            lifetime = lifetime_of(token) if lifetime is None else lifetime
            self._refresher = asyncio.create_task(self._refresh_token(token, lifetime))

    async def _refresh_token(self, token: str, lifetime: float | None) -> None:
        """Sends a new token a minute before the old one expires, which was issued just now."""
        delay = renewal_delay(lifetime)
        while delay is not None:
            await asyncio.sleep(delay)
            await self._is_joined.wait()  # without a network there is no new token either
            try:
                token = await self._token(True) or token
            except Exception as cause:
                error = token_error(cause, may_be_fatal=False)
                self._emit(Error(error))
                delay = error.retry_after or REFRESH_RETRY_DELAY
                continue
            await self._is_joined.wait()
            self._enqueue(encode({"type": "auth_token", "token": token}))
            self._renewable = token
            # The answer of the server ends this task, and starts one for the new lifetime.
            delay = renewal_delay(lifetime_of(token))

    # --- outgoing frames --------------------------------------------------------------------------

    def _enqueue(self, text: str) -> None:
        if self._is_joined.is_set() and self._last_seq > self._acked:
            self._acked = self._last_seq
            text = f'{text[:-1]},"ack":{self._acked}}}'
        # A socket that accepts no data is abandoned after the next ping, and this queue with it.
        self._send_queue.put_nowait(text)

    def _ping(self) -> None:
        self._buffer.mark_pinged()
        self._enqueue(encode({"type": "ping"}))
        self._set_deadline(RESPONSE_TIMEOUT)

    def _set_deadline(self, delay: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + delay


async def _write(socket: Socket, send_queue: asyncio.Queue[str]) -> None:
    while True:
        text = await send_queue.get()
        try:
            await socket.send(text)
        except Closed:
            pass  # the receiving task gets the close
        finally:
            send_queue.task_done()


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
