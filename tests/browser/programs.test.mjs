// A few short random programs of two members, between two Chromium and between Chromium and Firefox. `programs_run.mjs` runs many
// long ones. What was seen in one of those now and then is done on purpose here.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { cleanUp, eventually, freePort, startProxy, startServer, SUITE_TIMEOUT } from './harness.mjs';
import { KEYS, openBrowsers, openMember, report, runProgram } from './programs.mjs';

const STEPS = 20;
const SEEDS = { chromium: [0, 1, 2], firefox: [0, 1] };

/** In a page: what it sends of this type is lost on the way, and counted. */
function lose(type) {
  const { send } = WebSocket.prototype;
  window.lost = 0;
  window.isLossy = true;
  WebSocket.prototype.send = function (text) {
    if (window.isLossy && JSON.parse(text)[type]?.sdp) window.lost += 1; else send.call(this, text);
  };
}

/**
 * A page in `first` has set an offer, with an ICE restart and the first data channel, which is lost when the server crashes, or its
 * answer is. Then the other one returns first, and offers a track: who takes back an offer now loses the channel (Chromium, where the
 * offer is lost) or the DTLS role (Firefox, where the answer is).
 */
async function loseInCrash({ plain, chromium }, first, type) {
  const settings = { PORT: `${await freePort()}`, ...KEYS };
  let server = await startServer(settings);
  const proxy = await startProxy(server.port);
  const alice = await openMember(first, plain, 0, proxy.url, 'lost');
  const bob = await openMember(chromium, plain, 1, server.url, 'lost');
  const act = ({ page }, name, ...given) => page.evaluate(([action, ...rest]) => window.program.actions[action](...rest), [name, ...given]);
  const until = (what, { page }, condition) => eventually(() => what, () => page.evaluate(condition));
  try {
    await act(alice, 'publish', ['audio']);
    await until('the track arrives', bob, () => window.program.peer()?.connection.connectionState === 'connected' && window.program.peer().tracks.size === 1);
    await until('alice is connected', alice, () => window.program.peer()?.connection.connectionState === 'connected');
    const loser = type === 'offer' ? alice : bob;
    await loser.page.evaluate(lose, type);
    await alice.page.evaluate(() => { window.program.actions.restart(); window.program.actions.channel(null, 0, 'late'); });
    await until(`the ${type} is lost`, loser, () => window.lost > 0);

    proxy.cut();
    server.child.process.kill('SIGKILL');
    await server.end();
    await loser.page.evaluate(() => { window.isLossy = false; });
    server = await startServer(settings, server.home);
    await until('bob has returned', bob, () => { dispatchEvent(new Event('online')); return window.program.session.state === 'connected'; });
    await act(bob, 'publish', ['video']);
    proxy.mend();
    await until('alice has returned', alice, () => { dispatchEvent(new Event('online')); return window.program.session.state === 'connected'; });

    let last;
    await eventually(() => `each has what the other publishes: ${JSON.stringify(last)}`, async () => {
      const [ours, theirs] = last = [await alice.page.evaluate(report), await bob.page.evaluate(report)];
      return `${ours.has}` === `${theirs.publishes}` && `${theirs.has}` === `${ours.publishes}` && ours.has.length && theirs.heard.includes('late');
    });
    for (const { errors, channels } of last) assert.deepEqual([errors, channels], [[], last[0].channels === channels ? ['late'] : []]);
  } finally {
    for (const member of [alice, bob]) await member.close().catch(() => {});
    proxy.end();
    await server.end();
  }
}

