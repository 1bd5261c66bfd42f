"""A session's life on sockets that break, on a clock that the tests move (docs/build/clients.md)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable
from pathlib import Path
from unittest import TestCase

from signaling_client import Error, Message, PeerJoined, Signal, SignalError, State
from signaling_client.signal import address, expiry_of, pause_before

from .scripted import BOB, REQUIRED, RESUME_FAILED, ScriptedCase, resumed, settled, success, users

CLOSES = json.loads((Path(__file__).parents[2] / "closes.json").read_text())
FEATURES = ["resume", "peer_state", "ice"]


class Source:
    """A `get_token` that gives these, the last one for ever, and notes how it was asked."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens
        self.asked: list[bool] = []

    def __call__(self, renew: bool) -> str:
        self.asked.append(renew)
        return self.tokens[min(len(self.asked), len(self.tokens)) - 1]


def jwt(expiry: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expiry}).encode()).decode()
    return f"x.{claims.rstrip('=')}.x"


class Decisions(TestCase):
    def test_a_pause_is_anything_up_to_twice_as_long_each_time_and_never_above_the_longest(
        self,
    ) -> None:
        longest = [pause_before(number, 1.0) for number in (0, 1, 2, 3, 4, 5, 6, 50, 100_000)]

        self.assertEqual(longest, [0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 15.0, 15.0, 15.0])
        self.assertEqual({pause_before(number, 0.0) for number in range(10)}, {0.0})

    def test_the_address_of_a_room_is_below_that_of_the_server(self) -> None:
        for url, room, expected in [
            ("https://example.com", "den", "wss://example.com/ws/den"),
            ("http://[::1]:8080/", "a/b c?", "ws://[::1]:8080/ws/a%2Fb%20c%3F"),
            ("wss://example.com/calls/", "é", "wss://example.com/calls/ws/%C3%A9"),
        ]:
            self.assertEqual(address(url, room), expected)
        for url in ("example.com", "ftp://example.com", "http://", ""):
            with self.assertRaises(ValueError):
                address(url, "den")

    def test_a_token_says_when_it_runs_out_or_nothing(self) -> None:
        self.assertEqual(expiry_of(jwt(1704067200)), 1704067200)
        for odd in ("", "opaque", "a.b.c", f"x.{base64.b64encode(b'[]').decode()}.x"):
            self.assertIsNone(expiry_of(odd))


class Entering(ScriptedCase):
    async def test_it_introduces_itself_with_what_it_can_do(self) -> None:
        session = await self.enter(room="Zimmer 7/é", client_id="alice-1")

        self.assertEqual(self.socket.url, "wss://example.com/calls/ws/Zimmer%207%2F%C3%A9")
        said = {"type": "auth_token", "token": "T", "clientId": "alice-1", "features": FEATURES}
        self.assertEqual(self.socket.sent, [said])
        self.assertEqual((session.id, session.username), ("alice-1", "alice"))
        self.assertEqual((session.state, list(session.peers)), ("connected", ["bob-1"]))
        self.assertTrue(session.peers["bob-1"].polite)

    async def test_a_guest_shows_no_token(self) -> None:
        await self.enter(token=None)

        self.assertEqual(self.socket.sent, [{"type": "auth_token", "features": FEATURES}])

    async def test_a_refusal_is_raised(self) -> None:
        joining = await self.begin()
        error = {"type": "error", "code": "room_not_allowed", "message": "No", "retry": False}
        await self.socket.says(error)
        await self.socket.breaks(1008, "Room not allowed")

        with self.assertRaises(SignalError) as raised:
            await joining
        self.assertEqual(
            (raised.exception.code, raised.exception.fatal), ("room_not_allowed", True)
        )

    async def test_a_server_that_is_not_there_is_tried_again_without_end(self) -> None:
        joining = await self.begin()
        for _ in range(2_000):
            await self.socket.breaks()
            await self.clock.passes(7.5)

        self.assertEqual(len(self.sockets), 2_001)
        self.assertFalse(joining.done())

    async def test_a_connect_that_is_cancelled_leaves_nothing_behind(self) -> None:
        joining = await self.begin()
        joining.cancel()
        await settled()

        self.assertTrue(joining.cancelled())
        self.assertEqual((self.socket.closed_with, self.socket.is_aborted), (1000, True))

    async def test_a_socket_that_does_not_open_is_given_up_after_ten_seconds(self) -> None:
        async def never(url: str) -> None:
            self.sockets.append(None)  # type: ignore[arg-type]
            await asyncio.get_running_loop().create_future()

        self.open = never  # type: ignore[method-assign, assignment]
        await self.begin()
        await self.clock.passes(10.1)
        self.assertEqual(len(self.sockets), 1)
        await self.clock.passes(0.1)
        self.assertEqual(len(self.sockets), 2)


