#!/usr/bin/env bash
# Firefox ESR 153.8.0 (Debian 12), driven by puppeteer-core 24.43.1 (npm), with coturn 4.6.1: where the TURN server closes the TCP connection
# of a call with a data channel in use, the DTLS transport is "failed" within a second, while ICE is "connected", and the channel is closed.
# An ICE restart over a TURN server that is there again connects ICE, and nothing else. Chromium 156 keeps the channel and goes on.
#
# Why it matters: an ICE restart is there to bring a call back after such a loss, and keeps the DTLS association (RFC 8842). A TURN server that
# is restarted for an update ends every call with data channels of the Firefox users behind firewalls that need TCP. Only a new
# RTCPeerConnection helps.
#
# Seen: two seconds after coturn was ended, "failed" with ICE "connected", DTLS "failed" and the channel "closed"; ten seconds after an ICE
# restart over a new coturn, only ICE is "connected". Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
chmod 777 . # apt downloads as a user of its own
apt-get -qq download coturn=4.6.1-1 libevent-core-2.1-7 libevent-extra-2.1-7 libevent-openssl-2.1-7 libevent-pthreads-2.1-7 \
    libhiredis0.14 libmariadb3 libpq5
for package in ./*.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu"
cat >turnserver.conf <<'CONF'
listening-ip=127.0.0.1
relay-ip=127.0.0.1
listening-port=34782
min-port=34900
max-port=34999
realm=example.com
lt-cred-mech
user=user:secret
no-tls
no-dtls
no-cli
allow-loopback-peers
CONF
firefox-esr --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" puppeteer-core@24.43.1
cat >run.cjs <<'JS'
const assert = require('node:assert');
const puppeteer = require('puppeteer-core');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const net = require('node:net');

const pause = (time) => new Promise((done) => setTimeout(done, time));

async function startCoturn() {
  const child = spawn('root/usr/bin/turnserver', ['-c', 'turnserver.conf', '--db', 'db', '--pidfile', 'pid', '--log-file', 'stdout'], { stdio: 'ignore' });
  const isUp = () => new Promise((done) => {
    const probe = net.connect(34782, '127.0.0.1').once('error', () => done(false)).once('connect', () => { probe.destroy(); done(true); });
  });
  while (!await isUp()) await pause(200);
  return async () => { child.kill('SIGKILL'); await once(child, 'exit'); };
}

/** Two connections through coturn, the first of which reaches it over TCP, and a data channel that is used all the time. */
async function connect() {
  const [first, second] = ['tcp', 'udp'].map((transport) => new RTCPeerConnection({
    iceServers: [{ urls: `turn:127.0.0.1:34782?transport=${transport}`, username: 'user', credential: 'secret' }], iceTransportPolicy: 'relay',
  }));
  let described;
  for (const [from, to] of [[first, second], [second, first]]) {
    from.onicecandidate = ({ candidate }) => described.then(() => candidate && to.addIceCandidate(candidate));
  }
  window.negotiate = (options) => (described = (async () => {
    await first.setLocalDescription(await first.createOffer(options));
    await second.setRemoteDescription(first.localDescription);
    await second.setLocalDescription();
    await first.setRemoteDescription(second.localDescription);
  })());
  const channel = first.createDataChannel('channel');
  window.look = () => ({ connection: first.connectionState, ice: first.iceConnectionState, dtls: window.dtls.state, channel: channel.readyState });
  await window.negotiate();
  window.dtls = first.sctp.transport;
  await new Promise((done) => { channel.onopen = done; });
  setInterval(() => channel.readyState === 'open' && channel.send('x'), 200);
}

async function run(page) {
  const stop = await startCoturn();
  let seen;
  try {
    await page.evaluate(connect);
    await pause(1_000);
    const before = await page.evaluate(() => window.look());
    await stop();
    await pause(2_000);
    const closed = await page.evaluate(() => window.look());
    const stopAgain = await startCoturn();
    await page.evaluate(() => window.negotiate({ iceRestart: true }));
    await pause(10_000);
    seen = { before, closed, restarted: await page.evaluate(() => window.look()) };
    await stopAgain();
  } catch (error) {
    console.error(error);
  }
  return seen;
}

(async () => {
  const extraPrefsFirefox = { 'media.peerconnection.ice.loopback': true };
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.argv[2], headless: true, extraPrefsFirefox });
  const seen = await run(await browser.newPage());
  await browser.close();
  console.log(seen);
  assert.deepEqual(seen, {
    before: { connection: 'connected', ice: 'connected', dtls: 'connected', channel: 'open' },
    closed: { connection: 'failed', ice: 'connected', dtls: 'failed', channel: 'closed' },
    restarted: { connection: 'failed', ice: 'connected', dtls: 'failed', channel: 'closed' },
  });
})().catch((error) => { console.error(error); process.exit(1); });
JS
node run.cjs "$(command -v firefox-esr)"
echo "as described"
