// Random programs of two members with the JavaScript client in real browsers: publish, unpublish, replace, channels, ICE
// restarts, a cut network, a restarted server, pages that are loaded again. At the end each side has what the other publishes.
//
// `node programs.mjs FIRST COUNT STEPS [FILE]` tries so many seeds, alternately between two Chromium and between Chromium and
// Firefox, and appends a line of JSON for each to FILE.

import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { openBrowser } from './browser.mjs';
import { openFirefox, startPlainPages } from './firefox.mjs';
import { cleanUp, eventually, freePort, PASSWORDS, sleep, startProxy, startServer } from './harness.mjs';

const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };
const EXPECTED = [/WebSocket connection to|can.t establish a connection to the server at ws:|interrupted while the page|ERR_|Failed to load/];
const ACTIONS = ['publish', 'publish', 'unpublish', 'unpublish', 'exchange', 'replace', 'mute', 'channel', 'restart', 'cut', 'serverRestart', 'reload'];

/** In the page: enters the room with nothing, and offers the actions of a program. */
async function enter({ url, username, password, room, clientId }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const program = window.program = { streams: [], errors: [], channels: [], heard: new Set(), sizes: [] };
  addEventListener('unhandledrejection', ({ reason }) => program.errors.push(`unhandled ${reason}`));
  const session = program.session = await connect({ url, room, clientId, getToken: signIn({ url, username, password }) });
  // What was on its way to a page that is loaded again has no receiver.
  session.on('error', ({ error }) => error.code === 'target_not_found' || program.errors.push(`${error.code} ${error.message}`));
  session.on('channel', ({ channel }) => program.heard.add(channel.label));
  program.peer = () => [...session.peers.values()][0];
  const open = (kinds) => navigator.mediaDevices.getUserMedia({
    audio: kinds.includes('audio'), video: kinds.includes('video') && { width: 80, height: 60, frameRate: 5 },
  });
  program.actions = {
    async publish(kinds) {
      if (program.streams.length >= 4) return;
      const stream = await open(kinds);
      program.streams.push(stream);
      session.publish(stream);
    },
    unpublish(kinds, which) {
      const [stream] = program.streams.splice(Math.floor(which * program.streams.length), 1);
      if (!stream) return;
      session.unpublish(stream);
      for (const track of stream.getTracks()) track.stop();
    },
    async exchange(kinds, which) {
      program.actions.unpublish(kinds, which);
      await program.actions.publish(kinds);
    },
    async replace(kinds, which) {
      const old = program.streams[Math.floor(which * program.streams.length)]?.getTracks()[0];
      if (!old) return;
      const [next] = (await open([old.kind])).getTracks();
      await session.replaceTrack(old, next);
      old.stop();
    },
    mute(kinds, which) {
      const track = program.streams[Math.floor(which * program.streams.length)]?.getTracks()[0];
      if (track) track.enabled = !track.enabled;
    },
    channel(kinds, which, label) {
      const peer = program.peer();
      if (peer) program.channels.push({ connection: peer.connection, channel: peer.createDataChannel(label) });
    },
    restart() { program.peer()?.restartIce(); },
  };
}

/** In the page: what it publishes, and what it has from the other. */
function report() {
  const { session, streams, channels, heard, errors, peer, sizes } = window.program;
  const other = peer();
  const pc = other?.connection;
  if (pc?.localDescription) sizes.push(pc.localDescription.sdp.length);
  const received = pc?.getTransceivers().filter(({ currentDirection }) => /recv/.test(currentDirection ?? '')) ?? [];
  return {
    state: session.state, peers: session.peers.size, signaling: pc?.signalingState, connection: pc?.connectionState, errors, heard: [...heard],
    publishes: streams.flatMap((stream) => stream.getTracks().map(({ kind }) => kind)).sort(),
    has: received.map(({ receiver }) => receiver.track.kind).sort(), muted: received.filter(({ receiver }) => receiver.track.muted).length,
    channels: channels.filter(({ connection }) => connection === pc).map(({ channel }) => channel.label),
    size: sizes.at(-1), sections: pc?.getTransceivers().length,
  };
}

