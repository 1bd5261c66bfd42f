#!/usr/bin/env bash
# SWI-Prolog 9.0.4 (Debian 12, swi-prolog-nox), library(http/websocket): `http_open_websocket` sends its request in HTTP/1.0, unless the
# program has loaded library(http/http_stream), which it does not need otherwise. RFC 6455 section 4.1 asks for at least HTTP/1.1.
#
# Why it matters: servers that check the version refuse the handshake, and the error ("No permission to open websocket") does not say why.
# The same goal works in a program that also has an HTTP server or library(http/http_json), because these load the stream library.
#
# Seen: one goal, and a server made with websockets 17.4 (PyPI). Alone, the request line ends with HTTP/1.0 and the client raises an error;
# after use_module(library(http/http_json)) it ends with HTTP/1.1 and the message comes. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
swipl --version
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install websockets==17.4
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

from websockets.asyncio.server import serve


async def on_client(server_side):
    await server_side.send("hello")
    await server_side.wait_closed()


async def main():
    lines = []

    async def pass_on(reader, writer):
        """Notes the request line on the way to the server."""
        lines.append((await reader.readline()).decode().strip())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        back.write(lines[-1].encode() + b"\r\n")

        async def copy(source, target):
            while data := await source.read(4096):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    async def run(libraries):
        goals = "".join(f"use_module(library(http/{name}))," for name in [*libraries, "websocket"])
        goals += f"http_open_websocket('ws://127.0.0.1:{way}/',S,[]),ws_receive(S,M),get_dict(data,M,D),writeln(D),ws_close(S,1000,bye)"
        child = await asyncio.create_subprocess_exec(
            "swipl", "-g", goals, "-t", "halt", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return (await asyncio.wait_for(child.communicate(), 60))[0].decode().strip()

    async with serve(on_client, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as middle:
            way = middle.sockets[0].getsockname()[1]
            alone, with_json = await run([]), await run(["http_json"])
    print("alone:", lines[0], "->", alone[alone.rfind("):") + 3 :])
    print("with http_json:", lines[1], "->", with_json)
    assert lines == ["GET / HTTP/1.0", "GET / HTTP/1.1"], lines
    assert "No permission to open websocket" in alone and "hello" not in alone, alone
    assert with_json == "hello", with_json


asyncio.run(main())
PYTHON
echo "as described"
