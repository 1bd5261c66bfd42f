from room import URL, reply
from simple_websocket import Client, ConnectionClosed

# A message that comes with the response to the handshake is read with the first Pong at the latest.
socket = Client.connect(URL, ping_interval=1)
try:
    while True:
        if answer := reply(socket.receive()):
            socket.send(answer)
except ConnectionClosed as closed:
    print("closed", int(closed.reason), closed.message)
