#!/usr/bin/env bash
# aioice 0.11.0 (PyPI; 0.8.0 of Debian 12 and 0.10.2 too, 0.12.0 no longer): a Connection with `transport_policy=TransportPolicy.RELAY`
# has no candidates of its own, and still sends connectivity checks from its host sockets.
#
# Why it matters: an application sets the policy so that no peer learns its address. The peer learns it from the first check, and the
# connection runs directly, without any TURN server.
#
# Seen: two Connections meet, the relay-only one lists no candidates, and the other sees it as a `prflx` candidate with its host address.
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aioice==0.11.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

from aioice import Connection, TransportPolicy


async def main() -> None:
    # A STUN server has to be named; nothing answers there.
    hidden = Connection(ice_controlling=True, stun_server=("127.0.0.1", 9), transport_policy=TransportPolicy.RELAY)
    peer = Connection(ice_controlling=False)
    await asyncio.gather(hidden.gather_candidates(), peer.gather_candidates())
    print("candidates of the relay-only side:", hidden.local_candidates)
    for one, other in ((hidden, peer), (peer, hidden)):
        one.remote_username, one.remote_password = other.local_username, other.local_password
    for candidate in [*peer.local_candidates, None]:
        await hidden.add_remote_candidate(candidate)
    await asyncio.wait_for(asyncio.gather(hidden.connect(), peer.connect()), 30)
    seen = peer._nominated[1].remote_candidate
    print("the peer sees it as", seen.type, seen.host)
    assert hidden.local_candidates == [] and seen.type == "prflx"
    await asyncio.gather(hidden.close(), peer.close())


asyncio.run(main())
PYTHON
echo "as described"
