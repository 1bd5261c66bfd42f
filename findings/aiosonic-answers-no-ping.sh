#!/usr/bin/env bash
# aiosonic 1.3.3 (PyPI), WebSocket client: it answers no Ping. Pings are only read while the program waits for a message, and no Pong
# follows, where RFC 6455 section 5.5.2 says that one MUST be sent.
#
# Why it matters: a server that pings its clients to find the dead ones takes every such client for dead, though it sends and
# receives messages. The client's own keepalive (30 s by default) helps only where the server's time-out is longer.
#
# Seen: a message goes both ways, and the Ping in between has no Pong within 5 s. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aiosonic==1.3.3 websockets==15.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

import aiosonic
from websockets.asyncio.server import serve


async def main():
    seen = asyncio.get_running_loop().create_future()

    async def on_client(server_side):
        pong = await server_side.ping()
        await server_side.send("hello")
        answer = await server_side.recv()
        answered = bool((await asyncio.wait([asyncio.ensure_future(pong)], timeout=5))[0])
        seen.set_result((answer, answered))

    async with serve(on_client, "127.0.0.1", 0, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with aiosonic.WebSocketClient() as client:
            socket = await client.connect(f"ws://127.0.0.1:{port}/")
            assert await socket.receive_text() == "hello"
            await socket.send_text("hello yourself")
            reading = asyncio.ensure_future(socket.receive_text())
            answer, answered = await seen
            reading.cancel()
    print("the message came:", answer)
    print("the Ping was answered:", answered)
    assert answer == "hello yourself"
    assert not answered


asyncio.run(main())
PYTHON
echo "as described"
