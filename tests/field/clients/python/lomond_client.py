from lomond import WebSocket
from room import URL, reply

socket = WebSocket(URL)
for event in socket:
    if event.name == "text":
        if answer := reply(event.text):
            socket.send_text(answer)
    elif event.name in ("closing", "rejected", "connect_fail"):
        print("closed" if event.name == "closing" else "refused", getattr(event, "code", ""), event.reason)
