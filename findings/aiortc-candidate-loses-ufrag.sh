#!/usr/bin/env bash
# aiortc 1.9.0 with aioice 0.9.0 (PyPI): `candidate_from_sdp` and `candidate_to_sdp` forget the `ufrag` of a trickled candidate, and take
# the W3C form of the line, which begins with `candidate:`, for a foundation of that name.
#
# Why it matters: after an ICE restart the user fragment is what says to which generation a candidate belongs (RFC 8838 section 7,
# RTCIceCandidate.usernameFragment). A relay of candidates that goes through these functions loses it, without an error.
#
# Seen: the foundation is `candidate:842163049`, and the line that is written again ends with the related port. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install aiortc==1.9.0 aioice==0.9.0
"$folder/venv/bin/python" - <<'PYTHON'
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp

LINE = "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 192.0.2.7 rport 50000 generation 0 ufrag EsAw network-cost 999"
candidate = candidate_from_sdp(LINE)
written = candidate_to_sdp(candidate)
print("foundation:", candidate.foundation)
print("written again:", written)
assert candidate.foundation == "candidate:842163049"
assert written == "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 192.0.2.7 rport 50000"
assert not hasattr(candidate, "usernameFragment")
PYTHON
echo "as described"