class ComingBack(ScriptedCase):
    async def test_it_goes_on_where_it_was_and_says_again_what_may_not_have_arrived(self) -> None:
        session = await self.enter()
        session.send("arrived")
        await self.clock.passes(15)
        self.assertEqual(self.socket.sent[-1], {"type": "ping"})
        await self.socket.says({"seq": 2, "type": "pong"})
        session.send("perhaps", to="bob-1")
        await settled()
        perhaps = {"type": "message", "data": "perhaps", "to": "bob-1", "id": 2, "ack": 2}
        self.assertEqual(self.socket.sent[-1], perhaps)

        await self.socket.breaks()
        session.send("while away")
        self.assertEqual(self.told, [State("reconnecting", retry_in=0.15, code=1006)])
        await self.clock.passes(0.15)
        await self.socket.says(REQUIRED)
        resume = {"type": "resume", "resume_token": "R1", "last_seq": 2}
        self.assertEqual(self.socket.sent, [resume])
        missed = {"seq": 3, "type": "message", "data": "missed", "from": "bob-1"}
        await self.socket.says(resumed(1, resume_token="R2"), missed)

        again = [(frame["data"], frame["id"]) for frame in self.socket.sent[1:]]
        self.assertEqual(again, [("perhaps", 2), ("while away", 3)])
        bob = session.peers["bob-1"]
        self.assertEqual(self.told[1:], [State("connected", resumed=True), Message(bob, "missed")])
        await self.comes_back()
        resume = {"type": "resume", "resume_token": "R2", "last_seq": 3}
        self.assertEqual(self.socket.sent, [resume])

    async def test_a_resume_that_fails_is_followed_by_an_introduction_on_the_same_socket(
        self,
    ) -> None:
        session = await self.enter()
        session.send("of another life")
        await self.comes_back()
        session.send("of another life, too")
        await self.socket.says(RESUME_FAILED)
        again = {"type": "auth_token", "token": "T", "clientId": "alice-1", "features": FEATURES}
        self.assertEqual(self.socket.sent[1:], [again])
        await self.socket.says(success(resume_token="R9"), users(BOB))

        self.assertEqual((self.errors(), self.left(), len(self.sockets)), ([], [], 2))
        session.send("of this one")
        await settled()
        said = self.socket.said("message")
        self.assertEqual([(frame["data"], frame["ack"]) for frame in said], [("of this one", 1)])
        await self.comes_back()
        resume = {"type": "resume", "resume_token": "R9", "last_seq": 1}
        self.assertEqual(self.socket.sent, [resume])
        await self.socket.says(resumed())
        self.assertEqual([frame["data"] for frame in self.socket.said("message")], ["of this one"])

    async def test_a_resume_that_has_failed_is_not_tried_again(self) -> None:
        await self.enter()
        await self.comes_back()
        await self.socket.says(RESUME_FAILED)
        await self.comes_back(0.3)

        self.assertEqual([frame["type"] for frame in self.socket.sent], ["auth_token"])

    async def test_what_waits_is_bounded_and_the_oldest_goes_first(self) -> None:
        session = await self.enter()
        await self.socket.breaks()
        for number in range(250):
            session.send(number)
        await self.clock.passes(0.15)
        await self.socket.says(REQUIRED, resumed())

        said = [frame["data"] for frame in self.socket.said("message")]
        self.assertEqual(said, list(range(50, 250)))

    async def test_everything_is_sent_while_there_is_a_socket_however_much_it_is(self) -> None:
        session = await self.enter()
        for number in range(300):
            session.send(number)
        await self.clock.passes(15)

        said = [frame["data"] for frame in self.socket.said("message")]
        self.assertEqual(said, list(range(300)))
        await self.socket.says({"seq": 2, "type": "pong"})
        await self.comes_back()
        await self.socket.says(resumed())
        self.assertEqual(self.socket.said("message"), [])

    async def test_a_pong_answers_for_what_was_said_before_its_ping_alone(self) -> None:
        session = await self.enter()
        session.send("before")
        await self.clock.passes(15)
        session.send("after")
        for number in range(199):
            session.send(number)  # the bound pushes out what the pong was for
        await self.socket.says({"seq": 2, "type": "pong"})
        await self.comes_back()
        await self.socket.says(resumed())

        said = [frame["data"] for frame in self.socket.said("message")]
        self.assertEqual(said, ["after", *range(199)])

    async def test_a_pong_that_was_meant_for_another_socket_proves_nothing_on_this_one(
        self,
    ) -> None:
        session = await self.enter()
        await self.clock.passes(15)
        session.send("perhaps")
        await self.comes_back()
        frames = [
            {"seq": seq, "type": "message", "data": seq, "from": "bob-1"} for seq in range(2, 35)
        ]
        await self.socket.says(resumed(34), *frames, {"seq": 35, "type": "pong"})
        self.assertEqual(len(self.socket.said("ping")), 1, "33 frames want an ack")

        await self.comes_back()
        await self.socket.says(resumed())
        self.assertEqual([frame["data"] for frame in self.socket.said("message")], ["perhaps"])

    async def test_frames_of_a_socket_that_was_given_up_are_ignored(self) -> None:
        session = await self.enter()
        stale = self.socket
        await self.clock.passes(25)
        await self.clock.passes(0.15)
        await stale.says({"seq": 2, "type": "message", "data": "late", "from": "bob-1"})
        await stale.breaks(4001, "Replaced by a new connection")
        await self.socket.says(REQUIRED)

        self.assertEqual(self.socket.sent[0]["last_seq"], 1)
        self.assertEqual((session.state, self.errors()), ("reconnecting", []))
        self.assertEqual([event for event in self.told if isinstance(event, Message)], [])

    async def test_it_waits_longer_and_longer(self) -> None:
        await self.enter()
        for _ in range(8):
            await self.socket.breaks()
            await self.clock.passes(self.states()[-1].retry_in or 0)

        pauses = [state.retry_in for state in self.states()]
        self.assertEqual(pauses, [0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 7.5, 7.5])

    async def test_it_comes_back_when_the_server_says(self) -> None:
        await self.enter()
        await self.socket.says(
            {"type": "server_shutdown", "reconnect_in_ms": 4200},
            {"type": "error", "code": "server_restarting", "retry": True, "retry_after_ms": 9000},
        )
        await self.socket.breaks(1012, "Server is restarting")

        self.assertEqual(self.states()[-1].retry_in, 4.2)
        await self.clock.passes(4.199)
        self.assertEqual(len(self.sockets), 1)
        await self.clock.passes(0.002)
        self.assertEqual(len(self.sockets), 2)
        await self.socket.breaks()
        self.assertEqual(self.states()[-1].retry_in, 0.15, "that was said of one pause only")
        await self.clock.passes(0.15)
        later = {"type": "error", "code": "room_full", "retry": True, "retry_after_ms": 5000}
        await self.socket.says(later)
        await self.socket.breaks(1008, "Room is full")
        self.assertEqual(self.states()[-1].retry_in, 5)


