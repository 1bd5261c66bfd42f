from room import URL, reply
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

with connect(URL) as socket:
    try:
        for text in socket:
            if answer := reply(text):
                socket.send(answer)
    except ConnectionClosedError:  # any close but 1000 and 1001
        pass
print("closed", socket.close_code, socket.close_reason)
