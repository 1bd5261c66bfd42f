#!/usr/bin/env python3
"""A bot that answers every call and echoes the messages on its data channels, text and binary.

It never sends an offer, so it never causes an offer collision. Needs aiortc.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Iterator
from typing import Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCIceTransport,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp

from signaling_client import (
    Account,
    Error,
    Peer,
    PeerJoined,
    PeerLeft,
    Session,
    Signal,
    SignalError,
    connect,
)

log = logging.getLogger("echo_bot")


class Call:
    """The bot's side of the calls with one peer: one RTCPeerConnection after the other."""

    def __init__(self, session: Session, peer: Peer) -> None:
        """Waits for the first offer."""
        self._session = session
        self._peer = peer
        self._connection: RTCPeerConnection | None = None
        # `pc` in a description identifies one of the successive connections of a peer.
        self._local_key = ""
        self._remote_key: str | None = None
        # Candidates that arrived before the offer.
        self._early_candidates: list[Any] = []
        self._signals: asyncio.Queue[Signal] = asyncio.Queue()
        self._worker = asyncio.create_task(self._handle_signals())

    def enqueue(self, signal: Signal) -> None:
        """Queues a description or a candidate; they are handled one after the other."""
        self._signals.put_nowait(signal)

    async def end(self) -> None:
        """Stops handling signals and closes the connection."""
        self._worker.cancel()
        await asyncio.wait([self._worker])
        await self._close_connection()

    async def _handle_signals(self) -> None:
        while True:
            signal = await self._signals.get()
            if signal.type == "ice_candidate":
                await self._add_candidate(signal.payload)
            elif signal.type == "offer":
                try:
                    await self._answer(signal.payload)
                except Exception:
                    log.exception("cannot answer the offer of %s", self._peer.id)
                    await self._close_connection()  # the peer may offer again

    async def _answer(self, offer: dict[str, Any]) -> None:
        remote_key = offer.get("pc", "")  # other client libraries send no key
        if self._connection and remote_key != self._remote_key:
            # The peer has replaced its connection, so this one has no other end any more.
            await self._close_connection()
        connection = self._connection or self._create_connection()
        await connection.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        self._remote_key = remote_key
        early, self._early_candidates = self._early_candidates, []
        for candidate in early:
            await self._add_candidate(candidate)
        for transceiver in connection.getTransceivers():
            transceiver.direction = "inactive"  # the bot does not use media
        await connection.setLocalDescription(await connection.createAnswer())
        answer = {"type": "answer", "sdp": connection.localDescription.sdp, "pc": self._local_key}
        self._session.signal("answer", answer, to=self._peer.id)

    def _create_connection(self) -> RTCPeerConnection:
        servers = [
            RTCIceServer(server["urls"], server.get("username"), server.get("credential"))
            for server in self._session.ice_servers
        ]
        connection = RTCPeerConnection(RTCConfiguration(servers))
        self._connection = connection
        self._local_key = secrets.token_hex(4)

        async def handle_state() -> None:
            state = connection.connectionState
            if self._connection is not connection:
                return
            log.info("connection to %s is %s", self._peer.id, state)
            self._peer.connected = state == "connected"
            if state == "failed":
                # aiortc cannot restart ICE: the next offer gets a new connection.
                await self._close_connection()

        connection.on("connectionstatechange", handle_state)
        connection.on("datachannel", _echo)
        return connection

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._peer.connected = False
        if connection:
            await connection.close()

    async def _add_candidate(self, payload: dict[str, Any] | str | None) -> None:
        if not self._connection or not self._connection.remoteDescription:
            self._early_candidates.append(payload)
            return
        given = payload if isinstance(payload, dict) else {"candidate": payload}
        try:
            line = (given.get("candidate") or "").removeprefix("candidate:")
            candidate = candidate_from_sdp(line) if line else None
            for mid, transport in _transports(self._connection):
                # Without any candidate, the end would fail a connection that the checks of the peer
                # can still open.
                is_early_end = candidate is None and not transport.getRemoteCandidates()
                if given.get("sdpMid") in (None, mid) and not is_early_end:
                    await transport.addRemoteCandidate(candidate)
        except Exception:
            # The connection may still succeed with another candidate.
            log.exception("cannot add a candidate of %s", self._peer.id)


def _echo(channel: RTCDataChannel) -> None:
    def send_back(message: str | bytes) -> None:
        if channel.readyState == "open":
            channel.send(message)

    channel.on("message", send_back)


def _transports(connection: RTCPeerConnection) -> Iterator[tuple[str | None, RTCIceTransport]]:
    """The ICE transports, each once, with the media section whose candidates belong to it."""
    sections = [(media.mid, media.sender.transport) for media in connection.getTransceivers()]
    if connection.sctp:
        sections.append((connection.sctp.mid, connection.sctp.transport))
    seen = set()
    for mid, dtls in sections:
        if dtls not in seen:
            seen.add(dtls)
            yield mid, dtls.transport


async def echo(session: Session) -> None:
    """Answers all calls until the session is closed; raises SignalError after a fatal error."""
    calls: dict[str, Call] = {}
    try:
        async for event in session:
            match event:
                case PeerJoined(peer):
                    calls[peer.id] = Call(session, peer)
                case PeerLeft(peer):
                    await calls.pop(peer.id).end()
                case Signal(peer):
                    calls[peer.id].enqueue(event)
                case Error(error) if error.fatal:
                    raise error
                case Error(error):
                    log.warning("%s: %s", error.code, error)
    finally:
        for call in calls.values():
            await call.end()


async def main() -> int:
    """Parses the arguments and runs the bot until SIGINT, SIGTERM or a fatal error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", required=True, help="URL of the server, such as https://example.com"
    )
    parser.add_argument("--room", required=True)
    parser.add_argument("--username", help="without it the bot joins as a guest")
    parser.add_argument("--password")
    parser.add_argument("--token", help="an access token, in place of a username and a password")
    args = parser.parse_args()
    if (args.username is None) != (args.password is None):
        parser.error("--username and --password go together")
    if args.token and args.username:
        parser.error("give a --token, or a --username and a --password")
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    for name in (log.name, "signaling_client"):
        logging.getLogger(name).setLevel(logging.INFO)

    account = Account(args.url, args.username, args.password) if args.username else None

    async def run() -> None:
        async with connect(args.url, args.room, token=args.token, get_token=account) as session:
            if session.ice_transport_policy == "relay":
                reason = "the token allows TURN servers only, and aiortc 1.4 cannot be held to that"
                raise SignalError("relay_only", reason)
            log.info("joined %r as %s (%s)", args.room, session.username, session.id)
            await echo(session)

    running = asyncio.create_task(run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        pass
    except SignalError as error:
        log.error("%s: %s", error.code, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