class Silence(ScriptedCase):
    async def test_a_socket_is_asked_after_fifteen_seconds_and_given_up_ten_later(self) -> None:
        await self.enter()
        silent = self.socket
        await self.clock.passes(14.999)
        self.assertEqual(silent.said("ping"), [])
        await self.clock.passes(0.001)
        self.assertEqual(len(silent.said("ping")), 1)
        await self.clock.passes(9.999)
        self.assertEqual(self.told, [])
        await self.clock.passes(0.001)

        lost = State("reconnecting", retry_in=0.15, code=1006, reason="Nothing heard")
        self.assertEqual(self.told, [lost])
        self.assertEqual((silent.closed_with, silent.is_aborted), (None, True), "it keeps its seat")

    async def test_every_frame_begins_the_silence_anew(self) -> None:
        await self.enter()
        for seq in range(2, 10):
            await self.clock.passes(14)
            await self.socket.says({"seq": seq, "type": "message", "data": 0, "from": "bob-1"})

        self.assertEqual(self.socket.said("ping"), [])

    async def test_what_was_heard_is_acknowledged_in_what_is_said_and_after_thirty_two(
        self,
    ) -> None:
        session = await self.enter()
        talk = [
            {"seq": seq, "type": "message", "data": seq, "from": "bob-1"} for seq in range(2, 70)
        ]
        await self.socket.says(*talk[:30])
        self.assertEqual(self.socket.said("ping"), [])
        await self.socket.says(talk[30])
        self.assertEqual(self.socket.sent[1:], [{"type": "ping", "ack": 32}])
        await self.socket.says({"seq": 33, "type": "pong"})
        session.send("x")
        session.send("y")
        await settled()

        said = self.socket.said("message")
        self.assertEqual([frame.get("ack") for frame in said], [33, None])

    async def test_a_socket_that_takes_nothing_is_given_up_too(self) -> None:
        session = await self.enter()
        self.socket.is_stuck = True
        session.send("perhaps")
        await self.clock.passes(25.2)
        await self.socket.says(REQUIRED, resumed())

        self.assertEqual([frame["data"] for frame in self.socket.said("message")], ["perhaps"])

    async def test_a_server_that_does_not_let_us_in_for_ten_seconds_is_left(self) -> None:
        await self.begin()
        await self.clock.passes(5)
        await self.socket.says(REQUIRED)
        await self.clock.passes(4.999)
        self.assertFalse(self.socket.is_aborted)
        await self.clock.passes(0.001)

        self.assertTrue(self.socket.is_aborted)


