"""Real WebSockets, of whatever release of `websockets` is installed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import IsolatedAsyncioTestCase

import websockets

from signaling_client import Message, SignalError, connect
from signaling_client.wire import Closed, open_socket

Script = Callable[[Any], Awaitable[None]]


class Wire(IsolatedAsyncioTestCase):
    async def serve(self, script: Script) -> str:
        """Where each WebSocket is handed to `script`."""
        server = await websockets.serve(script, "127.0.0.1", 0)

        async def end() -> None:
            server.close()
            await server.wait_closed()

        self.addAsyncCleanup(end)
        port = next(iter(server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    async def asyncSetUp(self) -> None:
        # Asked last, after what the test has added: only its own task is left then.
        self.addAsyncCleanup(self.nothing_is_left_over)

    async def nothing_is_left_over(self) -> None:
        await asyncio.sleep(0.01)  # 10.4's server has tasks that end on their own
        left_over = asyncio.all_tasks() - {asyncio.current_task()}
        self.assertEqual(left_over, set())

    async def test_the_code_and_the_reason_of_a_close_arrive(self) -> None:
        for code in (1000, 1001, 1008, 1011, 1012, 1013, 4001, 4003):

            async def script(there: Any, code: int = code) -> None:
                await there.close(code, "Whatever it says")

            socket = await open_socket(await self.serve(script))
            for _ in range(2):
                with self.assertRaises(Closed) as raised:
                    await socket.recv()
                closed = raised.exception
                self.assertEqual((closed.code, closed.reason), (code, "Whatever it says"))
            with self.assertRaises(Closed):
                await socket.send("x")
            await socket.close()
            await socket.abort()

    async def test_what_came_before_a_close_is_heard_first(self) -> None:
        async def script(there: Any) -> None:
            for number in range(100):
                await there.send(str(number))
            await there.close(1012, "")

        socket = await open_socket(await self.serve(script))
        await asyncio.sleep(0.05)
        self.assertEqual([await socket.recv() for _ in range(100)], list(map(str, range(100))))
        with self.assertRaises(Closed):
            await socket.recv()
        await socket.abort()

    async def test_a_broken_socket_is_1006_and_one_that_does_not_open_says_why(self) -> None:
        async def script(there: Any) -> None:
            there.transport.abort()

        url = await self.serve(script)
        socket = await open_socket(url)
        with self.assertRaises(Closed) as raised:
            await socket.recv()
        self.assertEqual((raised.exception.code, raised.exception.reason), (1006, ""))
        await socket.abort()

        async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        plain = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = plain.sockets[0].getsockname()[1]
        with self.assertRaises(Closed) as raised:
            await open_socket(f"ws://127.0.0.1:{port}")
        self.assertEqual(raised.exception.code, 1006)
        self.assertIn("503", raised.exception.reason)
        plain.close()
        await plain.wait_closed()
        with self.assertRaises(Closed) as raised:
            await open_socket(f"ws://127.0.0.1:{port}")
        self.assertEqual(raised.exception.code, 1006)

    async def test_an_abort_says_no_goodbye_and_a_close_does(self) -> None:
        ends: asyncio.Queue[int | None] = asyncio.Queue()

        async def script(there: Any) -> None:
            await there.wait_closed()
            ends.put_nowait(there.close_code)

        url = await self.serve(script)
        for leave, code in (("abort", 1006), ("close", 1000)):
            socket = await open_socket(url)
            await getattr(socket, leave)()
            self.assertEqual(await ends.get(), code)
            await socket.abort()

    async def test_cancelling_is_harmless_whatever_is_waited_for(self) -> None:
        async def script(there: Any) -> None:
            there.transport.pause_reading()
            await is_over.wait()
            there.transport.abort()

        async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        is_over = asyncio.Event()
        writers: list[asyncio.StreamWriter] = []
        plain = await asyncio.start_server(deaf, "127.0.0.1", 0)
        port = plain.sockets[0].getsockname()[1]
        opening = asyncio.create_task(open_socket(f"ws://127.0.0.1:{port}"))
        await asyncio.sleep(0.05)
        await self.cancelled(opening)
        for writer in writers:
            writer.transport.abort()
        plain.close()
        await plain.wait_closed()

        socket = await open_socket(await self.serve(script))
        for wait in (socket.recv, socket.close):
            waiting = asyncio.ensure_future(wait())
            await asyncio.sleep(0.05)
            await self.cancelled(waiting)
        await socket.abort()
        is_over.set()

    async def cancelled(self, task: asyncio.Future[Any]) -> None:
        self.assertFalse(task.done())
        task.cancel()
        # 10.4 gives the other side a second to end it.
        await asyncio.wait([task], timeout=5)
        self.assertTrue(task.cancelled())

    async def test_a_session_goes_through_its_states_and_no_log_has_its_token(self) -> None:
        said = []

        async def script(there: Any) -> None:
            await there.send('{"type":"auth_required"}')
            said.append(json.loads(await there.recv()))
            success = {
                "type": "auth_success",
                "user": "alice",
                "client_id": "a",
                "resume_token": "R",
            }
            await there.send(json.dumps(success))
            await there.send('{"seq":1,"type":"users_in_room","users":[]}')
            bob = {"client_id": "b", "username": "bob", "polite": False}
            await there.send(json.dumps({"seq": 2, "type": "user_joined", **bob}))
            await there.send('{"seq":3,"type":"message","from":"b","data":1}')
            await there.wait_closed()

        with self.assertLogs(level=logging.DEBUG) as logs:
            async with connect(await self.serve(script), "den", token="s3cret") as session:
                heard = [event async for event in _through_first(session, Message)]

        self.assertEqual(
            [type(event).__name__ for event in heard], ["State", "PeerJoined", "Message"]
        )
        self.assertEqual(said[0]["token"], "s3cret")
        ours = [
            record for record in logs.records if not record.name.startswith("websockets.server")
        ]
        self.assertNotIn("s3cret", " ".join(record.getMessage() for record in ours))

    async def test_a_refusal_after_the_upgrade_is_raised(self) -> None:
        async def script(there: Any) -> None:
            await there.send(
                '{"type":"error","code":"room_not_allowed","message":"No","retry":false}'
            )
            await there.close(1008, "Room not allowed")

        with self.assertRaises(SignalError) as raised:
            await connect(await self.serve(script), "den")
        self.assertEqual(raised.exception.code, "room_not_allowed")


async def _through_first(events: Any, kind: type) -> Any:
    async for event in events:
        yield event
        if isinstance(event, kind):
            return
