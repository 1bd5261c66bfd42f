"""Real WebSockets, on the installed release of `websockets`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import IsolatedAsyncioTestCase

import websockets

from signaling_client import Message, SignalError, connect
from signaling_client.websocket import Closed, open_socket

Script = Callable[[Any], Awaitable[None]]


class WebSockets(IsolatedAsyncioTestCase):
    async def serve(self, script: Script) -> str:
        """The URL of a server that runs `script` for each WebSocket."""
        server = await websockets.serve(script, "127.0.0.1", 0)

        async def end() -> None:
            server.close()
            await server.wait_closed()

        self.addAsyncCleanup(end)
        port = next(iter(server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}"

    async def asyncSetUp(self) -> None:
        # Cleanups run in reverse order, so this one runs last: only the task of the test is left.
        self.addAsyncCleanup(self.assert_no_tasks_left)

    async def assert_no_tasks_left(self) -> None:
        await asyncio.sleep(0.01)  # tasks of the server of 10.4 end on their own
        left_over = asyncio.all_tasks() - {asyncio.current_task()}
        self.assertEqual(left_over, set())

    async def test_close_code_and_reason_are_reported(self) -> None:
        for code in (1000, 1001, 1008, 1011, 1012, 1013, 4001, 4003):

            async def script(connection: Any, code: int = code) -> None:
                await connection.close(code, "Some reason")

            socket = await open_socket(await self.serve(script))
            for _ in range(2):
                with self.assertRaises(Closed) as raised:
                    await socket.recv()
                closed = raised.exception
                self.assertEqual((closed.code, closed.reason), (code, "Some reason"))
            with self.assertRaises(Closed):
                await socket.send("x")
            await socket.close()
            await socket.abort()

    async def test_frames_before_a_close_are_received_first(self) -> None:
        async def script(connection: Any) -> None:
            for number in range(100):
                await connection.send(str(number))
            await connection.close(1012, "")

        socket = await open_socket(await self.serve(script))
        await asyncio.sleep(0.05)
        self.assertEqual([await socket.recv() for _ in range(100)], list(map(str, range(100))))
        with self.assertRaises(Closed):
            await socket.recv()
        await socket.abort()

    async def test_broken_socket_is_1006_and_a_failed_open_has_a_reason(self) -> None:
        async def script(connection: Any) -> None:
            connection.transport.abort()

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

    async def test_abort_sends_no_close_frame_and_close_does(self) -> None:
        ends: asyncio.Queue[int | None] = asyncio.Queue()

        async def script(connection: Any) -> None:
            await connection.wait_closed()
            ends.put_nowait(connection.close_code)

        url = await self.serve(script)
        for leave, code in (("abort", 1006), ("close", 1000)):
            socket = await open_socket(url)
            await getattr(socket, leave)()
            self.assertEqual(await ends.get(), code)
            await socket.abort()

    async def test_every_operation_can_be_cancelled(self) -> None:
        async def script(connection: Any) -> None:
            connection.transport.pause_reading()
            await is_over.wait()
            connection.transport.abort()

        async def never_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        is_over = asyncio.Event()
        writers: list[asyncio.StreamWriter] = []
        plain = await asyncio.start_server(never_answer, "127.0.0.1", 0)
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
        # Release 10.4 waits one second for the other side.
        await asyncio.wait([task], timeout=5)
        self.assertTrue(task.cancelled())

    async def test_session_connects_and_no_log_line_contains_its_token(self) -> None:
        received = []

        async def script(connection: Any) -> None:
            await connection.send('{"type":"auth_required"}')
            received.append(json.loads(await connection.recv()))
            success = {
                "type": "auth_success",
                "user": "alice",
                "client_id": "a",
                "resume_token": "R",
            }
            await connection.send(json.dumps(success))
            await connection.send('{"seq":1,"type":"users_in_room","users":[]}')
            bob = {"client_id": "b", "username": "bob", "polite": False}
            await connection.send(json.dumps({"seq": 2, "type": "user_joined", **bob}))
            await connection.send('{"seq":3,"type":"message","from":"b","data":1}')
            await connection.wait_closed()

        with self.assertLogs(level=logging.DEBUG) as logs:
            async with connect(await self.serve(script), "den", token="s3cret") as session:
                events = [event async for event in _up_to_first(session, Message)]

        self.assertEqual(
            [type(event).__name__ for event in events], ["State", "PeerJoined", "Message"]
        )
        self.assertEqual(received[0]["token"], "s3cret")
        client_records = [
            record for record in logs.records if not record.name.startswith("websockets.server")
        ]
        self.assertNotIn("s3cret", " ".join(record.getMessage() for record in client_records))

    async def test_refusal_after_the_upgrade_is_raised(self) -> None:
        async def script(connection: Any) -> None:
            await connection.send(
                '{"type":"error","code":"room_not_allowed","message":"No","retry":false}'
            )
            await connection.close(1008, "Room not allowed")

        with self.assertRaises(SignalError) as raised:
            await connect(await self.serve(script), "den")
        self.assertEqual(raised.exception.code, "room_not_allowed")


async def _up_to_first(events: Any, kind: type) -> Any:
    async for event in events:
        yield event
        if isinstance(event, kind):
            return
