// The JavaScript client in real browsers: calls that collide, servers that restart, networks that break.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { connect, signIn } from '../../clients/js/dist/signaling.js';
import { openBrowser } from './browser.mjs';
import { ask, cleanUp, eventually, freePort, PASSWORDS, startCoturn, startProxy, startServer, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';
const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };

/** In the page: enters the room with a camera, and notes what happens. */
async function enter({ url, username, password, room, rtc }) {
  const { connect } = await import(`${url}/client/signaling.js`);
  const getToken = async () => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${url}/auth/login`, { method: 'POST', headers, body: JSON.stringify({ username, password }) });
    return (await answer.json()).access_token;
  };
  const call = { states: [], joined: [], left: [], errors: [], messages: [], videos: new Map() };
  window.call = call;
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } });
  const session = await connect({ url, room, getToken, rtc });
  call.session = session;
  call.camera = camera;
  session.on('state', ({ state }) => call.states.push(state));
  session.on('peer-left', ({ peer }) => { call.left.push(peer.id); call.videos.delete(peer.id); });
  session.on('error', ({ error }) => call.errors.push(`${error.code} ${error.message}`));
  session.on('message', ({ peer, data }) => call.messages.push([peer.id, data]));
  session.on('track', ({ peer, track, streams }) => {
    const video = document.createElement('video');
    Object.assign(video, { muted: true, autoplay: true, srcObject: streams[0] ?? new MediaStream([track]) });
    document.body?.append(video);
    call.videos.set(peer.id, video);
  });
  session.publish(camera);
  return session.id;
}

/** In the page: how it stands. */
async function status() {
  const { session, states, left, errors, messages, videos } = window.call;
  const peers = {};
  for (const peer of session.peers.values()) {
    const { connectionState, signalingState } = peer.connection;
    const frames = videos.get(peer.id)?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
    peers[peer.id] = { connectionState, signalingState, frames, ...await peer.stats() };
  }
  return { id: session.id, state: session.state, states, left, errors, messages, peers };
}

describe('the JavaScript client', { timeout: SUITE_TIMEOUT }, () => {
  let browser;
  const pages = [];

  before(async () => { browser = await openBrowser(); });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(async () => {
    for (const page of pages.splice(0)) await page.context().close();
    browser.assertQuiet();
  });

  /** So many tabs in one room. A broken network is what some stories are about, and shows in the console. */
  async function meet(url, room, { count = 2, rtc } = {}) {
    const tabs = [];
    for (let number = 0; number < count; number += 1) {
      const username = ['alice', 'bob'][number % 2];
      const page = await browser.page(`${url}/health`, { bypassCSP: true, expected: [/WebSocket connection|ERR_|Failed to load/] });
      pages.push(page);
      const id = await page.evaluate(enter, { url, username, password: PASSWORDS[username], room, rtc });
      tabs.push({ page, id });
    }
    return tabs;
  }

  async function reaches(tab, what, condition) {
    let last;
    return eventually(() => `${what}: ${JSON.stringify(last)}`, async () => {
      last = await tab.page.evaluate(status);
      return condition(last) && last;
    });
  }

  /** Everyone sees more and more of everyone else. */
  async function allSeeEachOther(tabs) {
    for (const tab of tabs) {
      const others = tabs.filter(({ id }) => id !== tab.id).map(({ id }) => id);
      const before = await reaches(tab, `sees ${others}`, ({ peers }) => others.every((id) => peers[id]?.frames > 0));
      await reaches(tab, 'goes on seeing them', ({ peers }) => others.every((id) => peers[id].frames > before.peers[id].frames + 3));
    }
  }

  test('four meet in a mesh through a relay, and hear when a tab crashes', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, RESUME_WINDOW_SECONDS: '1', WEBSOCKET_TIMEOUT: '5' });
    const tabs = await meet(server.url, 'mesh', { count: 4, rtc: { iceTransportPolicy: 'relay' } });

    await allSeeEachOther(tabs);
    for (const tab of tabs) {
      const { peers, errors } = await tab.page.evaluate(status);
      assert.deepEqual([Object.values(peers).map(({ path }) => path), errors], [['relay', 'relay', 'relay'], []]);
    }

    const crashed = tabs.pop();
    const devtools = await crashed.page.context().newCDPSession(crashed.page);
    devtools.send('Page.crash').catch(() => {});
    for (const tab of tabs) await reaches(tab, 'hears of the crash', ({ left }) => left.includes(crashed.id));
    await allSeeEachOther(tabs);
  });

  test('fifty changes on both sides at random moments end in a call that stands', async () => {
    const server = await startServer();
    const tabs = await meet(server.url, 'glare');
    await allSeeEachOther(tabs);

    const storm = async () => {
      const { session, camera } = window.call;
      for (let change = 0; change < 50; change += 1) {
        if (change % 2) session.publish(camera); else session.unpublish(camera);
        await new Promise((done) => setTimeout(done, Math.random() * 30));
      }
    };
    await Promise.all(tabs.map(({ page }) => page.evaluate(storm)));

    await allSeeEachOther(tabs);
    for (const tab of tabs) {
      await reaches(tab, 'is at rest', ({ peers }) => Object.values(peers).every(({ signalingState }) => signalingState === 'stable'));
      assert.deepEqual((await tab.page.evaluate(status)).errors, []);
    }
  });

  test('a hundred screen shares leave the descriptions as they are', async () => {
    const server = await startServer();
    const tabs = await meet(server.url, 'shares');
    await allSeeEachOther(tabs);

    const sizes = await tabs[0].page.evaluate(async () => {
      const { session } = window.call;
      const [peer] = session.peers.values();
      const screen = await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 }, audio: true });
      const sent = () => peer.connection.getTransceivers().filter(({ currentDirection }) => /send/.test(currentDirection)).length;
      const until = async (count) => {
        while (sent() !== count) await new Promise((done) => setTimeout(done, 2));
      };
      const lengths = [];
      for (let share = 0; share < 100; share += 1) {
        session.publish(screen);
        await until(3);
        lengths.push(peer.connection.localDescription.sdp.length);
        session.unpublish(screen);
        await until(1);
      }
      session.publish(screen);
      return lengths;
    });

    assert.ok(Math.max(...sizes) < 2 * sizes[0], `${sizes}`);
    await allSeeEachOther(tabs);
    const playing = () => [...window.call.session.peers.values()][0].connection.getReceivers().filter(({ track }) => !track.muted).length;
    await eventually(() => 'the last share arrives, unmuted', async () => (await tabs[1].page.evaluate(playing)) === 3);
    for (const tab of tabs) assert.deepEqual((await tab.page.evaluate(status)).errors, []);
  });

  test('a server that restarts in the middle of a call costs it nothing', async () => {
    const settings = { PORT: `${await freePort()}`, ...KEYS };
    const server = await startServer(settings);
    const tabs = await meet(server.url, 'restart');
    await allSeeEachOther(tabs);

    await server.end();
    for (const tab of tabs) await reaches(tab, 'notices', ({ state }) => state === 'reconnecting');
    await allSeeEachOther(tabs);
    await startServer(settings, server.home);

    for (const tab of tabs) await reaches(tab, 'is back', ({ state }) => state === 'connected');
    await tabs[0].page.evaluate(() => window.call.session.send('still there?'));
    const { messages } = await reaches(tabs[1], 'is heard', (now) => now.messages.length > 0);
    assert.deepEqual(messages, [[tabs[0].id, 'still there?']]);
    for (const tab of tabs) assert.deepEqual((await tab.page.evaluate(status)).left, []);
    await allSeeEachOther(tabs);
  });

  test('a server that crashes is found again, and the call goes on', async () => {
    const settings = { PORT: `${await freePort()}`, ...KEYS };
    const server = await startServer(settings);
    const tabs = await meet(server.url, 'crash');
    await allSeeEachOther(tabs);

    server.child.process.kill('SIGKILL');
    await server.end();
    for (const tab of tabs) await reaches(tab, 'notices', ({ state }) => state === 'reconnecting');
    await startServer(settings, server.home);

    for (const tab of tabs) await reaches(tab, 'is back', ({ state }) => state === 'connected');
    await allSeeEachOther(tabs);
    for (const tab of tabs) assert.deepEqual((await tab.page.evaluate(status)).left, []);
  });

  test('TURN credentials that run out are replaced, and a relayed call goes on over three lives of them', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, TURNSERVER_TTL: '10' });
    const tabs = await meet(server.url, 'lives', { rtc: { iceTransportPolicy: 'relay' } });
    await allSeeEachOther(tabs);
    const credentials = () => [...window.call.session.peers.values()].map(({ connection }) => connection.getConfiguration().iceServers[0].username);

    // Also while one pair of candidates takes over from another.
    await Promise.all(tabs.map(({ page }) => page.evaluate(async () => {
      const [peer] = window.call.session.peers.values();
      window.paths = new Set();
      (async () => { for (;;) window.paths.add(String((await peer.stats()).path)); })();
    })));
    const used = [new Set(), new Set()];
    await eventually(() => `three lives: ${used.map(({ size }) => size)}`, async () => {
      for (const [number, tab] of tabs.entries()) for (const name of await tab.page.evaluate(credentials)) used[number].add(name);
      return used.every(({ size }) => size >= 4);
    });

    await allSeeEachOther(tabs);
    for (const tab of tabs) {
      const { peers, errors, left } = await tab.page.evaluate(status);
      const paths = await tab.page.evaluate(() => [...window.paths]);
      assert.deepEqual([Object.values(peers).map(({ path }) => path), paths, errors, left], [['relay'], ['relay'], [], []]);
    }
  });

  test('a network that is gone for ten seconds costs no message', async () => {
    const server = await startServer();
    const proxy = await startProxy(server.port);
    try {
      const [alice] = await meet(proxy.url, 'cut', { count: 1 });
      const [bob] = await meet(server.url, 'cut', { count: 1 });
      await allSeeEachOther([alice, bob]);

      proxy.cut();
      for (let number = 0; number < 20; number += 1) {
        await bob.page.evaluate((said) => window.call.session.send(said), number);
        await alice.page.evaluate((said) => window.call.session.send(said), number);
        await new Promise((done) => setTimeout(done, 500));
      }
      proxy.mend();

      const twenty = Array.from({ length: 20 }, (_, number) => number);
      for (const [tab, other] of [[alice, bob], [bob, alice]]) {
        const { messages, left } = await reaches(tab, 'hears all', (now) => now.messages.length >= 20);
        assert.deepEqual(messages, twenty.map((number) => [other.id, number]));
        assert.deepEqual(left, []);
      }
      await allSeeEachOther([alice, bob]);
    } finally {
      proxy.end();
    }
  });

  test('talks and resumes in Node, which has no WebRTC', async () => {
    const server = await startServer({ ...KEYS, ADMIN_TOKEN: KEYS.SECRET_KEY });
    const proxy = await startProxy(server.port);
    const [page] = await meet(server.url, 'node');
    const getToken = signIn({ url: proxy.url, username: 'bob', password: PASSWORDS.bob });
    const session = await connect({ url: proxy.url, room: 'node', getToken, WebSocket });
    const heard = [];
    session.on('message', ({ peer, data }) => heard.push([peer.id, data]));
    session.on('error', ({ error }) => heard.push(['error', error.message]));

    for (let number = 0; number < 10; number += 1) {
      session.send(number, { to: page.id });
      if (number === 5) proxy.mend();
    }
    await reaches(page, 'every number came once', ({ messages }) => messages.length >= 10);
    await page.page.evaluate(() => window.call.session.send('and back'));

    await eventually(() => `Node hears it: ${JSON.stringify(heard)}`, () => heard.some(([, data]) => data === 'and back'));
    const { messages } = await page.page.evaluate(status);
    assert.deepEqual(messages.map(([, data]) => data), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual(heard, [[page.id, 'and back']]);
    const administrator = { token: KEYS.SECRET_KEY, json: { data: 'from above' } };
    const said = session.once('server-message');
    assert.equal((await ask('POST', server.url, '/admin/api/rooms/node/message', administrator)).status, 200);
    assert.deepEqual(await said, { data: 'from above' });
    assert.throws(() => session.peers.get(page.id).createDataChannel('x'), /RTCPeerConnection/);
    session.close();
    proxy.end();
  });
});