class Closes(ScriptedCase):
    async def test_every_close_means_what_the_list_says(self) -> None:
        for row in CLOSES:
            with self.subTest(code=row["code"], reason=row["reason"], error=row.get("error")):
                self.assertEqual(await self.then(row, has_source=True), row["then"])
                without = {"renew": "retry" if row.get("error", {}).get("retry") else "stop"}
                expected = without.get(row["then"], row["then"])
                self.assertEqual(await self.then(row, has_source=False), expected)

    async def then(self, row: dict[str, object], has_source: bool) -> str:
        source = Source("T")
        session = await self.enter(get_token=source if has_source else None)
        if isinstance(error := row.get("error"), dict):
            await self.socket.says({"type": "error", "message": "x", **error})
        await self.socket.breaks(int(str(row["code"])), str(row["reason"]))
        if session.state == "closed":
            self.assertEqual([fatal for _, fatal in self.errors()], [True])
            self.assertEqual((self.left(), dict(session.peers)), (["bob-1"], {}))
            return "stop"
        await self.clock.passes(0.15)
        await self.socket.says(REQUIRED)
        kind = "renew" if source.asked == [False, True] else "retry"
        first = self.socket.sent[0]["type"]
        self.assertEqual(first, "auth_token" if kind == "renew" else "resume")
        await session.close()
        return kind


