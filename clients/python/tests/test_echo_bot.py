"""The echo bot in a process of its own, called by aiortc as various peers would call it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Any

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from signaling_client import Account, PeerJoined, PeerLeft, Session, Signal, connect

from .server import PASSWORD, ROOT, Server, StoryCase, launch

PACKAGE = ROOT / "clients/python"


class Caller:
    """Another RTCPeerConnection of the same peer each."""

    def __init__(self, session: Session, bot: str, key: str | None) -> None:
        self.connection = RTCPeerConnection()
        self.session, self.bot, self.key = session, bot, key
        self.echoes: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.their_key: str | None = None

    async def channel(self, label: str) -> RTCDataChannel:
        channel = self.connection.createDataChannel(label)
        channel.on("message", self.echoes.put_nowait)
        return channel

    async def offers(self, candidates: str = "inside") -> None:
        """Offers, with the candidates inside, before or after the offer in one spelling each."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        sdp = self.connection.localDescription.sdp
        trickled: list[Any] = []
        if candidates != "inside":
            lines = re.findall(r"a=(candidate:.*)\r\n", sdp)
            sdp = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", sdp)
            trickled = [{"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0} for line in lines]
            trickled += [lines[0], {"candidate": "", "sdpMid": "0"}, "", None]
        if candidates == "before":
            self.trickles(trickled)
        offer = {"type": "offer", "sdp": sdp}
        self.session.signal(
            "offer", offer if self.key is None else {**offer, "pc": self.key}, self.bot
        )
        if candidates == "after":
            self.trickles(trickled)
        payload = (await hears(self.session, Signal)).payload
        self.their_key = payload["pc"]
        answer = RTCSessionDescription(payload["sdp"], payload["type"])
        await self.connection.setRemoteDescription(answer)

    def trickles(self, candidates: list[Any]) -> None:
        for candidate in candidates:
            self.session.signal("ice_candidate", candidate, self.bot)

    async def hears_echo(self, channel: RTCDataChannel) -> None:
        async with asyncio.timeout(15):
            if channel.readyState != "open":
                is_open = asyncio.Event()
                channel.on("open", is_open.set)
                await is_open.wait()
            for said in ("wörld", b"\x00\xff", "", "x" * 20_000):
                channel.send(said)
                assert await self.echoes.get() == said


class EchoBot(StoryCase):
    async def bot(self, server: Server, *credentials: str) -> asyncio.subprocess.Process:
        command = ["examples/echo_bot.py", "--url", server.url, "--room", "den"]
        env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        bot = await launch(sys.executable, *command, *credentials, cwd=PACKAGE, env=env)
        self.addAsyncCleanup(self.ends, bot)
        return bot

    async def ends(self, bot: asyncio.subprocess.Process) -> str:
        if bot.returncode is None:
            bot.terminate()
        log, _ = await bot.communicate()
        self.assertEqual(bot.returncode, 0, log.decode())
        return log.decode()

    async def test_it_answers_whatever_a_peer_offers_and_echoes_text_and_binary(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        bot = await self.bot(server, "--username", "user1", "--password", PASSWORD)
        async with connect(server.url, "den") as session:
            joined = await hears(session, PeerJoined)
            for key, candidates in ((None, "inside"), ("a", "before"), ("b", "after")):
                # The same peer with another connection each time: the one before ends.
                caller = Caller(session, joined.peer.id, key)
                first = await caller.channel("first")
                await caller.offers(candidates)
                await caller.hears_echo(first)
                their_key = caller.their_key
                await caller.offers()
                await caller.hears_echo(await caller.channel("second"))
                self.assertEqual(caller.their_key, their_key, "negotiating again changes nothing")
                await caller.connection.close()

            session.signal("offer", {"type": "offer"}, joined.peer.id)
            session.signal("ice_candidate", {"candidate": "candidate:nonsense"}, joined.peer.id)
            caller = Caller(session, joined.peer.id, "c")
            channel = await caller.channel("after all that")
            await caller.offers()
            await caller.hears_echo(channel)
            await caller.connection.close()

            bot.terminate()
            await hears(session, PeerLeft)
            await bot.wait()

    async def test_it_comes_back_after_the_server_and_a_call_goes_on_meanwhile(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        account = Account(server.url, "user1", PASSWORD)
        async with connect(server.url, "den", get_token=account) as session:
            await self.bot(server)
            joined = await hears(session, PeerJoined)
            joined.peer.connected = True
            caller = Caller(session, joined.peer.id, "a")
            channel = await caller.channel("first")
            await caller.offers()
            await caller.hears_echo(channel)

            await server.end(9)
            await caller.hears_echo(channel)
            await server.start()
            await server.until_members("den", 2)
            await caller.offers()
            await caller.hears_echo(channel)
            await caller.connection.close()


async def hears(session: Session, kind: type[Any]) -> Any:
    async with asyncio.timeout(15):
        async for event in session:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind}")
