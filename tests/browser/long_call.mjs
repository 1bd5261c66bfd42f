// A long relayed call between two Chromium: TURN credentials that last 60 s, a server that restarts every 75 s, and a network, for the
// media of both and the signaling of one, that is gone for 8 s every 105 s.
//
//   node long_call.mjs [MINUTES]
//
// prints how long no media arrived, and how long the pictures stood still: at most, after the network was back, and while the network
// was there.

import { createSocket } from 'node:dgram';
import { openBrowser } from './browser.mjs';
import { startPlainPages } from './firefox.mjs';
import { cleanUp, eventually, freePort, PASSWORDS, sleep, startCoturn, startProxy, startServer } from './harness.mjs';

const MINUTES = Number(process.argv[2] ?? 30);
const SECRET = 'a-secret-that-server-and-coturn-share';
const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };
const EXPECTED = [/WebSocket connection to|ERR_|Failed to load/];
/** In seconds. */
const [TTL, RESTART_EVERY, CUT_EVERY, CUT_FOR] = [60, 75, 105, 8];

/** In the page: joins through the relay, and notes when packets and pictures of the other arrive. */
async function enter({ url, username, password }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const tab = window.tab = { frames: [], packets: [], errors: [], users: new Set() };
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120, frameRate: 10 }, audio: true });
  const session = tab.session = await connect({
    url, room: 'long', clientId: username, getToken: signIn({ url, username, password }), rtc: { iceTransportPolicy: 'relay' },
  });
  session.on('error', ({ error }) => tab.errors.push(`${error.code} ${error.message}`));
  session.on('track', ({ streams: [stream] }) => {
    if (!tab.video) {
      tab.video = document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, autoplay: true, playsInline: true }));
      const note = () => {
        tab.frames.push(Date.now());
        tab.video.requestVideoFrameCallback(note);
      };
      tab.video.requestVideoFrameCallback(note);
    }
    if (tab.video.srcObject !== stream) tab.video.srcObject = stream;
  });
  session.publish(camera);
  let received = 0;
  setInterval(async () => {
    const [peer] = session.peers.values();
    // Firefox (153) never answers for a connection that is closed meanwhile.
    const answer = await Promise.race([peer?.connection.getStats(), new Promise((done) => setTimeout(done, 2_000))]);
    const report = [...(answer ?? new Map()).values()];
    const now = report.filter(({ type }) => type === 'inbound-rtp').reduce((sum, { packetsReceived }) => sum + packetsReceived, 0);
    if (now !== received) tab.packets.push(Date.now());
    received = now;
  }, 100);
}

/** In the page: the times of the frames since the last look, and how it stands. */
function look() {
  const { tab } = window;
  const [peer] = tab.session.peers.values();
  tab.users.add(peer?.connection.getConfiguration().iceServers[0]?.username);
  return { frames: tab.frames.splice(0), packets: tab.packets.splice(0), errors: tab.errors.splice(0), state: tab.session.state, connection: peer?.connection.connectionState, credentials: tab.users.size };
}

/** A UDP proxy to `port`, which drops every packet while it is cut. */
async function startUdpProxy(port) {
  const proxy = { isCut: false };
  const near = createSocket('udp4');
  const clients = new Map();
  near.on('message', (packet, { port: from }) => {
    if (proxy.isCut) return;
    if (!clients.has(from)) {
      const far = createSocket('udp4').on('message', (answer) => proxy.isCut || near.send(answer, from, '127.0.0.1'));
      clients.set(from, far);
    }
    clients.get(from).send(packet, port, '127.0.0.1');
  });
  await new Promise((done) => near.bind(0, '127.0.0.1', done));
  proxy.port = near.address().port;
  proxy.end = () => { for (const socket of [near, ...clients.values()]) socket.close(); };
  return proxy;
}

const plain = await startPlainPages();
const [coturn, browser] = await Promise.all([startCoturn({ secret: SECRET }), openBrowser()]);
const media = await startUdpProxy(coturn.port);
const settings = {
  ...KEYS, PORT: `${await freePort()}`, TURNSERVER_SECRET: SECRET, TURNSERVER_TTL: `${TTL}`, TURNSERVER_URLS: `["turn:127.0.0.1:${media.port}"]`,
};
let server = await startServer(settings);
const signaling = await startProxy(server.port);
const pages = [];
for (const username of ['alice', 'bob']) {
  const page = await browser.page(plain.url, { expected: EXPECTED });
  await page.evaluate(enter, { url: username === 'bob' ? signaling.url : server.url, username, password: PASSWORDS[username] });
  pages.push({ page, username, frames: [], packets: [], errors: [] });
}
const collect = async () => {
  for (const tab of pages) {
    const { frames, packets, errors, ...state } = await tab.page.evaluate(look);
    tab.frames.push(...frames);
    tab.packets.push(...packets);
    tab.errors.push(...errors);
    tab.last = state;
  }
};
await eventually(() => 'both see each other', async () => {
  await collect();
  return pages.every(({ frames }) => frames.length > 10);
});

const began = Date.now();
const seconds = () => (Date.now() - began) / 1000;
const cuts = [];
let [restarts, nextRestart, nextCut] = [0, RESTART_EVERY, CUT_EVERY];
while (seconds() < MINUTES * 60) {
  if (seconds() >= nextRestart) {
    nextRestart += RESTART_EVERY;
    restarts += 1;
    await server.end();
    server = await startServer(settings, server.home);
  }
  if (seconds() >= nextCut) {
    nextCut += CUT_EVERY;
    const from = Date.now();
    media.isCut = true;
    signaling.cut();
    await sleep(CUT_FOR * 1000);
    media.isCut = false;
    signaling.mend();
    cuts.push({ from, to: Date.now() });
  }
  await collect();
  await sleep(500); // the pace of the watch
}
await sleep(5_000); // what a last restart or cut still needs
await collect();

/** The gaps of over half a second, in ms: the longest after a network was back, and the longest while there was one. */
function gaps(times) {
  const longest = { afterNetwork: 0, withNetwork: 0 };
  for (const [index, to] of times.slice(1).entries()) {
    const from = times[index];
    const cut = cuts.find((one) => one.from < to && one.to > from - 1_000);
    if (to - from <= 500) continue;
    if (cut) longest.afterNetwork = Math.max(longest.afterNetwork, to - cut.to);
    else longest.withNetwork = Math.max(longest.withNetwork, to - from);
  }
  return longest;
}

const result = { minutes: MINUTES, restarts, cuts: cuts.length };
for (const { username, frames, packets, errors, last } of pages) {
  const isMovingAtTheEnd = Date.now() - frames.at(-1) < 2_000;
  result[username] = { ...last, errors, frames: frames.length, isMovingAtTheEnd, longestWithoutMedia: gaps(packets), longestWithoutPicture: gaps(frames) };
}
console.log(JSON.stringify(result, null, 1));
await browser.close();
for (const one of [plain, media, signaling]) one.end();
await server.end();
await cleanUp();
const isGood = pages.every(({ username }) => result[username].isMovingAtTheEnd && result[username].longestWithoutMedia.afterNetwork <= 2_000);
process.exit(isGood ? 0 : 1);