class Tokens(ScriptedCase):
    async def test_a_fresh_token_is_asked_for_once_where_one_is_refused(self) -> None:
        asked = []

        async def get_token(renew: bool) -> str:
            asked.append(renew)
            return "T"

        joining = await self.begin(get_token=get_token)
        for _ in range(2):
            await self.socket.says(REQUIRED)
            await self.socket.breaks(1008, "Invalid token")
            await self.clock.passes(0.3)

        with self.assertRaises(SignalError) as raised:
            await joining
        self.assertTrue(raised.exception.fatal)
        self.assertEqual((asked, len(self.sockets)), ([False, True], 2))

    async def test_it_may_be_renewed_again_after_every_seat(self) -> None:
        source = Source("T")
        session = await self.enter(get_token=source)
        for _ in range(3):
            await self.socket.breaks(1008, "Token expired")
            await self.clock.passes(0.15)
            await self.socket.says(REQUIRED, success(), users(BOB))

        await self.comes_back()
        await self.socket.says(RESUME_FAILED, success(), users(BOB))

        self.assertEqual(source.asked, [False, True, True, True, False])
        self.assertEqual(session.state, "connected")

    async def test_a_new_token_is_shown_a_minute_before_the_old_one_runs_out(self) -> None:
        now = time.time()
        source = Source(jwt(now + 1800), jwt(now + 3600))
        await self.enter(get_token=source)
        await self.goes_on_for(1735)
        self.assertEqual(source.asked, [False])
        await self.goes_on_for(10)

        shown = [frame["token"] for frame in self.socket.said("auth_token")]
        self.assertEqual((tuple(shown), source.asked), (source.tokens, [False, True]))

    async def test_a_short_token_is_renewed_half_way(self) -> None:
        source = Source(jwt(time.time() + 60), jwt(time.time() + 600))
        await self.enter(get_token=source)
        await self.goes_on_for(29)
        self.assertEqual(source.asked, [False])
        await self.goes_on_for(2)
        self.assertEqual(source.asked, [False, True])

    async def test_a_token_that_is_renewed_while_away_is_shown_when_we_are_back(self) -> None:
        expiry = time.time() + 60
        await self.enter(get_token=lambda renew: jwt(expiry + 600 * renew))
        await self.goes_on_for(29)
        await self.comes_back()
        await self.clock.passes(5)
        self.assertEqual(self.socket.said("auth_token"), [])
        await self.socket.says(resumed())

        shown = [frame["token"] for frame in self.socket.said("auth_token")]
        self.assertEqual(shown, [jwt(expiry + 600)])

    async def test_a_socket_that_breaks_under_a_renewal_does_not_waste_it(self) -> None:
        expiry = time.time() + 60
        renewed = asyncio.get_running_loop().create_future()

        async def get_token(renew: bool) -> str:
            return await renewed if renew else jwt(expiry)

        await self.enter(get_token=get_token)
        await self.goes_on_for(31)
        await self.comes_back()
        renewed.set_result(jwt(expiry + 600))
        await settled()
        self.assertEqual(self.socket.said("auth_token"), [])
        await self.socket.says(resumed())

        self.assertEqual([frame["type"] for frame in self.socket.sent], ["resume", "auth_token"])

    async def test_a_renewal_that_fails_is_told_and_tried_again(self) -> None:
        expiry = time.time() + 60
        answers: list[str | Exception] = [jwt(expiry), OSError("no route"), jwt(expiry + 600)]

        async def get_token(renew: bool) -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        session = await self.enter(get_token=get_token)
        await self.goes_on_for(44)
        self.assertEqual((len(answers), self.errors()), (1, [("no_token", False)]))
        await self.goes_on_for(2)

        self.assertEqual((len(answers), session.state), (0, "connected"))
        self.assertEqual(len(self.socket.said("auth_token")), 2)

    async def test_a_source_that_fails_is_asked_again_and_one_that_gives_up_is_not(self) -> None:
        answers: list[Exception] = [
            SignalError("http_429", "later", retry_after=7),
            SignalError("unauthorized", "no", True),
        ]

        def get_token(renew: bool) -> Awaitable[str]:
            raise answers.pop(0)

        joining = await self.begin(get_token=get_token)
        with self.assertLogs("signaling_client", logging.WARNING) as logs:
            await self.socket.says(REQUIRED)
        self.assertIn("http_429", logs.output[0])
        self.assertTrue(self.sockets[0].is_aborted)
        await self.clock.passes(6.9)
        self.assertEqual(len(self.sockets), 1, "it asked to be left alone for seven seconds")
        await self.clock.passes(0.2)
        await self.socket.says(REQUIRED)

        with self.assertRaisesRegex(SignalError, "no"):
            await joining

    async def test_a_source_that_takes_too_long_is_not_waited_for(self) -> None:
        asked = []

        async def get_token(renew: bool) -> str:
            asked.append(renew)
            await asyncio.sleep(60)
            return "T"

        await self.begin(get_token=get_token)
        await self.socket.says(REQUIRED)
        await self.clock.passes(10.2)

        self.assertEqual((len(self.sockets), asked), (2, [False]))

    async def test_a_token_is_in_no_text_that_we_make(self) -> None:
        with self.assertLogs(level=logging.DEBUG) as logs:
            session = await self.enter(token="s3cret")
            await self.comes_back()
            await self.socket.says(RESUME_FAILED, {"type": "error", "code": "x", "message": "y"})
            await self.socket.breaks(1008, "Invalid token")

        for text in (*logs.output, repr(session), repr(self.told)):
            self.assertNotIn("s3cret", text)
            self.assertNotIn("R1", text)

    async def goes_on_for(self, seconds: float) -> None:
        """The server answers every ping."""
        for _ in range(int(seconds)):
            await self.clock.passes(1)
            if self.socket.sent[-1]["type"] == "ping":
                await self.socket.says({"type": "pong"})


