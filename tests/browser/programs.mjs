// Random programs of two members with the JavaScript client in real browsers: publish, unpublish, replace, share a screen, mute,
// channels, ICE restarts, leave and join again, a cut network, a server that restarts or crashes, pages that are loaded again. At
// the end each side has what the other publishes. `programs_run.mjs` runs many of them, `programs.test.mjs` a few short ones.

import assert from 'node:assert/strict';
import { openBrowser } from './browser.mjs';
import { openFirefox, startPlainPages } from './firefox.mjs';
import { eventually, freePort, PASSWORDS, sleep, startProxy, startServer } from './harness.mjs';

export const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };
const EXPECTED = [/WebSocket connection to|can.t establish a connection to the server at ws:|interrupted while the page|ERR_|Failed to load/];
const ACTIONS = ['publish', 'publish', 'unpublish', 'unpublish', 'exchange', 'replace', 'share', 'unshare', 'mute', 'channel', 'restart',
  'rejoin', 'cut', 'serverRestart', 'serverCrash', 'reload'];

/** In the page: enters the room with nothing, and offers the actions of a program. */
async function enter({ url, username, password, room, clientId }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const program = window.program = { streams: [], labels: new Map(), screen: null, errors: [], channels: [], heard: new Map(), peak: {} };
  addEventListener('unhandledrejection', ({ reason }) => program.errors.push(`unhandled ${reason}`));
  program.join = async () => {
    const session = program.session = await connect({ url, room, clientId, getToken: signIn({ url, username, password }) });
    // What was on its way to a page that is loaded again, or to a member that has left, has no receiver.
    session.on('error', ({ error }) => error.code === 'target_not_found' || program.errors.push(`${error.code} ${error.message}`));
    session.on('channel', ({ peer, channel }) => program.heard.set(channel.label, peer.connection));
    for (const stream of program.streams) session.publish(stream, program.labels.get(stream));
  };
  await program.join();
  program.peer = () => [...program.session.peers.values()][0];
  const open = (kinds) => navigator.mediaDevices.getUserMedia({
    audio: kinds.includes('audio'), video: kinds.includes('video') && { width: 80, height: 60, frameRate: 5 },
  });
  /** A screen, or where the browser has none to share, a picture that moves. */
  const openScreen = () => navigator.mediaDevices.getDisplayMedia({ video: { width: 80, height: 60, frameRate: 5 } }).catch(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 80, height: 60 });
    const pen = canvas.getContext('2d');
    setInterval(() => { pen.fillStyle = `hsl(${performance.now() % 360} 50% 50%)`; pen.fillRect(0, 0, 80, 60); }, 200);
    return canvas.captureStream(5);
  });
  const publish = (stream, label = `${username} ${program.labels.size}`) => {
    program.streams.push(stream);
    program.labels.set(stream, label);
    program.session.publish(stream, label);
    for (const kind of ['audio', 'video']) {
      const count = program.streams.flatMap((one) => one.getTracks()).filter((track) => track.kind === kind).length;
      program.peak[kind] = Math.max(program.peak[kind] ?? 0, count);
    }
  };
  const unpublish = (stream) => {
    program.streams.splice(program.streams.indexOf(stream), 1);
    program.session.unpublish(stream);
    for (const track of stream.getTracks()) track.stop();
  };
  const one = (which) => program.streams[Math.floor(which * program.streams.length)];
  program.actions = {
    async publish(kinds) { if (program.streams.length < 4) publish(await open(kinds)); },
    unpublish(kinds, which) { if (one(which)) unpublish(one(which)); },
    async exchange(kinds, which) {
      program.actions.unpublish(kinds, which);
      await program.actions.publish(kinds);
    },
    async replace(kinds, which) {
      const old = one(which)?.getTracks()[0];
      if (!old) return;
      const [next] = (await open([old.kind])).getTracks();
      await program.session.replaceTrack(old, next);
      old.stop();
    },
    async share() {
      if (!program.streams.includes(program.screen)) publish(program.screen = await openScreen(), 'screen');
    },
    unshare() { if (program.streams.includes(program.screen)) unpublish(program.screen); },
    mute(kinds, which) {
      const track = one(which)?.getTracks()[0];
      if (track) track.enabled = !track.enabled;
    },
    channel(kinds, which, label) {
      const peer = program.peer();
      if (peer) program.channels.push({ connection: peer.connection, channel: peer.createDataChannel(label) });
    },
    restart() { program.peer()?.restartIce(); },
    async rejoin() {
      program.session.close();
      await program.join();
    },
  };
}

/** In the page: what it publishes, and what it has from the other. */
export function report() {
  const { session, streams, labels, channels, heard, errors, peer, peak } = window.program;
  const pc = peer()?.connection;
  const transceivers = pc?.getTransceivers() ?? [];
  const received = transceivers.filter(({ currentDirection }) => /recv/.test(currentDirection ?? ''));
  return {
    state: session.state, peers: session.peers.size, signaling: pc?.signalingState, connection: pc?.connectionState, errors, peak,
    heard: [...heard].filter(([, connection]) => connection === pc).map(([label]) => label),
    publishes: streams.flatMap((stream) => stream.getTracks().map(({ kind }) => `${kind} of ${labels.get(stream)}`)).sort(),
    has: [...peer()?.tracks.values() ?? []].map(({ track, label }) => `${track.kind} of ${label}`).sort(),
    received: received.length, muted: received.filter(({ receiver }) => receiver.track.muted).length,
    channels: channels.filter(({ connection }) => connection === pc).map(({ channel }) => channel.label),
    sections: transceivers.length, lines: pc?.localDescription?.sdp.match(/^m=\w+/gm), open: channels.map(({ connection, channel }) => [channel.label, channel.readyState, connection === pc]).slice(-3),
  };
}

