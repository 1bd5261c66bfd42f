import asyncio

from room import URL, reply
from tornado.websocket import websocket_connect


async def main():
    socket = await websocket_connect(URL)
    while (text := await socket.read_message()) is not None:
        if answer := reply(text):
            await socket.write_message(answer)
    print("closed", socket.close_code, socket.close_reason)


asyncio.run(main())
