"""Sessions on scripted sockets and a clock that the tests advance (docs/build/clients.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable
from pathlib import Path
from unittest import TestCase, mock

from signaling_client import (
    Error,
    Event,
    IceServers,
    Message,
    PeerJoined,
    PeerLeft,
    PeerState,
    ServerMessage,
    Signal,
    SignalError,
    State,
)
from signaling_client.membership import room_url
from signaling_client.reconnect import retry_delay
from signaling_client.tokens import lifetime_of

from signaling_client.send_buffer import ACK_BYTES
from .scripted import BOB, REQUIRED, RESUME_FAILED, ScriptedCase, resumed, settled, success, users

CLOSES = json.loads((Path(__file__).parents[2] / "closes.json").read_text())
EVENTS = json.loads((Path(__file__).parents[2] / "events.json").read_text())
FEATURES = ["resume", "peer_state", "ice", "limits"]


class TokenSource:
    """A `get_token` that returns these tokens, then the last one, and records its arguments."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens
        self.renewals: list[bool] = []

    def __call__(self, renew: bool) -> str:
        self.renewals.append(renew)
        return self.tokens[min(len(self.renewals), len(self.tokens)) - 1]


def jwt(lifetime: float) -> str:
    """A token by a clock that is hours off, as a machine without network time may have it."""
    issued_at = 7200
    text = json.dumps({"iat": issued_at, "exp": issued_at + lifetime})
    claims = base64.urlsafe_b64encode(text.encode()).decode()
    return f"x.{claims.rstrip('=')}.x"


class Decisions(TestCase):
    def test_retry_delay_is_random_below_a_limit_that_doubles_up_to_the_maximum(
        self,
    ) -> None:
        longest = [retry_delay(number, 1.0) for number in (0, 1, 2, 3, 4, 5, 6, 50, 100_000)]

        self.assertEqual(longest, [0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 15.0, 15.0, 15.0])
        self.assertEqual({retry_delay(number, 0.0) for number in range(10)}, {0.0})

    def test_room_url_is_below_the_path_of_the_server(self) -> None:
        for url, room, expected in [
            ("https://example.com", "den", "wss://example.com/ws/den"),
            ("http://[::1]:8080/", "a/b c?", "ws://[::1]:8080/ws/a%2Fb%20c%3F"),
            ("wss://example.com/calls/", "é", "wss://example.com/calls/ws/%C3%A9"),
        ]:
            self.assertEqual(room_url(url, room), expected)
        for url in ("example.com", "ftp://example.com", "http://", ""):
            with self.assertRaises(ValueError):
                room_url(url, "den")

    def test_lifetime_of_a_token_is_read_or_none(self) -> None:
        self.assertEqual(lifetime_of(jwt(1800)), 1800)
        for claims in (b"[]", b'{"exp":1704067200}', b'{"exp":"a","iat":1}'):
            self.assertIsNone(lifetime_of(f"x.{base64.b64encode(claims).decode()}.x"))
        for invalid in ("", "opaque", "a.b.c"):
            self.assertIsNone(lifetime_of(invalid))


class Joining(ScriptedCase):
    async def test_authenticates_with_its_features(self) -> None:
        session = await self.join(room="Zimmer 7/é", client_id="alice-1")

        self.assertEqual(self.socket.url, "wss://example.com/calls/ws/Zimmer%207%2F%C3%A9")
        auth = {"type": "auth_token", "token": "T", "clientId": "alice-1", "features": FEATURES}
        self.assertEqual(self.socket.sent, [auth])
        self.assertEqual((session.id, session.username), ("alice-1", "alice"))
        self.assertEqual((session.state, list(session.peers)), ("connected", ["bob-1"]))
        self.assertTrue(session.peers["bob-1"].polite)

    async def test_guest_sends_no_token(self) -> None:
        await self.join(token=None)

        self.assertEqual(self.socket.sent, [{"type": "auth_token", "features": FEATURES}])

    async def test_refusal_raises_from_connect(self) -> None:
        connecting = await self.start()
        error = {"type": "error", "code": "room_not_allowed", "message": "No", "retry": False}
        await self.socket.receive(error)
        await self.socket.drop(1008, "Room not allowed")

        with self.assertRaises(SignalError) as raised:
            await connecting
        self.assertEqual(
            (raised.exception.code, raised.exception.fatal), ("room_not_allowed", True)
        )

    async def test_unreachable_server_is_retried_without_end(self) -> None:
        connecting = await self.start()
        for _ in range(2_000):
            await self.socket.drop()
            await self.clock.advance(7.5)

        self.assertEqual(len(self.sockets), 2_001)
        self.assertFalse(connecting.done())

    async def test_cancelled_connect_closes_its_socket(self) -> None:
        connecting = await self.start()
        connecting.cancel()
        await settled()

        self.assertTrue(connecting.cancelled())
        self.assertEqual((self.socket.closed_with, self.socket.is_aborted), (1000, True))

    async def test_socket_that_does_not_open_is_abandoned_after_ten_seconds(self) -> None:
        async def never(url: str) -> None:
            self.sockets.append(None)  # type: ignore[arg-type]
            await asyncio.get_running_loop().create_future()

        self.open = never  # type: ignore[method-assign, assignment]
        await self.start()
        await self.clock.advance(10.1)
        self.assertEqual(len(self.sockets), 1)
        await self.clock.advance(0.1)
        self.assertEqual(len(self.sockets), 2)