/** In the page: how long its description is, without candidates, and one of as many sections that a new connection makes. */
async function sizes() {
  const pc = window.program.peer()?.connection;
  if (!pc?.localDescription) return [0, 0];
  const other = new RTCPeerConnection();
  if (/m=application/.test(pc.localDescription.sdp)) other.createDataChannel('x');
  for (const { receiver } of pc.getTransceivers()) other.addTransceiver(receiver.track.kind);
  const { sdp } = await other.createOffer();
  other.close();
  return [pc.localDescription.sdp.replace(/^a=candidate.*\r\n/gm, '').length, sdp.length];
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

/** The browsers and pages that programs share; Firefox only where a `pair` has one. */
export async function openBrowsers(pair) {
  const plain = await startPlainPages();
  const [chromium, firefox] = await Promise.all([openBrowser(), pair === 'firefox' ? openFirefox(plain.port) : undefined]);
  return { plain, chromium, firefox, end: async () => { await Promise.all([chromium.close(), firefox?.end()]); plain.end(); } };
}

/** A page of alice (0) or bob (1) that has entered `room` of the server at `url`. */
export async function openMember(browser, plain, number, url, room) {
  const page = await browser.page(plain.url, { expected: EXPECTED });
  const username = ['alice', 'bob'][number];
  await page.evaluate(enter, { url, username, password: PASSWORDS[username], room, clientId: username });
  return { page, close: () => (page.context ? page.context().close() : page.close()) };
}

/** Runs the program of `seed`, and fails unless each side ends with what the other publishes, and no browser refused anything. */
export async function runProgram({ plain, chromium, firefox }, seed, steps) {
  const random = randomOf(seed);
  const pick = (items) => items[Math.floor(random() * items.length)];
  const settings = { PORT: `${await freePort()}`, ...KEYS };
  let server = await startServer(settings);
  const proxy = await startProxy(server.port);
  const story = [];
  const peak = {};
  const open = (number) => {
    const browser = firefox && number === seed % 2 ? firefox : chromium;
    return openMember(browser, plain, number, number ? proxy.url : server.url, `program${seed}`);
  };
  const members = [await open(0), await open(1)];
  const notePeak = (number, { peak: seen }) => {
    for (const [kind, count] of Object.entries(seen)) peak[`${number} ${kind}`] = Math.max(peak[`${number} ${kind}`] ?? 0, count);
  };
  try {
    for (let step = 0; step < steps; step += 1) {
      const [name, number, kinds, which] = [pick(ACTIONS), pick([0, 1]), pick([['audio'], ['video'], ['audio', 'video']]), random()];
      story.push(`${name} ${number}`);
      if (name === 'cut') {
        proxy.cut();
        await sleep(random() * 300);
        proxy.mend();
      } else if (name === 'serverRestart' || name === 'serverCrash') {
        if (name === 'serverCrash') server.child.process.kill('SIGKILL');
        await server.end();
        server = await startServer(settings, server.home);
      } else if (name === 'reload') {
        notePeak(number, await members[number].page.evaluate(report));
        await members[number].close();
        members[number] = await open(number);
      } else {
        await members[number].page.evaluate(([action, ...given]) => window.program.actions[action](...given), [name, kinds, which, `c${step}`]);
      }
      // The pace of the program; nothing is expected of the time.
      await sleep(random() * 150);
    }

    for (const [number, { page }] of members.entries()) {
      let last;
      await eventually(() => `seed ${seed}, member ${number} has what the other publishes: ${JSON.stringify(last)} after ${story.slice(-15).join(', ')}`, async () => {
        const [mine, theirs] = [await page.evaluate(report), await members[1 - number].page.evaluate(report)];
        last = [mine, theirs];
        const isUp = mine.connection === 'connected' || !(mine.publishes.length + theirs.publishes.length + mine.channels.length + theirs.channels.length);
        return mine.state === 'connected' && mine.peers === 1 && mine.signaling === 'stable' && isUp && mine.muted === 0
          && `${mine.has}` === `${theirs.publishes}` && mine.received === mine.has.length && `${mine.heard.sort()}` === `${theirs.channels.sort()}`;
      });
      last.forEach((one, index) => notePeak(index ? 1 - number : number, one));
      const [{ errors, sections }] = last;
      assert.deepEqual(errors, [], `seed ${seed}, member ${number}: ${story.join(', ')}`);
      // Media sections are used again: there are never more than tracks at one time.
      const tracks = Object.values(peak).reduce((sum, count) => sum + count, 0);
      assert.ok(sections <= tracks, `seed ${seed}: ${sections} sections for at most ${tracks} tracks`);
      const [size, fresh] = await page.evaluate(sizes);
      assert.ok(size <= 2 * fresh, `seed ${seed}: a description of ${size} bytes, ${fresh} in a new connection`);
    }
  } finally {
    for (const member of members) await member.close().catch(() => {});
    proxy.end();
    await server.end();
  }
}
