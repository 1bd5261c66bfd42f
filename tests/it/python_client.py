"""Two callers as they were written for the FastAPI server: urllib for the login, `websockets` for the rest.

Usage: python_client.py HOST:PORT PASSWORD
"""

import asyncio
import json
import sys
import urllib.request

import websockets

HOST, PASSWORD = sys.argv[1:]


def log_in(username):
    body = json.dumps({"username": username, "password": PASSWORD}).encode()
    request = urllib.request.Request(
        f"http://{HOST}/auth/login", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["access_token"]


async def hear(socket, kind):
    message = json.loads(await asyncio.wait_for(socket.recv(), 10))
    assert message["type"] == kind, message
    return message


async def enter(username, client_id):
    socket = await websockets.connect(f"ws://{HOST}/ws/Büro")
    await hear(socket, "auth_required")
    await socket.send(json.dumps({"type": "auth_token", "token": log_in(username), "clientId": client_id}))
    success = await hear(socket, "auth_success")
    assert (success["user"], success["client_id"]) == (username, client_id)
    return socket, (await hear(socket, "users_in_room"))["users"]


async def call():
    alice, there = await enter("alice", "alice-1")
    assert there == []
    bob, there = await enter("bob", "bob-1")
    assert [(user["client_id"], user["username"]) for user in there] == [("alice-1", "alice")]
    joined = await hear(alice, "user_joined")
    assert (joined["username"], joined["client_id"]) == ("bob", "bob-1")

    # json.dumps escapes what is not ASCII; the other end must see the same text
    sdp = {"type": "offer", "sdp": "v=0\r\ns=Gespräch ☎\r\n"}
    await bob.send(json.dumps({"type": "offer", "offer": sdp, "to": "alice-1"}))
    offer = await hear(alice, "offer")
    assert (offer["offer"], offer["from"], offer["username"]) == (sdp, "bob-1", "bob")
    await alice.send(json.dumps({"type": "answer", "answer": {"sdp": "v=0"}, "to": offer["from"]}))
    assert (await hear(bob, "answer"))["from"] == "alice-1"
    await alice.send(json.dumps({"type": "ice_candidate", "candidate": {"candidate": "candidate:1"}}))
    assert (await hear(bob, "ice_candidate"))["candidate"] == {"candidate": "candidate:1"}

    await bob.close()
    assert (await hear(alice, "user_left"))["client_id"] == "bob-1"
    await alice.close()
    print("the call is set up")


asyncio.run(call())