class Room(ScriptedCase):
    async def test_signals_and_messages_go_both_ways_with_whom_they_are_from(self) -> None:
        session = await self.enter()
        offer, candidate = {"type": "offer", "sdp": "v=0", "pc": "k"}, {"candidate": "candidate:1"}
        await self.socket.says(
            {"seq": 2, "type": "offer", "offer": offer, "from": "bob-1"},
            {"seq": 3, "type": "ice_candidate", "candidate": candidate, "from": "bob-1"},
            {"seq": 4, "type": "ice_candidate", "candidate": "", "from": "bob-1"},
            {"seq": 5, "type": "ice_candidate", "from": "bob-1"},
            {"seq": 6, "type": "of_the_future", "from": "bob-1"},
            {"seq": 7, "type": "message", "data": "whose?", "from": "nobody-1"},
        )
        bob = session.peers["bob-1"]
        ends = Signal(bob, "ice_candidate", None)
        expected = [
            Signal(bob, "offer", offer),
            Signal(bob, "ice_candidate", candidate),
            ends,
            ends,
        ]
        self.assertEqual(self.told, expected)

        session.signal("answer", {"type": "answer", "sdp": "v=0"}, "bob-1")
        session.signal("ice_candidate", None, to="bob-1")
        await settled()
        answer, last = self.socket.sent[-2:]
        self.assertEqual((answer["answer"]["sdp"], answer["to"]), ("v=0", "bob-1"))
        self.assertEqual((last["type"], last["candidate"]), ("ice_candidate", None))

    async def test_peers_come_and_go(self) -> None:
        session = await self.enter()
        carol = {"client_id": "carol-1", "username": "carol", "polite": False}
        await self.socket.says({"seq": 2, "type": "user_joined", **carol})
        self.assertEqual(self.told, [PeerJoined(session.peers["carol-1"])])
        await self.socket.says({"seq": 3, "type": "user_joined", **carol})
        await self.socket.says({"seq": 4, "type": "user_left", "client_id": "bob-1"})
        await self.socket.says({"seq": 5, "type": "user_left", "client_id": "bob-1"})

        self.assertEqual(
            (len(self.told), self.left(), list(session.peers)), (2, ["bob-1"], ["carol-1"])
        )

    async def test_after_a_crash_who_is_missing_has_left_but_for_a_call_that_goes_on(self) -> None:
        for connected, after in ((False, []), (True, ["bob-1"])):
            self.told.clear()
            session = await self.enter()
            session.peers["bob-1"].connected = connected
            await self.comes_back()
            await self.socket.says(RESUME_FAILED, success(), users())
            self.assertEqual(self.left(), [] if connected else ["bob-1"])
            self.told.clear()
            for _ in range(3):
                await self.clock.passes(10.1)
                await self.socket.says({"type": "pong"})

            self.assertEqual((self.left(), dict(session.peers)), (after, {}))
            await session.close()

    async def test_after_a_crash_who_comes_back_in_time_is_the_same_peer_in_its_new_role(
        self,
    ) -> None:
        session = await self.enter()
        bob = session.peers["bob-1"]
        bob.connected = True
        await self.comes_back()
        await self.socket.says(RESUME_FAILED, success(), users())
        await self.clock.passes(5)
        await self.socket.says({"seq": 2, "type": "user_joined", **BOB, "polite": False})
        for _ in range(3):
            await self.clock.passes(14)
            await self.socket.says({"type": "pong"})

        self.assertEqual((self.left(), bob.polite), ([], False))
        self.assertIs(session.peers["bob-1"], bob)

    async def test_new_ice_servers_are_kept_and_told(self) -> None:
        session = await self.enter()
        servers = [{"urls": ["turn:turn.example.com"], "username": "1:alice", "credential": "c5ed"}]
        await self.socket.says({"seq": 2, "type": "ice_servers", "iceServers": servers, "ttl": 60})

        self.assertEqual((session.ice_servers, len(self.told)), (servers, 1))
        self.assertNotIn("c5ed", repr(self.told))

    async def test_an_error_without_a_close_is_told_and_the_session_goes_on(self) -> None:
        session = await self.enter()
        await self.socket.says(
            {"seq": 2, "type": "error", "code": "target_not_found", "message": "x"}
        )

        self.assertEqual(
            (self.errors(), session.state), ([("target_not_found", False)], "connected")
        )

    async def test_what_is_no_json_is_refused_where_it_is_said(self) -> None:
        session = await self.enter()
        for odd in (object(), float("nan"), "\ud800", {1: {2}}):
            with self.assertRaises((TypeError, ValueError)):
                session.send(odd)
        session.send("well")
        await settled()

        self.assertEqual([frame["id"] for frame in self.socket.said("message")], [1])

    async def test_what_is_said_is_what_it_was_when_it_was_said(self) -> None:
        session = await self.enter()
        await self.socket.breaks()
        data = {"muted": True}
        session.send(data)
        data["muted"] = False
        await self.clock.passes(0.15)
        await self.socket.says(REQUIRED, resumed())

        self.assertEqual(self.socket.said("message")[0]["data"], {"muted": True})