/** The page of alice takes what the first connection is sent for that of another DTLS certificate, so that the handshake fails. */
async function failDtls({ plain, chromium }, first) {
  const server = await startServer(KEYS);
  const members = [await openMember(first, plain, 0, server.url, 'dtls'), await openMember(chromium, plain, 1, server.url, 'dtls')];
  const [alice, bob] = members;
  try {
    await eventually(() => 'alice sees bob', () => alice.page.evaluate(() => window.program.peer() !== undefined));
    await alice.page.evaluate(() => {
      const { setRemoteDescription } = RTCPeerConnection.prototype;
      const { connection: first } = window.program.peer();
      RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
        if (this === first) sdp = sdp.replace(/(a=fingerprint:sha-256 ..:)(..)/g, (_, before, byte) => before + (byte === '00' ? '11' : '00'));
        return setRemoteDescription.call(this, { type, sdp });
      };
    });
    for (const { page } of members) {
      await page.evaluate(() => {
        const { close } = RTCPeerConnection.prototype;
        window.ends = [];
        RTCPeerConnection.prototype.close = function () {
          window.ends.push(`${this.connectionState}, ICE ${this.iceConnectionState}`);
          close.call(this);
        };
      });
    }
    for (const { page } of members) await page.evaluate(() => window.program.actions.publish(['audio']));
    let last;
    await eventually(() => `both have the audio of the other: ${JSON.stringify(last)}`, async () => {
      last = [await alice.page.evaluate(report), await bob.page.evaluate(report)];
      return last.every(({ connection, has, muted }) => connection === 'connected' && has.length === 1 && !muted);
    });
    assert.deepEqual(last.map(({ errors }) => errors), [[], []]);
    const ends = await Promise.all(members.map(({ page }) => page.evaluate(() => window.ends)));
    assert.match(`${ends}`, /failed, ICE (?!failed)/, 'the handshake failed');
  } finally {
    for (const member of members) await member.close().catch(() => {});
    await server.end();
  }
}

/**
 * A page in `first` calls a connection that ends in a crash of the server before its answer has arrived: that one has begun the DTLS
 * handshake already, which Chromium then goes on with, while the connection that answers in its place begins another one.
 */
async function loseCallee({ plain, chromium }, first) {
  const settings = { PORT: `${await freePort()}`, ...KEYS };
  let server = await startServer(settings);
  const proxy = await startProxy(server.port);
  const callee = await openMember(chromium, plain, 0, server.url, 'callee');
  const caller = await openMember(first, plain, 1, proxy.url, 'callee');
  const until = (what, { page }, condition) => eventually(() => what, () => page.evaluate(condition));
  const isBack = () => { dispatchEvent(new Event('online')); return window.program.session.state === 'connected'; };
  try {
    await until('the callee sees the caller', callee, () => window.program.peer() !== undefined);
    await callee.page.evaluate(lose, 'answer');
    await callee.page.evaluate(() => { window.first = window.program.peer().connection; });
    await caller.page.evaluate(() => window.program.actions.publish(['audio']));
    await until('the answer is lost, and ICE is connected', callee, () => window.lost > 0 && /^co/.test(window.first.iceConnectionState));

    proxy.cut();
    server.child.process.kill('SIGKILL');
    await server.end();
    await callee.page.evaluate(() => { window.isLossy = false; });
    server = await startServer(settings, server.home);
    await until('the callee has returned, with nobody', callee, isBack);
    await until('its connection is closed', callee, () => window.first.connectionState === 'closed');
    proxy.mend();
    await until('the caller has returned', caller, isBack);

    let last;
    await eventually(() => `the callee has the audio of the caller: ${JSON.stringify(last)}`, async () => {
      const [ours, theirs] = last = [await caller.page.evaluate(report), await callee.page.evaluate(report)];
      return ours.connection === 'connected' && theirs.connection === 'connected' && theirs.has.length === 1 && !theirs.muted;
    });
    assert.deepEqual(last.map(({ errors }) => errors), [[], []]);
  } finally {
    for (const member of [callee, caller]) await member.close().catch(() => {});
    proxy.end();
    await server.end();
  }
}

describe('random programs end with what each side publishes', { timeout: SUITE_TIMEOUT }, () => {
  let browsers;

  before(async () => { browsers = await openBrowsers('firefox'); });
  after(async () => {
    await browsers?.end();
    await cleanUp();
  });
  afterEach(() => { for (const browser of [browsers.chromium, browsers.firefox]) browser.assertQuiet(); });

  for (const [pair, seeds] of Object.entries(SEEDS)) {
    for (const seed of seeds) {
      test(`between Chromium and ${pair}, seed ${seed}`, () => runProgram(pair === 'firefox' ? browsers : { ...browsers, firefox: undefined }, seed, STEPS));
    }
  }

  for (const [pair, type] of [['chromium', 'offer'], ['chromium', 'answer'], ['firefox', 'offer'], ['firefox', 'answer']]) {
    test(`and an ${type} of ${pair} and Chromium that is lost in a crash costs nothing`, () => loseInCrash(browsers, browsers[pair], type));
  }

  for (const first of ['chromium', 'firefox']) {
    test(`and a DTLS handshake that fails in ${first} is followed by another one`, () => failDtls(browsers, browsers[first]));
    test(`and a callee of ${first} that a crash replaces in the handshake is called again`, () => loseCallee(browsers, browsers[first]));
  }
});
