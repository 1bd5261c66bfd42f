import asyncio

from picows import WSListener, WSMsgType, ws_connect
from room import URL, reply


class Room(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.TEXT:
            if answer := reply(frame.get_payload_as_utf8_text()):
                transport.send(WSMsgType.TEXT, answer.encode())
        elif frame.msg_type == WSMsgType.CLOSE:
            print("closed", int(frame.get_close_code()), (frame.get_close_message() or b"").decode())
            transport.disconnect()


async def main():
    transport, _ = await ws_connect(Room, URL)
    await transport.wait_disconnected()


asyncio.run(main())
