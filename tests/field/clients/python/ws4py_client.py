from room import URL, reply
from ws4py.client.threadedclient import WebSocketClient


class Room(WebSocketClient):
    def received_message(self, message):
        if answer := reply(message.data.decode()):
            self.send(answer)

    def closed(self, code, reason=None):
        print("closed", code, reason if isinstance(reason, str) else reason.decode())


room = Room(URL, exclude_headers=["Origin"])
room.connect()
room.run_forever()