def as_listed(event: Event) -> dict[str, Any]:
    """An event in the form of `clients/events.json`."""
    match event:
        case State(state):
            return {"event": "state", "state": state}
        case PeerJoined(peer, existing):
            return {"event": "peer-joined", "id": peer.id, "existing": existing}
        case PeerLeft(peer):
            return {"event": "peer-left", "id": peer.id}
        case PeerState(peer, state):
            return {"event": "peer", "id": peer.id, "state": state}
        case Message(peer, data):
            return {"event": "message", "id": peer.id, "data": data}
        case ServerMessage(data):
            return {"event": "server-message", "data": data}
        case Signal(peer, kind, payload):
            return {"event": "signal", "id": peer.id, "kind": kind, "payload": payload}
        case IceServers(servers):
            return {"event": "ice-servers", "urls": [url for one in servers for url in one["urls"]]}
        case Error(error):
            return {"event": "error", "code": error.code}
    raise AssertionError(event)


class Events(ScriptedCase):
    async def test_every_frame_is_reported_as_listed(self) -> None:
        connecting = await self.start()
        await self.socket.receive(REQUIRED)
        seq = 0
        for row in EVENTS:
            self.events.clear()
            if "join" in row:
                is_first, seq = seq == 0, 1
                if not is_first:
                    await self.clock.advance(0.15)
                    self.events.clear()
                    await self.socket.receive(REQUIRED, RESUME_FAILED)
                await self.socket.receive(success(), users(*row["join"]))
                if is_first:
                    await self.read(await connecting)
            elif "close" in row:
                await self.socket.drop(row["close"])
            else:
                seq += 1
                await self.socket.receive({"seq": seq, **row["frame"]})
            self.assertEqual([as_listed(event) for event in self.events], row["events"], row)


