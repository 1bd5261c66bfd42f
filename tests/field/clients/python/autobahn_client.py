import asyncio
from urllib.parse import urlsplit

from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol
from room import URL, reply


class Room(WebSocketClientProtocol):
    def onMessage(self, payload, isBinary):
        if answer := reply(payload.decode()):
            self.sendMessage(answer.encode())

    def onClose(self, wasClean, code, reason):
        print("closed", code, reason)
        loop.stop()


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
factory = WebSocketClientFactory(URL)
factory.protocol = Room
address = urlsplit(URL)
loop.run_until_complete(loop.create_connection(factory, address.hostname, address.port))
loop.run_forever()
