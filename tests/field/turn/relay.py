"""Two peers that meet through a TURN server alone: takes two addresses of it, and sends a datagram from one to the other.

Prints `relays`, `no data`, the code of a refusal, or why there is none.
"""

import asyncio
import os
import ssl

from aioice import stun, turn

# A server that does not answer is silent for 7.5 s.
stun.RETRY_MAX = 3
RETRY_SECONDS = 0.2
PATIENCE_SECONDS = 5


class Peer(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, address):
        if not self.received.done():
            self.received.set_result(data)


def endpoint():
    host, port = os.environ["TURN_HOST"], int(os.environ["TURN_PORT"])
    transport = os.environ["TURN_TRANSPORT"]
    return turn.create_turn_endpoint(
        Peer,
        server_addr=(host, port),
        username=os.environ["TURN_USERNAME"],
        password=os.environ["TURN_CREDENTIAL"],
        transport="udp" if transport == "udp" else "tcp",
        ssl=ssl.create_default_context() if transport == "tls" else False,
    )


async def meet():
    (one, peer), (other, other_peer) = await endpoint(), await endpoint()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_SECONDS
    # The first datagrams of both are lost that arrive before the other side has a permission.
    while loop.time() < deadline:
        one.sendto(b"hello", other.get_extra_info("sockname"))
        other.sendto(b"hello", one.get_extra_info("sockname"))
        done, _ = await asyncio.wait([peer.received, other_peer.received], timeout=RETRY_SECONDS, return_when=asyncio.ALL_COMPLETED)
        if len(done) == 2:
            return "relays"
    return "no data"


async def main():
    try:
        return await meet()
    except stun.TransactionFailed as failed:
        return failed.response.attributes["ERROR-CODE"][0]
    except stun.TransactionTimeout:
        return "no answer"
    except ssl.SSLError:
        return "no TLS"
    except ConnectionError:
        return "refused"


print(asyncio.run(main()))