class Reconnecting(ScriptedCase):
    async def test_resumes_and_repeats_the_frames_that_may_have_been_lost(self) -> None:
        session = await self.join()
        session.send("arrived")
        await self.clock.advance(15)
        self.assertEqual(self.socket.sent[-1], {"type": "ping"})
        await self.socket.receive({"seq": 2, "type": "pong"})
        session.send("perhaps", to="bob-1")
        await settled()
        perhaps = {"type": "message", "data": "perhaps", "to": "bob-1", "id": 2, "ack": 2}
        self.assertEqual(self.socket.sent[-1], perhaps)

        await self.socket.drop()
        session.send("while disconnected")
        self.assertEqual(self.events, [State("reconnecting", retry_in=0.15, code=1006)])
        await self.clock.advance(0.15)
        await self.socket.receive(REQUIRED)
        resume = {"type": "resume", "resume_token": "R1", "last_seq": 2}
        self.assertEqual(self.socket.sent, [resume])
        missed = {"seq": 3, "type": "message", "data": "missed", "from": "bob-1"}
        await self.socket.receive(resumed(1, resume_token="R2"), missed)

        again = [(frame["data"], frame["id"]) for frame in self.socket.sent[1:]]
        self.assertEqual(again, [("perhaps", 2), ("while disconnected", 3)])
        bob = session.peers["bob-1"]
        self.assertEqual(
            self.events[1:], [State("connected", resumed=True), Message(bob, "missed")]
        )
        await self.reconnect()
        resume = {"type": "resume", "resume_token": "R2", "last_seq": 3}
        self.assertEqual(self.socket.sent, [resume])

    async def test_a_refused_frame_is_not_repeated(self) -> None:
        session = await self.join()
        for text in ("first", "refused", "third"):
            session.send(text)
        await self.clock.advance(15)
        session.send("after the ping")
        refusal = {"seq": 2, "type": "error", "code": "target_not_found", "message": "x", "id": 2}
        await self.socket.receive(refusal)
        await self.reconnect()
        await self.socket.receive(resumed(0))
        again = [frame["data"] for frame in self.socket.sent[1:]]
        self.assertEqual(again, ["first", "third", "after the ping"])

        await self.clock.advance(15)
        session.send("last")
        await self.socket.receive({"seq": 3, "type": "pong"})
        await self.reconnect()
        await self.socket.receive(resumed(0))
        self.assertEqual([frame["data"] for frame in self.socket.sent[1:]], ["last"])

    async def test_failed_resume_is_followed_by_authentication_on_the_same_socket(
        self,
    ) -> None:
        session = await self.join()
        session.send("before the new join")
        await self.reconnect()
        session.send("before the new join, too")
        await self.socket.receive(RESUME_FAILED)
        again = {"type": "auth_token", "token": "T", "clientId": "alice-1", "features": FEATURES}
        self.assertEqual(self.socket.sent[1:], [again])
        await self.socket.receive(success(resume_token="R9"), users(BOB))

        self.assertEqual((self.errors(), self.left(), len(self.sockets)), ([], [], 2))
        session.send("after the new join")
        await settled()
        sent = self.socket.sent_of("message")
        self.assertEqual(
            [(frame["data"], frame["ack"]) for frame in sent], [("after the new join", 1)]
        )
        await self.reconnect()
        resume = {"type": "resume", "resume_token": "R9", "last_seq": 1}
        self.assertEqual(self.socket.sent, [resume])
        await self.socket.receive(resumed())
        self.assertEqual(
            [frame["data"] for frame in self.socket.sent_of("message")], ["after the new join"]
        )

    async def test_failed_resume_is_not_retried(self) -> None:
        await self.join()
        await self.reconnect()
        await self.socket.receive(RESUME_FAILED)
        await self.reconnect(0.3)

        self.assertEqual([frame["type"] for frame in self.socket.sent], ["auth_token"])

    async def test_send_buffer_is_bounded_and_drops_the_oldest(self) -> None:
        session = await self.join()
        await self.socket.drop()
        for number in range(250):
            session.send(number)
        await self.clock.advance(0.15)
        await self.socket.receive(REQUIRED, resumed())

        sent = [frame["data"] for frame in self.socket.sent_of("message")]
        self.assertEqual(sent, list(range(50, 250)))

    async def test_bound_of_the_send_buffer_drops_nothing_while_connected(self) -> None:
        session = await self.join()
        for number in range(300):
            session.send(number)
        await self.clock.advance(15)

        sent = [frame["data"] for frame in self.socket.sent_of("message")]
        self.assertEqual(sent, list(range(300)))
        await self.socket.receive({"seq": 2, "type": "pong"})
        await self.reconnect()
        await self.socket.receive(resumed())
        self.assertEqual(self.socket.sent_of("message"), [])

    async def test_pong_confirms_only_the_frames_before_its_ping(self) -> None:
        session = await self.join()
        session.send("before")
        await self.clock.advance(15)
        session.send("after")
        for number in range(199):
            session.send(number)  # the bound drops the frame that the pong confirms
        await self.socket.receive({"seq": 2, "type": "pong"})
        await self.reconnect()
        await self.socket.receive(resumed())

        sent = [frame["data"] for frame in self.socket.sent_of("message")]
        self.assertEqual(sent, ["after", *range(199)])

    async def test_replayed_pong_of_the_previous_socket_confirms_nothing(
        self,
    ) -> None:
        session = await self.join()
        await self.clock.advance(15)
        session.send("perhaps")
        await self.reconnect()
        frames = [
            {"seq": seq, "type": "message", "data": seq, "from": "bob-1"} for seq in range(2, 35)
        ]
        await self.socket.receive(resumed(34), *frames, {"seq": 35, "type": "pong"})
        self.assertEqual(
            len(self.socket.sent_of("ping")), 1, "33 frames are acknowledged by a ping"
        )

        await self.reconnect()
        await self.socket.receive(resumed())
        self.assertEqual([frame["data"] for frame in self.socket.sent_of("message")], ["perhaps"])

    async def test_frames_of_an_abandoned_socket_are_ignored(self) -> None:
        session = await self.join()
        stale = self.socket
        await self.clock.advance(25)
        await self.clock.advance(0.15)
        await stale.receive({"seq": 2, "type": "message", "data": "late", "from": "bob-1"})
        await stale.drop(4001, "Replaced by a new connection")
        await self.socket.receive(REQUIRED)

        self.assertEqual(self.socket.sent[0]["last_seq"], 1)
        self.assertEqual((session.state, self.errors()), ("reconnecting", []))
        self.assertEqual([event for event in self.events if isinstance(event, Message)], [])

    async def test_retry_delay_doubles_up_to_the_limit(self) -> None:
        await self.join()
        for _ in range(8):
            await self.socket.drop()
            await self.clock.advance(self.states()[-1].retry_in or 0)

        delays = [state.retry_in for state in self.states()]
        self.assertEqual(delays, [0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 7.5, 7.5])

    async def test_reconnects_after_the_delay_that_the_server_announces(self) -> None:
        await self.join()
        await self.socket.receive(
            {"type": "server_shutdown", "reconnect_in_ms": 4200},
            {"type": "error", "code": "server_restarting", "retry": True, "retry_after_ms": 9000},
        )
        await self.socket.drop(1012, "Server is restarting")

        self.assertEqual(self.states()[-1].retry_in, 4.2)
        await self.clock.advance(4.199)
        self.assertEqual(len(self.sockets), 1)
        await self.clock.advance(0.002)
        self.assertEqual(len(self.sockets), 2)
        await self.socket.drop()
        self.assertEqual(self.states()[-1].retry_in, 0.15, "the announced delay applies once")
        await self.clock.advance(0.15)
        later = {"type": "error", "code": "room_full", "retry": True, "retry_after_ms": 5000}
        await self.socket.receive(later)
        await self.socket.drop(1008, "Room is full")
        self.assertEqual(self.states()[-1].retry_in, 5)