function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The browsers and pages that the programs share. */
export async function openBrowsers() {
  const plain = await startPlainPages();
  const [chromium, firefox] = await Promise.all([openBrowser(), openFirefox(plain.port)]);
  return { plain, chromium, firefox, end: async () => { await Promise.all([chromium.close(), firefox.end()]); plain.end(); } };
}

/** Runs the program of `seed`, and fails unless each side ends with what the other publishes. */
export async function runProgram({ plain, chromium, firefox }, seed, steps) {
  const random = randomOf(seed);
  const pick = (items) => items[Math.floor(random() * items.length)];
  const settings = { PORT: `${await freePort()}`, ...KEYS };
  let server = await startServer(settings);
  const proxy = await startProxy(server.port);
  const story = [];
  const open = async (number) => {
    const browser = number === seed % 2 && seed % 4 > 1 ? firefox : chromium;
    const page = await browser.page(plain.url, { expected: EXPECTED });
    const username = ['alice', 'bob'][number];
    await page.evaluate(enter, { url: number ? proxy.url : server.url, username, password: PASSWORDS[username], room: `program${seed}`, clientId: username });
    return { page, browser, close: () => (page.context ? page.context().close() : page.close()) };
  };
  const members = [await open(0), await open(1)];
  try {
    for (let step = 0; step < steps; step += 1) {
      const [name, number, kinds, which] = [pick(ACTIONS), pick([0, 1]), pick([['audio'], ['video'], ['audio', 'video']]), random()];
      story.push(`${name} ${number}`);
      if (name === 'cut') {
        proxy.cut();
        await sleep(random() * 300);
        proxy.mend();
      } else if (name === 'serverRestart') {
        await server.end();
        server = await startServer(settings, server.home);
      } else if (name === 'reload') {
        await members[number].close();
        members[number] = await open(number);
      } else {
        await members[number].page.evaluate(([action, ...given]) => window.program.actions[action](...given), [name, kinds, which, `c${step}`]);
      }
      await sleep(random() * 150);
    }

    for (const [number, { page }] of members.entries()) {
      let last;
      await eventually(() => `seed ${seed}, member ${number} has what the other publishes: ${JSON.stringify(last)} after ${story.slice(-15).join(', ')}`, async () => {
        const [mine, theirs] = [await page.evaluate(report), await members[1 - number].page.evaluate(report)];
        last = [mine, theirs];
        const isUp = mine.connection === 'connected' || !(mine.publishes.length + theirs.publishes.length + mine.channels.length + theirs.channels.length);
        return mine.state === 'connected' && mine.peers === 1 && mine.signaling === 'stable' && isUp && mine.muted === 0
          && `${mine.has}` === `${theirs.publishes}` && theirs.channels.every((label) => mine.heard.includes(label));
      });
      // Four streams of two tracks each side, and the data channels.
      assert.ok(last[0].sections <= 16, `seed ${seed}: ${last[0].sections} sections`);
      assert.deepEqual(last[0].errors, [], `seed ${seed}, member ${number}: ${story.join(', ')}`);
    }
  } finally {
    for (const member of members) await member.close().catch(() => {});
    proxy.end();
    await server.end();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [first, count, steps] = process.argv.slice(2, 5).map(Number);
  const browsers = await openBrowsers();
  let failed = 0;
  for (let seed = first; seed < first + count; seed += 1) {
    const began = Date.now();
    const failure = await runProgram(browsers, seed, steps).then(() => null, (error) => error.message);
    if (failure) failed += 1;
    const line = JSON.stringify({ seed, steps, firefox: seed % 4 > 1, seconds: Math.round((Date.now() - began) / 1000), failure });
    console.log(line);
    if (process.argv[5]) appendFileSync(process.argv[5], `${line}\n`);
  }
  await browsers.end();
  await cleanUp();
  process.exit(failed ? 1 : 0);
}
