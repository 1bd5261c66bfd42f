#!/usr/bin/env bash
# aiortc 1.16.0 (PyPI): `setLocalDescription` takes a description of the type "rollback" without an error, and rolls nothing back. The
# signaling state stays "have-local-offer", and the local description is now an empty one of the type "rollback".
#
# Why it matters: the class RTCSessionDescription lists the type as one of four, so "perfect negotiation" can be written in Python as it is
# in a browser (RFC 9429 section 4.1.10.2). Where offers cross, the polite side then fails one step later, at the offer of the other, with
# a message about the state, and its own offer is gone. A bot has to be the impolite side, or never be the one that offers.
#
# Seen: no exception at the rollback, the state and the description as above, and InvalidStateError for the offer. Exits with 1 if that
# changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aiortc==1.16.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

from aiortc import InvalidStateError, RTCPeerConnection, RTCSessionDescription


async def main():
    polite, other = RTCPeerConnection(), RTCPeerConnection()
    for connection in (polite, other):
        connection.createDataChannel("channel")
        await connection.setLocalDescription()
    await polite.setLocalDescription(RTCSessionDescription(sdp="", type="rollback"))
    state, left = polite.signalingState, polite.localDescription
    print("after the rollback:", state, "and a local description of the type", left.type, "with", left.sdp.count("m="), "media sections")
    try:
        await polite.setRemoteDescription(other.localDescription)
        outcome = "accepted"
    except InvalidStateError as error:
        outcome = f"InvalidStateError: {error}"
    print("the offer of the other:", outcome)
    await asyncio.gather(polite.close(), other.close())
    assert state == "have-local-offer" and left.type == "rollback" and "m=" not in left.sdp, left
    assert outcome == 'InvalidStateError: Cannot handle offer in signaling state "have-local-offer"', outcome


asyncio.run(main())
PYTHON
echo "as described"
