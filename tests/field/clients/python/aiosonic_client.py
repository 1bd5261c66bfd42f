import asyncio

import aiosonic
from room import URL, reply


async def main():
    async with aiosonic.WebSocketClient() as client:
        # It answers no Ping, so that it has to send its own within the server's time-out.
        socket = await client.connect(URL, keepalive_interval=2)
        try:
            while True:
                if answer := reply(await socket.receive_text()):
                    await socket.send_text(answer)
        finally:
            print("closed", socket.close_code or "")


asyncio.run(main())
