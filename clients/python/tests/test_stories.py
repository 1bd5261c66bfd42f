"""Sessions on the real server: cut off, restarted, crashed, and past the end of a token."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from unittest import mock
from unittest.mock import AsyncMock

from signaling_client import (
    Account,
    Error,
    Message,
    PeerJoined,
    PeerLeft,
    ServerMessage,
    Signal,
    SignalError,
    State,
    connect,
    login,
)
from signaling_client.signal import expiry_of

from .server import PASSWORD, StoryCase


class Stories(StoryCase):
    async def test_two_talk_and_hear_who_comes_and_goes(self) -> None:
        server = await self.serve()
        alice = await connect(server.url, "a/b é", get_token=Account(server.url, "user1", PASSWORD))
        heard_by_alice = await self.told(alice)
        token = await login(server.url, "user2", PASSWORD)
        async with connect(server.url, "a/b é", token=token, client_id="bob-1") as bob:
            heard_by_bob = await self.told(bob)
            await heard_by_alice.until(PeerJoined)
            await heard_by_bob.until(PeerJoined)
            self.assertEqual((bob.id, bob.username), ("bob-1", "user2"))
            self.assertTrue(bob.peers[alice.id].polite)
            self.assertFalse(alice.peers["bob-1"].polite)

            alice.send({"hello": ["wörld", None]})
            bob.signal("offer", {"type": "offer", "sdp": "v=0"}, to=alice.id)
            bob.signal("ice_candidate", None, to=alice.id)
            await heard_by_bob.until(Message)
            bob.send("the last word")
        await heard_by_alice.until(PeerLeft)

        self.assertEqual(heard_by_bob.messages(), [{"hello": ["wörld", None]}])
        kinds = [type(event) for event in heard_by_alice.events]
        self.assertEqual(kinds, [State, PeerJoined, Signal, Signal, Message, PeerLeft])
        self.assertEqual(heard_by_alice.messages(), ["the last word"])
        self.assertEqual(dict(alice.peers), {})

    async def test_what_an_administrator_says_is_heard(self) -> None:
        token = "0123456789abcdef0123456789abcdef"
        server = await self.serve(ALLOW_ANONYMOUS="true", ADMIN_TOKEN=token)
        alice = await connect(server.url, "den")
        heard = await self.told(alice)

        request = urllib.request.Request(
            f"{server.url}/admin/api/rooms/den/message",
            b'{"data":{"text":"bye"}}',
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())

        await heard.until(ServerMessage)
        self.assertEqual(heard.events[-1], ServerMessage({"text": "bye"}))

    async def test_a_socket_that_is_cut_costs_no_message_and_doubles_none(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        wire = await self.wire(server)
        alice = await connect(wire.url, "den")
        bob = await connect(server.url, "den")
        by_alice, by_bob = await self.told(alice), await self.told(bob)
        await by_alice.until(PeerJoined)

        for number in range(60):
            if number % 20 == 10:
                wire.cut()
            alice.send(number)
            bob.send(number)
            if number % 20 == 15:
                wire.mend()
                await by_alice.until_state("reconnecting")
            if number % 20 == 19:
                await by_alice.until_state("connected")
            await asyncio.sleep(0)  # on both sides of a cut some are on their way, some are not

        await by_alice.until(Message, 60)
        await by_bob.until(Message, 60)
        await asyncio.sleep(0.2)  # for what should not come any more
        self.assertEqual(by_alice.messages(), list(range(60)))
        self.assertEqual(by_bob.messages(), list(range(60)))
        self.assertEqual(by_alice.states(), ["connected"] + ["reconnecting", "connected"] * 3)
        self.assertEqual(by_bob.of(PeerLeft) + by_alice.of(Error) + by_bob.of(Error), [])

    async def test_a_restart_in_order_is_only_a_pause(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        alice = await connect(server.url, "den")
        account = Account(server.url, "user1", PASSWORD)
        bob = await connect(server.url, "den", get_token=account)
        by_alice, by_bob = await self.told(alice), await self.told(bob)
        await by_alice.until(PeerJoined)

        await server.end()
        lost = await by_alice.until_state("reconnecting")
        await by_bob.until_state("reconnecting")
        alice.send("said while nobody was there")
        await server.start()
        back = await by_alice.until_state("connected")
        await by_bob.until(Message)

        self.assertEqual((lost.code, back.resumed), (1012, True))
        self.assertEqual(by_bob.messages(), ["said while nobody was there"])
        self.assertEqual(by_alice.of(PeerLeft) + by_bob.of(PeerLeft), [])

    async def test_after_a_crash_both_sit_down_anew(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        alice = await connect(server.url, "den", client_id="alice-1")
        account = Account(server.url, "user1", PASSWORD)
        bob = await connect(server.url, "den", get_token=account)
        by_alice, by_bob = await self.told(alice), await self.told(bob)
        await by_alice.until(PeerJoined)
        await by_bob.until(PeerJoined)
        bob.peers["alice-1"].connected = True
        bobs_id, name = bob.id, alice.username

        await server.end(signal.SIGKILL)
        lost = await by_alice.until_state("reconnecting")
        await by_bob.until_state("reconnecting")
        alice.send("of another life")
        await server.start()
        back = await by_alice.until_state("connected")
        await by_bob.until_state("connected")
        await by_alice.until(PeerJoined, 2 - (bobs_id in alice.peers))
        alice.send("of this one")
        await by_bob.until(Message)

        self.assertEqual((lost.code, back.resumed), (1006, False))
        self.assertEqual((alice.id, bob.id), ("alice-1", bobs_id))
        self.assertNotEqual(alice.username, name, "a guest is another one each time")
        self.assertEqual(by_bob.messages(), ["of this one"])
        self.assertEqual(by_bob.of(PeerLeft), [], "a call would have gone on")
        self.assertNotEqual(alice.peers[bobs_id].polite, bob.peers["alice-1"].polite)

    async def test_a_session_outlives_its_token(self) -> None:
        server = await self.serve()
        wire = await self.wire(server)
        short = server.token("user1", lives=4)
        with mock.patch("signaling_client.accounts.login", AsyncMock(return_value=short)) as logins:
            account = Account(server.url, "user1", PASSWORD)
            session = await connect(wire.url, "den", get_token=account)
            told = await self.told(session)
            await asyncio.sleep(4.2)

        renewed = await account()
        self.assertGreater(expiry_of(renewed) or 0, time.time() + 60)
        wire.cut()
        wire.mend()
        await told.until_state("reconnecting")
        back = await told.until_state("connected")
        self.assertTrue(back.resumed, "the seat stands on the new token")
        self.assertEqual((told.of(Error), logins.await_count), ([], 1))

    async def test_a_token_that_is_taken_back_is_replaced_by_means_of_the_password(self) -> None:
        server = await self.serve()
        account = Account(server.url, "user1", PASSWORD)
        session = await connect(server.url, "den", get_token=account)
        told = await self.told(session)
        first = await account()

        await asyncio.to_thread(_log_out, server.url, first)
        lost = await told.until_state("reconnecting")
        await told.until_state("connected")

        self.assertEqual((lost.code, lost.reason), (1008, "Invalid token"))
        self.assertNotEqual(await account(), first)
        self.assertEqual(told.of(Error), [])

    async def test_a_login_that_is_refused_ends_a_connect(self) -> None:
        server = await self.serve()
        with self.assertRaises(SignalError) as raised:
            await connect(server.url, "den", get_token=Account(server.url, "user1", "wrong"))

        self.assertEqual((raised.exception.code, raised.exception.fatal), ("unauthorized", True))
        with self.assertRaises(SignalError):
            await connect(server.url, "den", token="no.good.token")
        with self.assertRaisesRegex(SignalError, "guest|token|uthentication"):
            await connect(server.url, "den")


def _log_out(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{url}/auth/logout", b"", headers, method="POST")
    urllib.request.urlopen(request, timeout=10).close()