class Leaving(ScriptedCase):
    async def test_what_was_said_is_sent_before_the_goodbye_and_the_events_end(self) -> None:
        session = await self.enter()
        session.send("bye")
        await session.close()
        await settled()

        self.assertEqual([frame["data"] for frame in self.socket.said("message")], ["bye"])
        self.assertEqual((self.socket.closed_with, self.socket.is_aborted), (1000, True))
        self.assertEqual((self.left(), self.told[-1]), (["bob-1"], State("closed", code=1000)))
        self.assertEqual([event async for event in session], [])
        session.send("to nobody")
        await session.close()

    async def test_closing_while_away_waits_for_nothing(self) -> None:
        session = await self.enter()
        await self.socket.breaks()
        await session.close()
        await self.clock.passes(60)

        self.assertEqual((session.state, len(self.sockets)), ("closed", 1))

    async def test_a_socket_that_takes_no_goodbye_is_let_go(self) -> None:
        session = await self.enter()
        self.socket.is_stuck = True
        session.send("bye")
        closing = asyncio.create_task(session.close())
        await self.clock.passes(2.9)
        self.assertFalse(closing.done())
        await self.clock.passes(0.2)

        self.assertTrue(closing.done() and self.socket.is_aborted)

    async def test_a_close_that_is_cancelled_closes_all_the_same(self) -> None:
        session = await self.enter()
        self.socket.is_stuck = True
        session.send("bye")
        closing = asyncio.create_task(session.close())
        await settled()
        closing.cancel()
        await settled()

        self.assertTrue(closing.cancelled() and self.socket.is_aborted)

    async def test_a_server_gone_mad_ends_the_session_instead_of_hanging_it(self) -> None:
        session = await self.enter()
        with self.assertLogs("signaling_client", logging.ERROR):
            await self.socket.says({"seq": "2", "type": "pong"})

        self.assertEqual((self.errors(), session.state), ([("internal_error", True)], "closed"))

    async def test_events_that_nobody_comes_for_are_bounded_and_their_loss_is_told(self) -> None:
        joining = await self.begin()
        await self.socket.says(REQUIRED)
        await self.socket.says(success(), users(BOB))
        session = await joining
        with self.assertLogs("signaling_client", logging.WARNING) as logs:
            for seq in range(2, 1_100):
                frame = {"seq": seq, "type": "message", "data": seq, "from": "bob-1"}
                await self.socket.says(frame)
                if self.socket.sent[-1]["type"] == "ping":
                    await self.socket.says({"type": "pong"})

        self.assertEqual(len(logs.output), 1)
        lost = await anext(session)
        rest = [await anext(session) for _ in range(1_000)]
        assert isinstance(lost, Error)
        self.assertEqual(lost.error.code, "events_lost")
        self.assertIn("100 events", str(lost.error))
        bob = session.peers["bob-1"]
        self.assertEqual(rest, [Message(bob, seq) for seq in range(100, 1_100)])
