"""What all clients in Python share: where the room is, and what they answer there."""

import json
import os

URL = os.environ["ROOM_URL"]


def reply(text):
    """Prints a message, and returns the answer to it if it wants one."""
    print(text, flush=True)
    message = json.loads(text)
    if message["type"] == "auth_required":
        return json.dumps({"type": "auth_token", "token": os.environ["TOKEN"]})
    if message["type"] == "offer":
        return json.dumps({"type": "answer", "answer": {}, "to": message["from"]})
    return None
