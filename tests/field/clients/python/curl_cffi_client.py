import asyncio

from curl_cffi import AsyncSession
from room import URL, reply


async def main():
    async with AsyncSession() as session:
        socket = await session.ws_connect(URL)

        async def ping():  # libcurl answers no Ping while it only listens
            while True:
                await asyncio.sleep(1)
                await socket.send_str('{"type":"ping"}')

        pings = asyncio.create_task(ping())
        try:
            while True:
                if answer := reply(await socket.recv_str()):
                    await socket.send_str(answer)
        finally:
            pings.cancel()
            print("closed", socket.close_code, socket.close_reason)


asyncio.run(main())
