#!/usr/bin/env bash
# Chromium 156.0.8078.108 (Debian 12), driven by playwright-core 1.56.0 (npm), with coturn 4.6.1: where the TURN server closes the TCP connection
# of a call, `connectionState` is "failed" at once, while `iceConnectionState` stays "disconnected" for good, and the DTLS transport is
# "connected". By the specification a connection is "failed" if one of its ICE or DTLS transports is (W3C WebRTC, RTCPeerConnectionState).
#
# Why it matters: a program that restarts ICE when `iceConnectionState` is "failed" waits in vain. One that tells by the two states whether
# ICE or DTLS has failed (no ICE restart helps against the second) replaces a connection that a restart would save, with its channels.
#
# Seen: 40 s after coturn was ended, "failed" with ICE "disconnected" and DTLS "connected". After an ICE restart over a new coturn all is
# "connected", and the data channel has been open all the time. Exits with 1 if that changes.
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
listening-port=34781
min-port=34800
max-port=34899
realm=example.com
lt-cred-mech
user=user:secret
no-tls
no-dtls
no-cli
allow-loopback-peers
CONF
chromium --version
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" playwright-core@1.56.0
cat >run.cjs <<'JS'
const assert = require('node:assert');
const { chromium } = require('playwright-core');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const net = require('node:net');

const pause = (time) => new Promise((done) => setTimeout(done, time));

async function startCoturn() {
  const child = spawn('root/usr/bin/turnserver', ['-c', 'turnserver.conf', '--db', 'db', '--pidfile', 'pid', '--log-file', 'stdout'], { stdio: 'ignore' });
  const isUp = () => new Promise((done) => {
    const probe = net.connect(34781, '127.0.0.1').once('error', () => done(false)).once('connect', () => { probe.destroy(); done(true); });
  });
  while (!await isUp()) await pause(200);
  return async () => { child.kill('SIGKILL'); await once(child, 'exit'); };
}

/** Two connections through coturn, the first of which reaches it over TCP, and a data channel that is used all the time. */
async function connect() {
  const [first, second] = ['tcp', 'udp'].map((transport) => new RTCPeerConnection({
    iceServers: [{ urls: `turn:127.0.0.1:34781?transport=${transport}`, username: 'user', credential: 'secret' }], iceTransportPolicy: 'relay',
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
    await pause(40_000);
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
  const browser = await chromium.launch({ executablePath: process.argv[2], args: ['--no-sandbox', '--allow-loopback-in-peer-connection'] });
  const seen = await run(await browser.newPage());
  await browser.close();
  console.log(seen);
  const well = { connection: 'connected', ice: 'connected', dtls: 'connected', channel: 'open' };
  assert.deepEqual(seen, { before: well, closed: { connection: 'failed', ice: 'disconnected', dtls: 'connected', channel: 'open' }, restarted: well });
})().catch((error) => { console.error(error); process.exit(1); });
JS
node run.cjs "$(command -v chromium)"
echo "as described"
