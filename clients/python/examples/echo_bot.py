#!/usr/bin/env python3
"""A member that answers every call and echoes what comes over its data channels, text and binary.

It never offers, so it never collides. Needs aiortc.
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
    """Our side of the calls with one peer: one RTCPeerConnection after the other."""

    def __init__(self, session: Session, peer: Peer) -> None:
        """Waits for the first offer."""
        self._session = session
        self._peer = peer
        self._connection: RTCPeerConnection | None = None
        # `pc` in a description tells one connection of a peer from the next; this is ours.
        self._key = ""
        self._their_key: str | None = None
        self._early: list[Any] = []
        self._heard: asyncio.Queue[Signal] = asyncio.Queue()
        self._work = asyncio.create_task(self._in_order())

    def hears(self, signal: Signal) -> None:
        """Takes a description or a candidate; they are worked on one after the other."""
        self._heard.put_nowait(signal)

    async def end(self) -> None:
        """Hangs up."""
        self._work.cancel()
        await asyncio.wait([self._work])
        await self._hang_up()

    async def _in_order(self) -> None:
        while True:
            heard = await self._heard.get()
            if heard.type == "ice_candidate":
                await self._candidate(heard.payload)
            elif heard.type == "offer":
                try:
                    await self._answer(heard.payload)
                except Exception:
                    log.exception("no answer to the offer of %s", self._peer.id)
                    await self._hang_up()  # it may try again

    async def _answer(self, offer: dict[str, Any]) -> None:
        their_key = offer.get("pc", "")  # a client that is not ours says none
        if self._connection and their_key != self._their_key:
            # Its connection is another: ours belonged to the one before.
            await self._hang_up()
        connection = self._connection or self._begin()
        await connection.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        self._their_key = their_key
        early, self._early = self._early, []
        for candidate in early:
            await self._candidate(candidate)
        for transceiver in connection.getTransceivers():
            transceiver.direction = "inactive"  # nobody would look at the pictures
        await connection.setLocalDescription(await connection.createAnswer())
        answer = {"type": "answer", "sdp": connection.localDescription.sdp, "pc": self._key}
        self._session.signal("answer", answer, to=self._peer.id)

    def _begin(self) -> RTCPeerConnection:
        servers = [
            RTCIceServer(server["urls"], server.get("username"), server.get("credential"))
            for server in self._session.ice_servers
        ]
        connection = RTCPeerConnection(RTCConfiguration(servers))
        self._connection = connection
        self._key = secrets.token_hex(4)

        async def changed() -> None:
            state = connection.connectionState
            if self._connection is not connection:
                return
            log.info("%s is %s", self._peer.id, state)
            self._peer.connected = state == "connected"
            if state == "failed":
                # aiortc cannot restart ICE: the next offer gets a new connection.
                await self._hang_up()

        connection.on("connectionstatechange", changed)
        connection.on("datachannel", _echo)
        return connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        self._peer.connected = False
        if connection:
            await connection.close()

    async def _candidate(self, payload: dict[str, Any] | str | None) -> None:
        if not self._connection or not self._connection.remoteDescription:
            self._early.append(payload)
            return
        given = payload if isinstance(payload, dict) else {"candidate": payload}
        try:
            line = (given.get("candidate") or "").removeprefix("candidate:")
            candidate = candidate_from_sdp(line) if line else None
            for mid, transport in _transports(self._connection):
                # Without any, the end would fail a connection that the peer's own checks open.
                is_early_end = candidate is None and not transport.getRemoteCandidates()
                if given.get("sdpMid") in (None, mid) and not is_early_end:
                    await transport.addRemoteCandidate(candidate)
        except Exception:
            # One is no more than a way that does not exist.
            log.exception("a candidate of %s", self._peer.id)


def _echo(channel: RTCDataChannel) -> None:
    def back(message: str | bytes) -> None:
        if channel.readyState == "open":
            channel.send(message)

    channel.on("message", back)


def _transports(connection: RTCPeerConnection) -> Iterator[tuple[str | None, RTCIceTransport]]:
    """The ICE transports, each once, with the media section that brings it candidates."""
    sections = [(media.mid, media.sender.transport) for media in connection.getTransceivers()]
    if connection.sctp:
        sections.append((connection.sctp.mid, connection.sctp.transport))
    known = set()
    for mid, dtls in sections:
        if dtls not in known:
            known.add(dtls)
            yield mid, dtls.transport


async def echo(session: Session) -> None:
    """Answers whoever calls, until the session is over; raises SignalError if that was no wish."""
    calls: dict[str, Call] = {}
    try:
        async for event in session:
            match event:
                case PeerJoined(peer):
                    calls[peer.id] = Call(session, peer)
                case PeerLeft(peer):
                    await calls.pop(peer.id).end()
                case Signal(peer):
                    calls[peer.id].hears(event)
                case Error(error) if error.fatal:
                    raise error
                case Error(error):
                    log.warning("%s: %s", error.code, error)
    finally:
        for call in calls.values():
            await call.end()


async def main() -> int:
    """Reads the arguments and echoes until a signal or a fatal error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the server, such as https://example.com")
    parser.add_argument("--room", required=True)
    parser.add_argument("--username", help="left out: a guest")
    parser.add_argument("--password")
    args = parser.parse_args()
    if (args.username is None) != (args.password is None):
        parser.error("--username and --password go together")
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    for name in (log.name, "signaling_client"):
        logging.getLogger(name).setLevel(logging.INFO)

    account = Account(args.url, args.username, args.password) if args.username else None

    async def be_there() -> None:
        async with connect(args.url, args.room, get_token=account) as session:
            log.info("in %r as %s (%s)", args.room, session.username, session.id)
            await echo(session)

    being_there = asyncio.create_task(be_there())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, being_there.cancel)
    try:
        await being_there
    except asyncio.CancelledError:
        pass
    except SignalError as error:
        log.error("%s: %s", error.code, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
