#!/usr/bin/env bash
# niquests 3.21.2 with urllib3-future 2.25.904 and wsproto 1.3.2 (PyPI), WebSocket client: `next_payload()` returns None when the server
# closes, whatever the Close frame says, and neither the extension nor the response has the code or the reason.
#
# Why it matters: signaling servers say by a close code whether a client is to come back (4000 to 4999 are the application's own, RFC 6455
# section 7.4.2). Such a client cannot tell a kick from a restart. What it must know has to come in a message before the Close.
#
# Seen: after a Close with 4002 and a reason, None, and no attribute with either. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install niquests==3.21.2 urllib3-future==2.25.904 wsproto==1.3.2 websockets==15.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

import niquests
from websockets.asyncio.server import serve


async def on_client(server_side):
    await server_side.send("hello")
    await server_side.recv()
    await server_side.close(4002, "Removed from the room")


def client(port):
    with niquests.Session() as session:
        response = session.get(f"ws://127.0.0.1:{port}/")
        extension = response.extension
        assert extension.next_payload() == "hello"
        extension.send_payload("hello yourself")
        end = extension.next_payload()
        print("at the end:", end, "closed:", extension.closed)
        assert end is None and extension.closed
        texts = [repr(value) for it in (response, extension) for value in vars(it).values()]
        names = [name for it in (response, extension) for name in dir(it) if "close_" in name]
        shown = [text for text in texts if "4002" in text or "Removed" in text]
        print("attributes that show the code or the reason:", shown + names)
        assert not shown and not names


async def main():
    async with serve(on_client, "127.0.0.1", 0) as server:
        await asyncio.to_thread(client, server.sockets[0].getsockname()[1])


asyncio.run(main())
PYTHON
echo "as described"
