#!/usr/bin/env bash
# simple-websocket 1.1.0 (PyPI), a WebSocket client in Python: a message that arrives together with the response to the handshake is not
# given to the program until the server sends something else. What was read is parsed, and only the first event of it is looked at.
#
# Why it matters: a server that speaks first (a greeting, a question for a token) and then waits for the client waits in vain, and so does
# the client. Whether both are read at once is a matter of timing, so that a program that has always worked stops now and then, on a
# busy machine or behind a proxy. `ping_interval` helps: the Pong is something else.
#
# Seen: with the response and the frame in two segments `receive` returns the message; in one segment it returns nothing for two seconds,
# and the message once the server has sent a Ping. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install simple-websocket==1.1.0 wsproto==1.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import base64
import hashlib
import socket
import threading

from simple_websocket import Client

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GREETING = b"\x81\x05hello"
PING = b"\x89\x00"


def serve(listener, together, may_ping):
    connection, _ = listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    lines = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
    accept = base64.b64encode(hashlib.sha1(lines[b"Sec-WebSocket-Key"] + GUID).digest())
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    connection.sendall(response + GREETING if together else response)
    may_ping.wait()
    connection.sendall(PING if together else GREETING)
    connection.recv(4096)  # until the client goes
    connection.close()


def seen(together):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        go_on = threading.Event()
        server = threading.Thread(target=serve, args=(listener, together, go_on))
        server.start()
        client = Client.connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        if not together:
            go_on.set()
        first = client.receive(timeout=2)
        go_on.set()
        second = client.receive(timeout=2) if first is None else None
        client.close()
        server.join()
        return first, second


apart, together = seen(False), seen(True)
print("in two segments:", apart)
print("in one segment, and after a Ping:", together)
assert apart == ("hello", None) and together == (None, "hello")
PYTHON
echo "as described"