class Heartbeat(ScriptedCase):
    async def test_silent_socket_gets_a_ping_after_15_s_and_is_abandoned_10_s_later(self) -> None:
        await self.join()
        silent = self.socket
        await self.clock.advance(14.999)
        self.assertEqual(silent.sent_of("ping"), [])
        await self.clock.advance(0.001)
        self.assertEqual(len(silent.sent_of("ping")), 1)
        await self.clock.advance(9.999)
        self.assertEqual(self.events, [])
        await self.clock.advance(0.001)

        lost = State("reconnecting", retry_in=0.15, code=1006, reason="No response from the server")
        self.assertEqual(self.events, [lost])
        self.assertEqual(
            (silent.closed_with, silent.is_aborted),
            (None, True),
            "no Close frame: the membership is kept",
        )

    async def test_every_frame_postpones_the_ping(self) -> None:
        await self.join()
        for seq in range(2, 10):
            await self.clock.advance(14)
            await self.socket.receive({"seq": seq, "type": "message", "data": 0, "from": "bob-1"})

        self.assertEqual(self.socket.sent_of("ping"), [])

    async def test_received_frames_are_acknowledged_in_the_next_frame_or_after_32(
        self,
    ) -> None:
        session = await self.join()
        messages = [
            {"seq": seq, "type": "message", "data": seq, "from": "bob-1"} for seq in range(2, 70)
        ]
        await self.socket.receive(*messages[:30])
        self.assertEqual(self.socket.sent_of("ping"), [])
        await self.socket.receive(messages[30])
        self.assertEqual(self.socket.sent[1:], [{"type": "ping", "ack": 32}])
        await self.socket.receive({"seq": 33, "type": "pong"})
        session.send("x")
        session.send("y")
        await settled()

        sent = self.socket.sent_of("message")
        self.assertEqual([frame.get("ack") for frame in sent], [33, None])

    async def test_socket_that_accepts_no_data_is_abandoned(self) -> None:
        session = await self.join()
        self.socket.is_stuck = True
        session.send("perhaps")
        await self.clock.advance(25.2)
        await self.socket.receive(REQUIRED, resumed())

        self.assertEqual([frame["data"] for frame in self.socket.sent_of("message")], ["perhaps"])

    async def test_server_that_completes_no_join_in_ten_seconds_is_abandoned(self) -> None:
        await self.start()
        await self.clock.advance(5)
        await self.socket.receive(REQUIRED)
        await self.clock.advance(4.999)
        self.assertFalse(self.socket.is_aborted)
        await self.clock.advance(0.001)

        self.assertTrue(self.socket.is_aborted)


class Closes(ScriptedCase):
    async def test_every_close_is_handled_as_listed(self) -> None:
        for row in CLOSES:
            with self.subTest(code=row["code"], reason=row["reason"], error=row.get("error")):
                self.assertEqual(await self.then(row, has_source=True), row["then"])
                without = {"renew": "retry" if row.get("error", {}).get("retry") else "stop"}
                expected = without.get(row["then"], row["then"])
                self.assertEqual(await self.then(row, has_source=False), expected)

    async def then(self, row: dict[str, object], has_source: bool) -> str:
        source = TokenSource("T")
        session = await self.join(get_token=source if has_source else None)
        if isinstance(error := row.get("error"), dict):
            await self.socket.receive({"type": "error", "message": "x", **error})
        await self.socket.drop(int(str(row["code"])), str(row["reason"]))
        if session.state == "closed":
            self.assertEqual([fatal for _, fatal in self.errors()], [True])
            self.assertEqual((self.left(), dict(session.peers)), (["bob-1"], {}))
            return "stop"
        await self.clock.advance(0.15)
        await self.socket.receive(REQUIRED)
        kind = "renew" if source.renewals == [False, True] else "retry"
        first = self.socket.sent[0]["type"]
        self.assertEqual(first, "auth_token" if kind == "renew" else "resume")
        await session.close()
        return kind

    async def test_error_before_a_close_decides_where_the_close_is_hidden(self) -> None:
        """WebKit and broken networks report 1006 without a reason."""
        for row in (row for row in CLOSES if "error" in row):
            with self.subTest(error=row["error"]):
                hidden = {**row, "code": 1006, "reason": ""}
                self.assertEqual(await self.then(hidden, has_source=True), row["then"])

    async def test_shutdown_before_a_hidden_close_sets_the_delay(self) -> None:
        await self.join()
        await self.socket.receive({"type": "server_shutdown", "reconnect_in_ms": 7000})
        await self.socket.drop(1006)

        self.assertEqual([state.retry_in for state in self.states()], [7.0])


