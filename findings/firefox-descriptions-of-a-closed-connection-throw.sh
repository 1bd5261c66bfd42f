#!/usr/bin/env bash
# Firefox ESR 153.8.0 (Debian 12), driven by puppeteer-core 24.43.1 (npm): once an RTCPeerConnection is closed, reading any of its six
# description attributes throws InvalidStateError. In the W3C specification they are plain attributes that return the last value or null,
# also after close(), and Chromium does so. Firefox's own other attributes and even getStats() can be used.
#
# Why it matters: `if (connection.remoteDescription)` is how programs decide whether a candidate can be added or has to wait. A signal that
# comes in just behind the close throws there, in the middle of a message handler, in Firefox only. Ask for `signalingState` first.
#
# Seen: all six throw, signalingState is "closed" and getStats() resolves. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
firefox-esr --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" puppeteer-core@24.43.1
cat > "$folder/run.cjs" <<'JS'
const assert = require('node:assert');
const puppeteer = require('puppeteer-core');

const NAMES = ['', 'current', 'pending'].flatMap((when) => ['localDescription', 'remoteDescription']
  .map((name) => (when ? when + name[0].toUpperCase() + name.slice(1) : name)));

async function inPage(names) {
  const connection = new RTCPeerConnection();
  const other = new RTCPeerConnection();
  connection.createDataChannel('channel');
  await connection.setLocalDescription();
  await other.setRemoteDescription(connection.localDescription);
  await other.setLocalDescription();
  await connection.setRemoteDescription(other.localDescription);
  const read = (name) => {
    try {
      return connection[name]?.type ?? 'null';
    } catch (error) {
      return error.name;
    }
  };
  const before = names.map(read);
  connection.close();
  const after = names.map(read);
  const stats = await connection.getStats().then(() => 'resolves', (error) => error.name);
  return { before, after, state: connection.signalingState, stats };
}

(async () => {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.argv[2], headless: true });
  const page = await browser.newPage();
  const seen = await page.evaluate(inPage, NAMES);
  await browser.close();
  console.log(NAMES.join(' '));
  console.log(seen);
  assert.deepEqual(seen, {
    before: ['offer', 'answer', 'offer', 'answer', 'null', 'null'],
    after: Array(6).fill('InvalidStateError'),
    state: 'closed',
    stats: 'resolves',
  });
})().catch((error) => { console.error(error); process.exit(1); });
JS
node "$folder/run.cjs" "$(command -v firefox-esr)"
echo "as described"
