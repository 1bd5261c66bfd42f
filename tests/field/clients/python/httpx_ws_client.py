import httpx
from httpx_ws import WebSocketDisconnect, connect_ws
from room import URL, reply

with httpx.Client() as client, connect_ws(URL, client) as socket:
    try:
        while True:
            if answer := reply(socket.receive_text()):
                socket.send_text(answer)
    except WebSocketDisconnect as closed:
        print("closed", closed.code, closed.reason)
