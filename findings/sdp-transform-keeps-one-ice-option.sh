#!/usr/bin/env bash
# sdp-transform 3.0.0 (npm): of `a=ice-options` it reads the first option only, so parse and write turn "ice2 trickle" into "ice2" and
# "trickle renomination" into "trickle".
#
# Why it matters: the attribute is a list (RFC 8839 section 5.6); native applications with libwebrtc write the second one where renomination
# is on. A program that rewrites descriptions with this library, to set a bitrate for example, takes "trickle" away from a peer that puts
# "ice2" first (RFC 8445 section 10). Who reads the result takes it for a peer that cannot trickle (RFC 8838 section 3) and may collect all
# its candidates before it answers. Nothing fails, the calls only begin later.
#
# Seen: the two lines above at the level of the session and of the media section, where all others come back as they were. Exits with 1
# if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" sdp-transform@3.0.0
cd "$folder"
cat > run.mjs <<'JS'
import assert from 'node:assert';
import * as sdpTransform from 'sdp-transform';

const { parse, write } = sdpTransform.default ?? sdpTransform;
const description = (session, media) => [
  'v=0', 'o=- 20518 1 IN IP4 203.0.113.1', 's=-', 't=0 0', 'a=group:BUNDLE 0', `a=ice-options:${session}`,
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'c=IN IP4 0.0.0.0', 'a=setup:actpass', 'a=mid:0',
  'a=ice-ufrag:8hhY', 'a=ice-pwd:asd88fgpdd777uzjYhagZg', `a=ice-options:${media}`, 'a=sctp-port:5000', '',
].join('\r\n');

const before = description('ice2 trickle', 'trickle renomination');
const after = write(parse(before));
const missing = before.split('\r\n').filter((line) => !after.split('\r\n').includes(line));
const added = after.split('\r\n').filter((line) => !before.split('\r\n').includes(line));
console.log('read:', missing);
console.log('written:', added);
assert.deepEqual(missing, ['a=ice-options:ice2 trickle', 'a=ice-options:trickle renomination']);
assert.deepEqual(added, ['a=ice-options:ice2', 'a=ice-options:trickle']);
JS
node run.mjs
echo "as described"
