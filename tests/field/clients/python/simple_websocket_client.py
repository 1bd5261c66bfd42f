from room import URL, reply
from simple_websocket import Client, ConnectionClosed

socket = Client.connect(URL)
try:
    while True:
        if answer := reply(socket.receive()):
            socket.send(answer)
except ConnectionClosed as closed:
    print("closed", int(closed.reason), closed.message)