class Limits(ScriptedCase):
    async def test_message_over_the_limit_is_refused_and_not_sent(self) -> None:
        session = await self.join(welcome=success(limits={"max_message_bytes": 200}))
        before = len(self.socket.sent)
        frame = len(json.dumps({"type": "message", "data": "", "id": 1}, separators=(",", ":")))
        session.send("é" * ((200 - frame - ACK_BYTES) // 2))
        with self.assertRaises(SignalError) as raised:
            session.send("é" * 100)
        await settled()

        self.assertEqual((raised.exception.code, raised.exception.fatal), ("message_too_big", False))
        self.assertEqual(len(self.socket.sent), before + 1)
        self.assertEqual((session.state, self.errors()), ("connected", []))

    async def test_limit_of_the_server_may_change(self) -> None:
        session = await self.join(welcome=success(limits={"max_message_bytes": 1000}))
        session.send("x" * 500)
        await self.socket.receive(
            {"seq": 2, "type": "limits", "limits": {"max_message_bytes": 300}}
        )
        with self.assertRaises(SignalError):
            session.send("x" * 500)

        await self.reconnect()
        await self.socket.receive(resumed(limits={"max_message_bytes": 300}))
        self.assertEqual(self.errors(), [("message_too_big", False)], "what was kept is too large")
        self.assertEqual(self.socket.sent_of("message"), [])

        await self.reconnect()
        await self.socket.receive(resumed(limits={"max_message_bytes": 1000}))
        session.send("x" * 500)
        await settled()
        self.assertEqual(len(self.socket.sent_of("message")), 1)

    async def test_server_that_tells_no_limit_decides_itself(self) -> None:
        session = await self.join()
        session.send("x" * 100_000)
        await settled()

        self.assertEqual(len(self.socket.sent_of("message")), 1)


class Tokens(ScriptedCase):
    async def test_refused_token_is_renewed_once(self) -> None:
        renewals = []

        async def get_token(renew: bool) -> str:
            renewals.append(renew)
            return "T"

        connecting = await self.start(get_token=get_token)
        for _ in range(2):
            await self.socket.receive(REQUIRED)
            await self.socket.drop(1008, "Invalid token")
            await self.clock.advance(0.3)

        with self.assertRaises(SignalError) as raised:
            await connecting
        self.assertTrue(raised.exception.fatal)
        self.assertEqual((renewals, len(self.sockets)), ([False, True], 2))

    async def test_token_may_be_renewed_again_after_every_join(self) -> None:
        source = TokenSource("T")
        session = await self.join(get_token=source)
        for _ in range(3):
            await self.socket.drop(1008, "Token expired")
            await self.clock.advance(0.15)
            await self.socket.receive(REQUIRED, success(), users(BOB))

        await self.reconnect()
        await self.socket.receive(RESUME_FAILED, success(), users(BOB))

        self.assertEqual(source.renewals, [False, True, True, True, False])
        self.assertEqual(session.state, "connected")

    async def test_new_token_is_sent_one_minute_before_the_old_one_expires(self) -> None:
        source = TokenSource(jwt(1800), jwt(3600))
        await self.join(get_token=source)
        await self.stay_connected(1735)
        self.assertEqual(source.renewals, [False])
        await self.stay_connected(10)

        tokens = [frame["token"] for frame in self.socket.sent_of("auth_token")]
        self.assertEqual((tuple(tokens), source.renewals), (source.tokens, [False, True]))

    async def test_lifetime_that_the_server_tells_counts_from_its_receipt(self) -> None:
        """The token itself states another lifetime; a clock has no part in it."""
        source = TokenSource(jwt(100_000), jwt(100_000))
        await self.join(welcome=success(expires_in=600), get_token=source)
        await self.stay_connected(535)
        self.assertEqual(source.renewals, [False])
        await self.stay_connected(10)
        self.assertEqual(source.renewals, [False, True])

        await self.socket.receive({"type": "token_refreshed", "expires_in": 300})
        await self.stay_connected(235)
        self.assertEqual(source.renewals, [False, True])
        await self.stay_connected(10)
        self.assertEqual(source.renewals, [False, True, True])

    async def test_clock_of_this_machine_does_not_matter(self) -> None:
        for now in (0.0, 4e9):
            with mock.patch("time.time", lambda now=now: now):
                source = TokenSource(jwt(1800))
                session = await self.join(get_token=source)
                await self.stay_connected(1000)
                self.assertEqual(source.renewals, [False])
                await session.close()

    async def test_short_lived_token_is_renewed_half_way(self) -> None:
        source = TokenSource(jwt(60), jwt(600))
        await self.join(get_token=source)
        await self.stay_connected(29)
        self.assertEqual(source.renewals, [False])
        await self.stay_connected(2)
        self.assertEqual(source.renewals, [False, True])

    async def test_token_renewed_while_disconnected_is_sent_after_the_resume(self) -> None:
        await self.join(get_token=lambda renew: jwt(60 + 600 * renew))
        await self.stay_connected(29)
        await self.reconnect()
        await self.clock.advance(5)
        self.assertEqual(self.socket.sent_of("auth_token"), [])
        await self.socket.receive(resumed())

        tokens = [frame["token"] for frame in self.socket.sent_of("auth_token")]
        self.assertEqual(tokens, [jwt(660)])

    async def test_renewal_survives_the_loss_of_the_socket(self) -> None:
        renewed = asyncio.get_running_loop().create_future()

        async def get_token(renew: bool) -> str:
            return await renewed if renew else jwt(60)

        await self.join(get_token=get_token)
        await self.stay_connected(31)
        await self.reconnect()
        renewed.set_result(jwt(660))
        await settled()
        self.assertEqual(self.socket.sent_of("auth_token"), [])
        await self.socket.receive(resumed())

        self.assertEqual([frame["type"] for frame in self.socket.sent], ["resume", "auth_token"])

    async def test_failed_renewal_is_reported_and_retried(self) -> None:
        answers: list[str | Exception] = [jwt(60), OSError("no route"), jwt(660)]

        async def get_token(renew: bool) -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        session = await self.join(get_token=get_token)
        await self.stay_connected(44)
        self.assertEqual((len(answers), self.errors()), (1, [("no_token", False)]))
        await self.stay_connected(2)

        self.assertEqual((len(answers), session.state), (0, "connected"))
        self.assertEqual(len(self.socket.sent_of("auth_token")), 2)

    async def test_get_token_is_retried_after_an_error_and_not_after_a_fatal_one(self) -> None:
        answers: list[Exception] = [
            SignalError("http_429", "later", retry_after=7),
            SignalError("unauthorized", "no", True),
        ]

        def get_token(renew: bool) -> Awaitable[str]:
            raise answers.pop(0)

        connecting = await self.start(get_token=get_token)
        with self.assertLogs("signaling_client", logging.WARNING) as logs:
            await self.socket.receive(REQUIRED)
        self.assertIn("http_429", logs.output[0])
        self.assertTrue(self.sockets[0].is_aborted)
        await self.clock.advance(6.9)
        self.assertEqual(len(self.sockets), 1, "retry_after was seven seconds")
        await self.clock.advance(0.2)
        await self.socket.receive(REQUIRED)

        with self.assertRaisesRegex(SignalError, "no"):
            await connecting

    async def test_slow_get_token_is_cancelled(self) -> None:
        renewals = []

        async def get_token(renew: bool) -> str:
            renewals.append(renew)
            await asyncio.sleep(60)
            return "T"

        await self.start(get_token=get_token)
        await self.socket.receive(REQUIRED)
        await self.clock.advance(10.2)

        self.assertEqual((len(self.sockets), renewals), (2, [False]))

    async def test_no_log_line_and_no_repr_contains_a_token(self) -> None:
        with self.assertLogs(level=logging.DEBUG) as logs:
            session = await self.join(token="s3cret")
            await self.reconnect()
            await self.socket.receive(RESUME_FAILED, {"type": "error", "code": "x", "message": "y"})
            await self.socket.drop(1008, "Invalid token")

        for text in (*logs.output, repr(session), repr(self.events)):
            self.assertNotIn("s3cret", text)
            self.assertNotIn("R1", text)

    async def stay_connected(self, seconds: float) -> None:
        """Advances the clock while the server answers every ping."""
        for _ in range(int(seconds)):
            await self.clock.advance(1)
            if self.socket.sent[-1]["type"] == "ping":
                await self.socket.receive({"type": "pong"})


class Room(ScriptedCase):
    async def test_signals_and_messages_are_sent_and_received_with_their_sender(self) -> None:
        session = await self.join()
        offer, candidate = {"type": "offer", "sdp": "v=0", "pc": "k"}, {"candidate": "candidate:1"}
        await self.socket.receive(
            {"seq": 2, "type": "offer", "offer": offer, "from": "bob-1"},
            {"seq": 3, "type": "ice_candidate", "candidate": candidate, "from": "bob-1"},
            {"seq": 4, "type": "ice_candidate", "candidate": "", "from": "bob-1"},
            {"seq": 5, "type": "ice_candidate", "from": "bob-1"},
            {"seq": 6, "type": "of_the_future", "from": "bob-1"},
            {"seq": 7, "type": "message", "data": "x", "from": "unknown-1"},
        )
        bob = session.peers["bob-1"]
        end = Signal(bob, "ice_candidate", None)
        expected = [
            Signal(bob, "offer", offer),
            Signal(bob, "ice_candidate", candidate),
            end,
            end,
        ]
        self.assertEqual(self.events, expected)

        session.signal("answer", {"type": "answer", "sdp": "v=0"}, "bob-1")
        session.signal("ice_candidate", None, to="bob-1")
        await settled()
        answer, last = self.socket.sent[-2:]
        self.assertEqual((answer["answer"]["sdp"], answer["to"]), ("v=0", "bob-1"))
        self.assertEqual((last["type"], last["candidate"]), ("ice_candidate", None))

    async def test_peers_join_and_leave(self) -> None:
        session = await self.join()
        carol = {"client_id": "carol-1", "username": "carol", "polite": False}
        await self.socket.receive({"seq": 2, "type": "user_joined", **carol})
        self.assertEqual(self.events, [PeerJoined(session.peers["carol-1"])])
        await self.socket.receive({"seq": 3, "type": "user_joined", **carol})
        await self.socket.receive({"seq": 4, "type": "user_left", "client_id": "bob-1"})
        await self.socket.receive({"seq": 5, "type": "user_left", "client_id": "bob-1"})

        self.assertEqual(
            (len(self.events), self.left(), list(session.peers)), (2, ["bob-1"], ["carol-1"])
        )

    async def test_peer_has_the_display_name_of_its_token(self) -> None:
        session = await self.join()
        carol = {"client_id": "carol-1", "username": "carol", "polite": False, "name": "Carol C."}
        await self.socket.receive({"seq": 2, "type": "user_joined", **carol})
        names = [peer.name for peer in session.peers.values()]
        self.assertEqual(names, [None, "Carol C."])
        await self.reconnect()
        await self.socket.receive(RESUME_FAILED, success(), users({**carol, "name": "C."}))

        self.assertEqual(session.peers["carol-1"].name, "C.")

    async def test_after_a_crash_a_missing_peer_is_removed_later_if_it_was_connected(self) -> None:
        for connected, after in ((False, []), (True, ["bob-1"])):
            self.events.clear()
            session = await self.join()
            session.peers["bob-1"].connected = connected
            await self.reconnect()
            await self.socket.receive(RESUME_FAILED, success(), users())
            self.assertEqual(self.left(), [] if connected else ["bob-1"])
            self.events.clear()
            for _ in range(3):
                await self.clock.advance(10.1)
                await self.socket.receive({"type": "pong"})

            self.assertEqual((self.left(), dict(session.peers)), (after, {}))
            await session.close()

    async def test_after_a_crash_a_peer_that_returns_in_time_keeps_its_object_and_gets_its_new_role(
        self,
    ) -> None:
        session = await self.join()
        bob = session.peers["bob-1"]
        bob.connected = True
        await self.reconnect()
        await self.socket.receive(RESUME_FAILED, success(), users())
        await self.clock.advance(5)
        await self.socket.receive({"seq": 2, "type": "user_joined", **BOB, "polite": False})
        for _ in range(3):
            await self.clock.advance(14)
            await self.socket.receive({"type": "pong"})

        self.assertEqual((self.left(), bob.polite), ([], False))
        self.assertIs(session.peers["bob-1"], bob)

    async def test_new_ice_servers_are_stored_and_reported(self) -> None:
        session = await self.join()
        servers = [{"urls": ["turn:turn.example.com"], "username": "1:alice", "credential": "c5ed"}]
        await self.socket.receive(
            {"seq": 2, "type": "ice_servers", "iceServers": servers, "ttl": 60}
        )

        self.assertEqual((session.ice_servers, len(self.events)), (servers, 1))
        self.assertNotIn("c5ed", repr(self.events))

    async def test_ice_transport_policy_is_that_of_the_last_token(self) -> None:
        session = await self.join()
        self.assertEqual(session.ice_transport_policy, "all")
        refreshed = {"type": "token_refreshed", "expires_in": 60}
        for seq, (frame, policy, events) in enumerate(
            [
                ({**refreshed, "iceTransportPolicy": "relay"}, "relay", 1),
                ({"type": "ice_servers", "iceServers": [], "ttl": 60}, "relay", 1),
                ({**refreshed, "iceTransportPolicy": "relay"}, "relay", 1),
                (refreshed, "all", 2),
            ],
            start=2,
        ):
            await self.socket.receive({"seq": seq, **frame})
            self.assertEqual((session.ice_transport_policy, len(self.events)), (policy, events))

    async def test_error_without_a_close_is_reported_and_the_session_continues(self) -> None:
        session = await self.join()
        await self.socket.receive(
            {"seq": 2, "type": "error", "code": "target_not_found", "message": "x"}
        )

        self.assertEqual(
            (self.errors(), session.state), ([("target_not_found", False)], "connected")
        )

    async def test_send_raises_for_what_is_not_json(self) -> None:
        session = await self.join()
        for invalid in (object(), float("nan"), "\ud800", {1: {2}}):
            with self.assertRaises((TypeError, ValueError)):
                session.send(invalid)
        session.send("well")
        await settled()

        self.assertEqual([frame["id"] for frame in self.socket.sent_of("message")], [1])

    async def test_sent_data_is_encoded_at_the_time_of_the_call(self) -> None:
        session = await self.join()
        await self.socket.drop()
        data = {"muted": True}
        session.send(data)
        data["muted"] = False
        await self.clock.advance(0.15)
        await self.socket.receive(REQUIRED, resumed())

        self.assertEqual(self.socket.sent_of("message")[0]["data"], {"muted": True})


class Leaving(ScriptedCase):
    async def test_close_sends_queued_frames_then_closes_the_socket_and_ends_the_events(
        self,
    ) -> None:
        session = await self.join()
        session.send("bye")
        await session.close()
        await settled()

        self.assertEqual([frame["data"] for frame in self.socket.sent_of("message")], ["bye"])
        self.assertEqual((self.socket.closed_with, self.socket.is_aborted), (1000, True))
        self.assertEqual((self.left(), self.events[-1]), (["bob-1"], State("closed", code=1000)))
        self.assertEqual([event async for event in session], [])
        session.send("too late")
        await session.close()

    async def test_close_while_disconnected_returns_at_once(self) -> None:
        session = await self.join()
        await self.socket.drop()
        await session.close()
        await self.clock.advance(60)

        self.assertEqual((session.state, len(self.sockets)), ("closed", 1))

    async def test_close_aborts_a_socket_that_accepts_no_data(self) -> None:
        session = await self.join()
        self.socket.is_stuck = True
        session.send("bye")
        closing = asyncio.create_task(session.close())
        await self.clock.advance(2.9)
        self.assertFalse(closing.done())
        await self.clock.advance(0.2)

        self.assertTrue(closing.done() and self.socket.is_aborted)

    async def test_cancelled_close_still_aborts_the_socket(self) -> None:
        session = await self.join()
        self.socket.is_stuck = True
        session.send("bye")
        closing = asyncio.create_task(session.close())
        await settled()
        closing.cancel()
        await settled()

        self.assertTrue(closing.cancelled() and self.socket.is_aborted)

    async def test_malformed_frame_ends_the_session_with_an_error(self) -> None:
        session = await self.join()
        with self.assertLogs("signaling_client", logging.ERROR):
            await self.socket.receive({"seq": "2", "type": "pong"})

        self.assertEqual((self.errors(), session.state), ([("internal_error", True)], "closed"))

    async def test_event_queue_is_bounded_and_reports_dropped_events(self) -> None:
        connecting = await self.start()
        await self.socket.receive(REQUIRED)
        await self.socket.receive(success(), users(BOB))
        session = await connecting
        with self.assertLogs("signaling_client", logging.WARNING) as logs:
            for seq in range(2, 1_100):
                frame = {"seq": seq, "type": "message", "data": seq, "from": "bob-1"}
                await self.socket.receive(frame)
                if self.socket.sent[-1]["type"] == "ping":
                    await self.socket.receive({"type": "pong"})

        self.assertEqual(len(logs.output), 1)
        lost = await anext(session)
        rest = [await anext(session) for _ in range(1_000)]
        assert isinstance(lost, Error)
        self.assertEqual(lost.error.code, "events_lost")
        self.assertIn("100 events", str(lost.error))
        bob = session.peers["bob-1"]
        self.assertEqual(rest, [Message(bob, seq) for seq in range(100, 1_100)])
