#!/usr/bin/env bash
# Firefox ESR 153.8.0 (Debian 12), driven by puppeteer-core 24.43.1 (npm): a getStats() that is under way when its RTCPeerConnection is
# closed never settles: neither resolved nor rejected. One that begins after close() resolves at once. In the W3C specification the
# promise of getStats() is resolved in any case, and Chromium does so.
#
# Why it matters: a loop that awaits the statistics of a call each second stops for good, without an error, if the call ends or its
# connection is replaced in the milliseconds of a request. Race getStats() against the end of the connection.
#
# Seen: 0 of 20 settle within a second where close() follows at once, and a later one resolves. Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
firefox-esr --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" puppeteer-core@24.43.1
cat > "$folder/run.cjs" <<'JS'
const assert = require('node:assert');
const puppeteer = require('puppeteer-core');

async function inPage() {
  const within = (promise) => Promise.race([
    promise.then(() => 'resolved', (error) => error.name),
    new Promise((done) => setTimeout(done, 1_000, 'pending')),
  ]);
  const outcomes = [];
  let later;
  for (let round = 0; round < 20; round += 1) {
    const connection = new RTCPeerConnection();
    const other = new RTCPeerConnection();
    connection.createDataChannel('channel');
    await connection.setLocalDescription();
    await other.setRemoteDescription(connection.localDescription);
    await other.setLocalDescription();
    await connection.setRemoteDescription(other.localDescription);
    const stats = connection.getStats();
    connection.close();
    outcomes.push(await within(stats));
    later = await within(connection.getStats());
    other.close();
  }
  return { outcomes: [...new Set(outcomes)], later };
}

(async () => {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.argv[2], headless: true });
  const page = await browser.newPage();
  const seen = await page.evaluate(inPage);
  await browser.close();
  console.log(seen);
  assert.deepEqual(seen, { outcomes: ['pending'], later: 'resolved' });
})().catch((error) => { console.error(error); process.exit(1); });
JS
node "$folder/run.cjs" "$(command -v firefox-esr)"
echo "as described"
