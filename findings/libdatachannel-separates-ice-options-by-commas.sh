#!/usr/bin/env bash
# node-datachannel 0.33.4 (npm) with libdatachannel 0.24.5, and Chromium 156.0.8078.108 (Debian 12), driven by playwright-core 1.56.0 (npm):
# the library writes `a=ice-options:ice2,trickle`. Spaces have to separate the options (RFC 8839 section 5.6), so a browser reads a single
# one that it does not know, and takes the peer for one that cannot trickle. Firefox 153 does so too. The source of libdatachannel has the
# space since August 2026 (its pull request 1626).
#
# Why it matters: the library does trickle. A program that asks `canTrickleIceCandidates` before it answers waits for all of its own
# candidates with such a peer, for seconds where a STUN server does not answer, and nothing tells why.
#
# Seen: the line above, and `canTrickleIceCandidates` is false for the offer, and true for the same offer with a space. Exits with 1 if
# that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chromium --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" node-datachannel@0.33.4 playwright-core@1.56.0
cat > "$folder/offer.cjs" <<'JS'
const { PeerConnection } = require('node-datachannel');

const connection = new PeerConnection('peer', { iceServers: [] });
connection.onLocalDescription((sdp) => process.stdout.write(sdp, () => process.exit(0)));
connection.createDataChannel('channel');
JS
cat > "$folder/run.cjs" <<'JS'
const assert = require('node:assert');
const { readFileSync } = require('node:fs');
const { chromium } = require('playwright-core');

async function inPage(sdp) {
  const connection = new RTCPeerConnection();
  await connection.setRemoteDescription({ type: 'offer', sdp });
  return connection.canTrickleIceCandidates;
}

(async () => {
  const offer = readFileSync(process.argv[3], 'utf8');
  const line = offer.match(/^a=ice-options:.*$/m)?.[0].trim();
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ['--no-sandbox'] });
  const page = await browser.newPage();
  const asWritten = await page.evaluate(inPage, offer);
  const withSpace = await page.evaluate(inPage, offer.replace('ice2,trickle', 'ice2 trickle'));
  await browser.close();
  console.log(line, 'can trickle:', asWritten, 'with a space:', withSpace);
  assert.equal(line, 'a=ice-options:ice2,trickle');
  assert.deepEqual([asWritten, withSpace], [false, true]);
})().catch((error) => { console.error(error); process.exit(1); });
JS
cd "$folder"
node offer.cjs > offer.sdp
node run.cjs "$(command -v chromium)" offer.sdp
echo "as described"
