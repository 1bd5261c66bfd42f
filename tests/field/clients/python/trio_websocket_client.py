import trio
from room import URL, reply
from trio_websocket import ConnectionClosed, open_websocket_url


async def main():
    async with open_websocket_url(URL) as socket:
        try:
            while True:
                if answer := reply(await socket.get_message()):
                    await socket.send_message(answer)
        except ConnectionClosed as closed:
            print("closed", closed.reason.code, closed.reason.reason)


trio.run(main)
