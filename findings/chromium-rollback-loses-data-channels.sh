#!/usr/bin/env bash
# Chromium 156.0.8078.108 (Debian 12), driven by playwright-core 1.56.0 (npm): where the first offer for a data channel is rolled back, the
# connection never has data channels again. `negotiationneeded` is fired, but the offers have no `m=application` section, neither for that
# channel nor for later ones, and where the other peer offers such a section beside audio, it is answered with port 0. Firefox 153 offers
# the section again.
#
# Why it matters: in "perfect negotiation" the polite peer rolls back when offers cross. If it had just created its first channel and the
# other's offer has none, the connection comes up and the channel stays "connecting", without any error. By the specification data is
# offered for as long as a channel exists and none is negotiated (W3C WebRTC, "check if negotiation is needed"; RFC 9429 section 5.2.1).
# Only a new RTCPeerConnection helps.
#
# Seen: without a rollback the channel opens. After an offer that crossed, and one more round from either side, the peers are connected, two
# channels are "connecting", and the other's is "closed". Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chromium --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" playwright-core@1.56.0
cat > "$folder/run.cjs" <<'JS'
const assert = require('node:assert');
const { chromium } = require('playwright-core');

async function inPage(crossing) {
  const pause = (time) => new Promise((done) => setTimeout(done, time));
  const polite = new RTCPeerConnection();
  const other = new RTCPeerConnection();
  polite.onicecandidate = ({ candidate }) => other.addIceCandidate(candidate).catch(() => {});
  other.onicecandidate = ({ candidate }) => polite.addIceCandidate(candidate).catch(() => {});
  const negotiate = async (from, to) => {
    await from.setLocalDescription();
    await to.setRemoteDescription(from.localDescription); // rolls back an offer of `to`
    await to.setLocalDescription();
    await from.setRemoteDescription(to.localDescription);
  };
  const section = (description) => description.sdp.match(/^m=application \d+/m)?.[0] ?? 'none';
  const channels = [polite.createDataChannel('first')];
  let asked = false;
  if (crossing) {
    other.addTransceiver('audio');
    await polite.setLocalDescription();
    polite.onnegotiationneeded = () => { asked = true; };
    await negotiate(other, polite);
    await pause(500);
    channels.push(polite.createDataChannel('second'));
  }
  const offered = section(await polite.createOffer());
  await negotiate(polite, other);
  channels.push(other.createDataChannel('third'));
  await negotiate(other, polite);
  const answered = section(polite.localDescription);
  for (let i = 0; i < 50; i += 1) {
    if (polite.connectionState === 'connected' && channels.every((it) => it.readyState === 'open')) break;
    await pause(100);
  }
  return { offered, answered, asked, connection: polite.connectionState, channels: channels.map((it) => it.readyState).join() };
}

(async () => {
  const browser = await chromium.launch({
    executablePath: process.argv[2],
    args: ['--no-sandbox', '--allow-loopback-in-peer-connection'],
  });
  const page = await browser.newPage();
  const plain = await page.evaluate(inPage, false);
  const crossed = await page.evaluate(inPage, true);
  await browser.close();
  console.log('without a rollback:', plain);
  console.log('after a rollback:', crossed);
  assert.deepEqual(plain, {
    offered: 'm=application 9', answered: 'm=application 9', asked: false, connection: 'connected', channels: 'open,open',
  });
  assert.deepEqual(crossed, {
    offered: 'none', answered: 'm=application 0', asked: true, connection: 'connected', channels: 'connecting,connecting,closed',
  });
})().catch((error) => { console.error(error); process.exit(1); });
JS
node "$folder/run.cjs" "$(command -v chromium)"
echo "as described"
