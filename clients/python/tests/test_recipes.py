"""The recipes of the README, as they stand there, between two sessions on the real server."""

from __future__ import annotations

import asyncio
import re
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from signaling_client import Message, Peer, PeerJoined, Signal, connect

from .server import ROOT, TIMEOUT, Recorder, ServerCase

README = (ROOT / "clients/python/README.md").read_text()
RECIPES = re.findall(r"^### .*?^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


class Plain(VideoStreamTrack):
    """A picture of one brightness."""

    def __init__(self, brightness: int) -> None:
        super().__init__()
        self._brightness = brightness
        self._number = 0

    async def recv(self) -> VideoFrame:
        await asyncio.sleep(0.05)
        frame = VideoFrame(64, 48, "yuv420p")
        for plane, value in zip(frame.planes, (self._brightness, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        self._number += 1
        frame.pts, frame.time_base = self._number, Fraction(1, 20)
        return frame


async def brightness(track: Any) -> int:
    """That of the next picture of `track`."""
    frame = await asyncio.wait_for(track.recv(), TIMEOUT)
    return bytes(frame.planes[0])[0]


class Recipes(ServerCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.assertEqual(len(RECIPES), 4)
        self.printed: list[tuple[Any, ...]] = []
        names: dict[str, Any] = {
            "RTCSessionDescription": RTCSessionDescription,
            "print": lambda *values: self.printed.append(values),
            "MediaPlayer": lambda device, format: SimpleNamespace(video=Plain(int(device))),
        }
        exec("\n".join(RECIPES), names)  # noqa: S102
        self.recipes = SimpleNamespace(**names)
        server = await self.serve(ALLOW_ANONYMOUS="true")
        self.bob = await connect(server.url, "den")
        self.heard = await self.record(self.bob)
        self.alice = await connect(server.url, "den")
        self.told = await self.record(self.alice)
        await self.told.until(PeerJoined)
        await self.heard.until(PeerJoined)
        self.calling, self.called = RTCPeerConnection(), RTCPeerConnection()
        for pc in (self.calling, self.called):
            self.addAsyncCleanup(pc.close)
        for session in (self.alice, self.bob):
            self.addAsyncCleanup(session.close)
        self.tracks: list[Any] = []
        self.called.on("track", self.tracks.append)

    @property
    def peer(self) -> Peer:
        return self.alice.peers[self.bob.id]

    async def answer(self) -> None:
        """Bob answers the offer, and Alice takes the answer."""
        signal = await first(self.heard, Signal)
        await self.called.setRemoteDescription(
            RTCSessionDescription(signal.payload["sdp"], "offer")
        )
        await self.called.setLocalDescription(await self.called.createAnswer())
        sdp = self.called.localDescription.sdp
        self.bob.signal("answer", {"type": "answer", "sdp": sdp}, to=self.alice.id)
        await self.recipes.handle(await first(self.told, Signal), self.calling)

    async def test_data_channel(self) -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()

        def use(channel: Any) -> None:
            channel.on("message", heard.put_nowait)
            channel.send("hello to you")

        self.called.on("datachannel", use)
        await self.recipes.open_channel(self.alice, self.peer, self.calling)
        await self.answer()

        self.assertEqual(await asyncio.wait_for(heard.get(), TIMEOUT), "hello")
        async with asyncio.timeout(TIMEOUT):
            while not self.printed:
                await asyncio.sleep(0.02)
        self.assertEqual(self.printed, [(self.bob.username, "hello to you")])

    async def test_screen_beside_a_camera_then_another_camera(self) -> None:
        await self.recipes.share(self.alice, self.peer, self.calling, Plain(60), Plain(200))
        await self.answer()

        self.assertEqual([track.kind for track in self.tracks], ["video", "video"])
        camera, screen = self.tracks
        self.assertAlmostEqual(await brightness(camera), 60, delta=8)
        self.assertAlmostEqual(await brightness(screen), 200, delta=8)
        self.recipes.use_camera(self.calling.getSenders()[0], "120")
        async with asyncio.timeout(TIMEOUT):
            while abs(await brightness(camera) - 120) > 8:
                pass

    async def test_mute(self) -> None:
        microphone = Plain(100)  # what is muted makes no difference
        sender = self.calling.addTrack(microphone)
        self.recipes.set_muted(self.alice, sender, microphone, True)
        self.assertIsNone(sender.track)
        self.recipes.set_muted(self.alice, sender, microphone, False)
        self.assertIs(sender.track, microphone)

        await self.heard.until(Message, 2)
        self.assertEqual(self.heard.messages(), [{"isMuted": True}, {"isMuted": False}])


async def first(events: Recorder, kind: type[Any]) -> Any:
    await events.until(kind)
    return events.of(kind)[0]
