"""Sessions on the real server: lost networks, restarts, crashes and expiring tokens."""

from __future__ import annotations

import asyncio
import signal
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
from signaling_client.accounts import IssuedToken

from .server import PASSWORD, TIMEOUT, ServerCase


class RealServer(ServerCase):
    async def test_two_members_exchange_frames_and_see_each_other_join_and_leave(self) -> None:
        server = await self.serve()
        alice = await connect(server.url, "a/b é", get_token=Account(server.url, "user1", PASSWORD))
        alice_events = await self.record(alice)
        token = await login(server.url, "user2", PASSWORD)
        async with connect(server.url, "a/b é", token=token, client_id="bob-1") as bob:
            bob_events = await self.record(bob)
            await alice_events.until(PeerJoined)
            await bob_events.until(PeerJoined)
            self.assertEqual((bob.id, bob.username), ("bob-1", "user2"))
            self.assertTrue(bob.peers[alice.id].polite)
            self.assertFalse(alice.peers["bob-1"].polite)

            alice.send({"hello": ["wörld", None]})
            bob.signal("offer", {"type": "offer", "sdp": "v=0"}, to=alice.id)
            bob.signal("ice_candidate", None, to=alice.id)
            await bob_events.until(Message)
            bob.send("the last word")
        await alice_events.until(PeerLeft)

        self.assertEqual(bob_events.messages(), [{"hello": ["wörld", None]}])
        kinds = [type(event) for event in alice_events.events]
        self.assertEqual(kinds, [State, PeerJoined, Signal, Signal, Message, PeerLeft])
        self.assertEqual(alice_events.messages(), ["the last word"])
        self.assertEqual(dict(alice.peers), {})

    async def test_message_of_an_administrator_is_an_event(self) -> None:
        token = "0123456789abcdef0123456789abcdef"
        server = await self.serve(ALLOW_ANONYMOUS="true", ADMIN_TOKEN=token)
        alice = await connect(server.url, "den")
        events = await self.record(alice)

        request = urllib.request.Request(
            f"{server.url}/admin/api/rooms/den/message",
            b'{"data":{"text":"bye"}}',
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())

        await events.until(ServerMessage)
        self.assertEqual(events.events[-1], ServerMessage({"text": "bye"}))

    async def test_lost_network_loses_and_duplicates_no_message(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        proxy = await self.proxy(server)
        alice = await connect(proxy.url, "den")
        bob = await connect(server.url, "den")
        alice_events, bob_events = await self.record(alice), await self.record(bob)
        await alice_events.until(PeerJoined)

        for number in range(60):
            if number % 20 == 10:
                proxy.cut()
            alice.send(number)
            bob.send(number)
            if number % 20 == 15:
                proxy.restore()
                await alice_events.until_state("reconnecting")
            if number % 20 == 19:
                await alice_events.until_state("connected")
            await asyncio.sleep(0)  # so that a cut finds frames on their way in both directions

        await alice_events.until(Message, 60)
        await bob_events.until(Message, 60)
        await asyncio.sleep(0.2)  # a duplicate would arrive in this time
        self.assertEqual(alice_events.messages(), list(range(60)))
        self.assertEqual(bob_events.messages(), list(range(60)))
        self.assertEqual(alice_events.states(), ["connected"] + ["reconnecting", "connected"] * 3)
        self.assertEqual(
            bob_events.of(PeerLeft) + alice_events.of(Error) + bob_events.of(Error), []
        )

    async def test_graceful_restart_is_resumed(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        alice = await connect(server.url, "den")
        account = Account(server.url, "user1", PASSWORD)
        bob = await connect(server.url, "den", get_token=account)
        alice_events, bob_events = await self.record(alice), await self.record(bob)
        await alice_events.until(PeerJoined)

        await server.end()
        lost = await alice_events.until_state("reconnecting")
        await bob_events.until_state("reconnecting")
        alice.send("sent while the server was down")
        await server.start()
        back = await alice_events.until_state("connected")
        await bob_events.until(Message)

        self.assertEqual((lost.code, back.resumed), (1012, True))
        self.assertEqual(bob_events.messages(), ["sent while the server was down"])
        self.assertEqual(alice_events.of(PeerLeft) + bob_events.of(PeerLeft), [])

    async def test_after_a_crash_both_members_join_again(self) -> None:
        server = await self.serve(ALLOW_ANONYMOUS="true")
        alice = await connect(server.url, "den", client_id="alice-1")
        account = Account(server.url, "user1", PASSWORD)
        bob = await connect(server.url, "den", get_token=account)
        alice_events, bob_events = await self.record(alice), await self.record(bob)
        await alice_events.until(PeerJoined)
        await bob_events.until(PeerJoined)
        bob.peers["alice-1"].connected = True
        bobs_id, name = bob.id, alice.username

        await server.end(signal.SIGKILL)
        lost = await alice_events.until_state("reconnecting")
        await bob_events.until_state("reconnecting")
        alice.send("before the new join")
        await server.start()
        back = await alice_events.until_state("connected")
        await bob_events.until_state("connected")
        await alice_events.until(PeerJoined, 2 - (bobs_id in alice.peers))
        alice.send("after the new join")
        await bob_events.until(Message)

        self.assertEqual((lost.code, back.resumed), (1006, False))
        self.assertEqual((alice.id, bob.id), ("alice-1", bobs_id))
        self.assertNotEqual(alice.username, name, "a guest gets a new name on every join")
        self.assertEqual(bob_events.messages(), ["after the new join"])
        self.assertEqual(bob_events.of(PeerLeft), [], "a call would have continued")
        self.assertNotEqual(alice.peers[bobs_id].polite, bob.peers["alice-1"].polite)

    async def test_session_resumes_after_its_first_token_has_expired(self) -> None:
        server = await self.serve()
        proxy = await self.proxy(server)
        short = server.token("user1", lifetime=4)
        issued = AsyncMock(return_value=IssuedToken(short, 4))
        with mock.patch("signaling_client.accounts._log_in", issued) as logins:
            account = Account(server.url, "user1", PASSWORD)
            session = await connect(proxy.url, "den", get_token=account)
            events = await self.record(session)
            await asyncio.sleep(4.2)

        self.assertNotEqual(await account(), short)
        proxy.cut()
        proxy.restore()
        await events.until_state("reconnecting")
        back = await events.until_state("connected")
        self.assertTrue(back.resumed, "the membership is valid with the new token")
        self.assertEqual((events.of(Error), logins.await_count), ([], 1))

    async def test_revoked_token_is_replaced_by_a_new_login(self) -> None:
        server = await self.serve()
        account = Account(server.url, "user1", PASSWORD)
        session = await connect(server.url, "den", get_token=account)
        events = await self.record(session)
        first = await account()

        await asyncio.to_thread(_log_out, server.url, first)
        lost = await events.until_state("reconnecting")
        await events.until_state("connected")

        self.assertEqual((lost.code, lost.reason), (1008, "Invalid token"))
        self.assertNotEqual(await account(), first)
        self.assertEqual(events.of(Error), [])

    async def test_message_that_the_server_would_discard_is_not_sent(self) -> None:
        server = await self.serve(WEBSOCKET_MAX_MESSAGE_BYTES="2048")
        session = await connect(server.url, "den", token=server.token("user1", lifetime=60))
        events = await self.record(session)
        with self.assertRaises(SignalError) as raised:
            session.send("x" * 2048)
        session.send("x" * 1900)
        self.assertEqual(raised.exception.code, "message_too_big")
        await session.close()
        self.assertEqual(events.of(Error), [])

    async def test_refused_login_raises_from_connect(self) -> None:
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
    urllib.request.urlopen(request, timeout=TIMEOUT).close()
