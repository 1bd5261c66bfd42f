"""The echo bot as a process, called by aiortc in the ways of different clients."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Any

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from signaling_client import Account, PeerJoined, PeerLeft, Session, Signal, connect

from .server import PASSWORD, ROOT, TIMEOUT, Server, ServerCase, launch

PACKAGE = ROOT / "clients/python"


class Caller:
    """One RTCPeerConnection; several callers of one session act as one peer."""

    def __init__(self, session: Session, bot: str, key: str | None) -> None:
        self.connection = RTCPeerConnection()
        self.session, self.bot, self.key = session, bot, key
        self.echoes: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.remote_key: str | None = None

    async def channel(self, label: str) -> RTCDataChannel:
        channel = self.connection.createDataChannel(label)
        channel.on("message", self.echoes.put_nowait)
        return channel

    async def offer(self, candidates: str = "inside") -> None:
        """Sends an offer; its candidates are inside, before or after it, in every spelling."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp = self.connection.localDescription.sdp
        trickled: list[Any] = []
        if candidates != "inside":
            lines = re.findall(r"a=(candidate:.*)\r\n", sdp)
            sdp = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", sdp)
            trickled = [{"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0} for line in lines]
            trickled += [lines[0], {"candidate": "", "sdpMid": "0"}, "", None]
        if candidates == "before":
            self.trickle(trickled)
        description = {"type": "offer", "sdp": sdp}
        self.session.signal(
            "offer", description if self.key is None else {**description, "pc": self.key}, self.bot
        )
        if candidates == "after":
            self.trickle(trickled)
        payload = (await next_event(self.session, Signal)).payload
        self.remote_key = payload["pc"]
        answer = RTCSessionDescription(payload["sdp"], payload["type"])
        await self.connection.setRemoteDescription(answer)

    def trickle(self, candidates: list[Any]) -> None:
        for candidate in candidates:
            self.session.signal("ice_candidate", candidate, self.bot)

    async def expect_echo(self, channel: RTCDataChannel) -> None:
        async with asyncio.timeout(TIMEOUT):
            if channel.readyState != "open":
                is_open = asyncio.Event()
                channel.on("open", is_open.set)
                await is_open.wait()
            for message in ("wörld", b"\x00\xff", "", "x" * 20_000):
                channel.send(message)
                assert await self.echoes.get() == message


class EchoBot(ServerCase):
    async def bot(self, server: Server, *credentials: str) -> asyncio.subprocess.Process:
        command = ["examples/echo_bot.py", "--url", server.url, "--room", "den"]
        env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        bot = await launch(sys.executable, *command, *credentials, cwd=PACKAGE, env=env)
        self.addAsyncCleanup(self.stop_bot, bot)
        return bot

    async def stop_bot(self, bot: asyncio.subprocess.Process) -> str:
        if bot.returncode is None:
            bot.terminate()
        log, _ = await bot.communicate()
        self.assertEqual(bot.returncode, 0, log.decode())
        return log.decode()

    async def test_answers_every_kind_of_offer_and_echoes_text_and_binary(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        bot = await self.bot(server, "--username", "user1", "--password", PASSWORD)
        async with connect(server.url, "den") as session:
            joined = await next_event(session, PeerJoined)
            for key, candidates in ((None, "inside"), ("a", "before"), ("b", "after")):
                # The peer replaces its connection each time, and the previous one ends.
                caller = Caller(session, joined.peer.id, key)
                first = await caller.channel("first")
                await caller.offer(candidates)
                await caller.expect_echo(first)
                remote_key = caller.remote_key
                await caller.offer()
                await caller.expect_echo(await caller.channel("second"))
                self.assertEqual(
                    caller.remote_key, remote_key, "a renegotiation keeps the connection"
                )
                await caller.connection.close()

            session.signal("offer", {"type": "offer"}, joined.peer.id)
            session.signal("ice_candidate", {"candidate": "candidate:nonsense"}, joined.peer.id)
            caller = Caller(session, joined.peer.id, "c")
            channel = await caller.channel("after invalid signals")
            await caller.offer()
            await caller.expect_echo(channel)
            await caller.connection.close()

            bot.terminate()
            await next_event(session, PeerLeft)
            await bot.wait()

    async def test_rejoins_after_a_server_crash_and_the_call_continues_meanwhile(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        account = Account(server.url, "user1", PASSWORD)
        async with connect(server.url, "den", get_token=account) as session:
            await self.bot(server)
            joined = await next_event(session, PeerJoined)
            joined.peer.connected = True
            caller = Caller(session, joined.peer.id, "a")
            channel = await caller.channel("first")
            await caller.offer()
            await caller.expect_echo(channel)

            await server.end(9)
            await caller.expect_echo(channel)
            await server.start()
            await server.until_members("den", 2)
            await caller.offer()
            await caller.expect_echo(channel)
            await caller.connection.close()


async def next_event(session: Session, kind: type[Any]) -> Any:
    async with asyncio.timeout(TIMEOUT):
        async for event in session:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind}")
