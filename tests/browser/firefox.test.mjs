// The JavaScript client and the call page in a real Firefox, in calls with a real Chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { openBrowser } from './browser.mjs';
import { cleanUp, folder, freePort, PASSWORDS, startCoturn, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
const SECRET = 'a-secret-that-server-and-coturn-share';
const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };

// --- Firefox, by WebDriver BiDi, which it speaks itself ------------------------------------------

/** What it takes beside `remote.prefs.recommended`, Firefox's own list for tests. */
const PREFERENCES = {
  'remote.prefs.recommended': true,
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.peerconnection.ice.loopback': true, // where lo is the only interface there is no candidate without it
  'media.peerconnection.ice.obfuscate_host_addresses': false, // nobody answers for .local names here
  'media.gmp-manager.updateEnabled': false, // fetches a codec
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'browser.newtabpage.enabled': false,
  'network.trr.mode': 5, // no DNS over HTTPS
};

/** An empty page to import the library into, and the proxy where requests to other machines end. */
async function startPlainPages() {
  const server = http.createServer((request, response) => {
    if (request.url === '/') response.setHeader('content-type', 'text/html').end('<!doctype html><title>empty</title><link rel="icon" href="data:,">');
    else response.writeHead(404).end();
  }).on('connect', (request, socket) => socket.destroy());
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { port: server.address().port, url: `http://127.0.0.1:${server.address().port}/`, end: () => { server.closeAllConnections(); server.close(); } };
}

async function openFirefox(proxyPort) {
  if (!existsSync(FIREFOX)) throw new Error(`${FIREFOX} is missing: apt-get install firefox-esr, or set FIREFOX`);
  const home = folder();
  const preferences = {
    ...PREFERENCES,
    'network.proxy.type': 1, 'network.proxy.http': '127.0.0.1', 'network.proxy.http_port': proxyPort,
    'network.proxy.ssl': '127.0.0.1', 'network.proxy.ssl_port': proxyPort,
  };
  writeFileSync(join(home, 'user.js'), Object.entries(preferences)
    .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
  const child = spawn(FIREFOX, ['--headless', '--no-remote', '--profile', home, '--remote-debugging-port', '0', 'about:blank'], {
    // The release build heeds `services.settings.server` only with the variable that developers set.
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home, MOZ_CRASHREPORTER_DISABLE: '1', MOZ_REMOTE_SETTINGS_DEVTOOLS: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  process.prependListener('exit', () => child.kill('SIGKILL')); // before the harness removes the profile
  let output = '';
  let isGone = false;
  // Its own children hold the pipes too: once they are closed, nobody writes to the profile any more.
  const gone = new Promise((done) => child.once('close', done).once('error', (error) => { output += error; done(); })).then(() => { isGone = true; });
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
  const end = async () => {
    child.kill('SIGTERM');
    const stubborn = setTimeout(() => child.kill('SIGKILL'), 5_000);
    await gone;
    clearTimeout(stubborn);
  };

  try {
    const [, address] = await eventually(() => `Firefox listens; it said: ${output}`, () => {
      if (isGone) throw new Error(`Firefox ended at once; it said: ${output}`);
      return /WebDriver BiDi listening on (\S+)/.exec(output);
    });
    return { ...await speakTo(`${address}/session`), end };
  } catch (error) {
    await end();
    throw error;
  }
}

async function speakTo(address) {
  const socket = new WebSocket(address);
  await new Promise((done, fail) => socket.once('open', done).once('error', fail));
  const asked = new Map();
  let lastId = 0;
  const ask = (method, params) => new Promise((done, fail) => {
    asked.set(lastId += 1, { done, fail });
    socket.send(JSON.stringify({ id: lastId, method, params }));
  });
  const complaints = [];
  const expectations = new Map();
  const complain = (context, text) => {
    if (!expectations.get(context)?.some((pattern) => pattern.test(text))) complaints.push(text);
  };
  const take = {
    'log.entryAdded': ({ level, type, text, source }) => { if (level === 'error') complain(source.context, `${type}: ${text}`); },
    'network.beforeRequestSent': ({ context, request }) => {
      const { protocol, hostname } = new URL(request.url);
      if (/^(http|ws)/.test(protocol) && hostname !== '127.0.0.1') complain(context, `request to ${request.url}`);
    },
    'browsingContext.userPromptOpened': ({ context, message }) => complain(context, `dialog: ${message}`),
  };
  socket.on('message', (text) => {
    const { id, type, method, params, result, error, message } = JSON.parse(text);
    if (type === 'event') return take[method]?.(params);
    const { done, fail } = asked.get(id);
    asked.delete(id);
    if (type === 'success') done(result);
    else fail(new Error(`Firefox: ${error}: ${message}`));
  });
  socket.on('close', () => { for (const { fail } of asked.values()) fail(new Error('Firefox is gone')); });
  await ask('session.new', { capabilities: {} });
  await ask('session.subscribe', { events: Object.keys(take) });

  return {
    /** A tab. `expected` are errors that belong to the story. */
    async page(url, { expected = [] } = {}) {
      const { context } = await ask('browsingContext.create', { type: 'tab' });
      expectations.set(context, expected);
      await ask('browsingContext.navigate', { context, url, wait: 'complete' });
      return {
        /** As Playwright's: runs `what` in the page, and brings back what it returns. */
        async evaluate(what, argument = null) {
          const { type, result, exceptionDetails } = await ask('script.callFunction', {
            functionDeclaration: `async (argument) => JSON.stringify(await (${what})(...JSON.parse(argument)))`,
            arguments: [{ type: 'string', value: JSON.stringify([argument]) }],
            target: { context }, awaitPromise: true, userActivation: true,
          });
          if (type === 'exception') throw new Error(`in Firefox: ${exceptionDetails.text}`);
          return result.value === undefined ? undefined : JSON.parse(result.value);
        },
        close: () => ask('browsingContext.close', { context }),
      };
    },
    assertQuiet() { assert.deepEqual(complaints.splice(0), []); },
  };
}

// --- in the page ---------------------------------------------------------------------------------

/** Enters the room with a camera, and notes what happens. */
async function enter({ url, username, password, room, rtc }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const session = await connect({ url, room, rtc, getToken: signIn({ url, username, password }) });
  const call = { session, left: [], errors: [], messages: [], videos: new Map(), collisions: 0 };
  window.call = call;
  call.open = () => navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } });
  call.listen = (channel) => { channel.onmessage = ({ data }) => call.messages.push(`${channel.label}: ${data}`); };
  session.on('peer-left', ({ peer }) => call.left.push(peer.id));
  session.on('error', ({ error }) => call.errors.push(`${error.code} ${error.message}`));
  session.on('message', ({ data }) => call.messages.push(data));
  session.on('channel', ({ channel }) => call.listen(channel));
  session.on('track', ({ streams: [stream] }) => {
    const video = call.videos.get(stream.id) ?? document.createElement('video');
    Object.assign(video, { muted: true, autoplay: true, srcObject: stream });
    document.body.append(video);
    call.videos.set(stream.id, video);
    stream.onremovetrack = () => {
      if (video.srcObject !== stream) return;
      video.remove();
      call.videos.delete(stream.id);
    };
  });
  // Whether offers cross is a matter of milliseconds: a storm in which none did would show nothing.
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function (description) {
    if (description.type === 'offer' && this.signalingState === 'have-local-offer') call.collisions += 1;
    return setRemoteDescription.call(this, description);
  };
  call.camera = await call.open();
  session.publish(call.camera);
  return session.id;
}

/** How it stands. */
async function status() {
  const { session, left, errors, messages, videos, collisions } = window.call;
  const [peer] = session.peers.values();
  const decoded = new Map();
  (await peer?.connection.getStats())?.forEach(({ type, trackIdentifier, framesDecoded }) => {
    if (type === 'inbound-rtp') decoded.set(trackIdentifier, framesDecoded);
  });
  // A headless Firefox paints nothing, and so counts no frames of the element itself.
  const frames = [...videos.values()].map(({ srcObject, currentTime }) => (currentTime && decoded.get(srcObject.getTracks()[0]?.id)) || 0);
  return {
    id: session.id, state: session.state, left, errors, messages, frames, collisions, polite: peer?.polite,
    connection: peer?.connection.connectionState, signaling: peer?.connection.signalingState, stats: await peer?.stats(),
  };
}

describe('the JavaScript client in Firefox', { timeout: SUITE_TIMEOUT }, () => {
  let plain;
  let chromium;
  let firefox;
  const pages = [];

  before(async () => {
    plain = await startPlainPages();
    [chromium, firefox] = await Promise.all([openBrowser(), openFirefox(plain.port)]);
  });
  after(async () => {
    await Promise.all([chromium?.close(), firefox?.end()]);
    plain?.end();
    await cleanUp();
  });
  afterEach(async () => {
    for (const page of pages.splice(0)) await page.close();
    chromium.assertQuiet();
    firefox.assertQuiet();
  });

  async function open(browser, url = plain.url, expected = []) {
    const page = await browser.page(url, { expected });
    pages.push(page);
    return page;
  }

  /** A tab of each in one room, in this order. */
  async function meet(url, room, { rtc, browsers = [firefox, chromium], expected } = {}) {
    const tabs = [];
    for (const [number, browser] of browsers.entries()) {
      const page = await open(browser, plain.url, expected);
      const username = ['alice', 'bob'][number];
      const id = await page.evaluate(enter, { url, username, password: PASSWORDS[username], room, rtc });
      tabs.push({ page, id, name: browser === firefox ? 'Firefox' : 'Chromium' });
    }
    return tabs;
  }

  async function reaches(tab, what, condition) {
    let last;
    return eventually(() => `${tab.name} ${what}: ${JSON.stringify(last)}`, async () => {
      last = await tab.page.evaluate(status);
      return condition(last) && last;
    });
  }

  /** Each sees so many pictures of the other, and all of them move. */
  async function seeEachOther(tabs, pictures = 1) {
    for (const tab of tabs) {
      const before = await reaches(tab, `sees ${pictures}`, ({ frames }) => frames.length === pictures && frames.every((count) => count > 0));
      await reaches(tab, 'goes on seeing', ({ frames }) => frames.length === pictures && frames.every((count, at) => count > before.frames[at] + 3));
    }
  }

  async function assertGoingBy(tabs, path) {
    for (const tab of tabs) {
      const { stats: before } = await reaches(tab, `has a way, ${path}`, ({ stats }) => stats?.path === path && stats.rtt !== null);
      await reaches(tab, 'counts its bytes', ({ stats }) => stats.bytesSent > before.bytesSent && stats.bytesReceived > before.bytesReceived);
      const { stats } = await tab.page.evaluate(status);
      assert.ok(Number.isInteger(stats.rtt) && stats.rtt >= 0 && stats.rtt < 2_000, `${tab.name}: ${JSON.stringify(stats)}`);
    }
  }

  async function assertUnharmed(tabs) {
    for (const tab of tabs) {
      const { errors, left } = await tab.page.evaluate(status);
      assert.deepEqual([tab.name, errors, left], [tab.name, [], []]);
    }
  }

  test('calls Chromium, with video, data channels and statistics', async () => {
    const server = await startServer();
    const tabs = await meet(server.url, 'mixed');
    await seeEachOther(tabs);
    const roles = [];
    for (const tab of tabs) roles.push((await tab.page.evaluate(status)).polite);
    assert.deepEqual(roles.sort(), [false, true]);
    await assertGoingBy(tabs, 'host');

    for (const tab of tabs) {
      await tab.page.evaluate((label) => {
        const channel = [...window.call.session.peers.values()][0].createDataChannel(label);
        window.call.listen(channel);
        channel.onopen = () => channel.send('hello');
      }, tab.name);
    }
    for (const [tab, other] of [tabs, [...tabs].reverse()]) {
      await reaches(tab, 'hears the other', ({ messages }) => messages.includes(`${other.name}: hello`));
    }

    for (const tab of tabs) {
      await tab.page.evaluate(async () => { window.call.session.publish(window.call.second = await window.call.open()); });
    }
    await seeEachOther(tabs, 2);
    for (const tab of tabs) await tab.page.evaluate(() => window.call.session.unpublish(window.call.second));
    await seeEachOther(tabs, 1);
    await assertUnharmed(tabs);
  });

  for (const names of [['Firefox', 'Chromium'], ['Chromium', 'Firefox']]) {
    test(`${names.join(' and ')} change at once ten times, and the call stands; ${names[1]} came later and gives way`, async () => {
      const server = await startServer();
      const browsers = names.map((name) => (name === 'Firefox' ? firefox : chromium));
      const tabs = await meet(server.url, 'glare', { browsers });
      await seeEachOther(tabs);
      await assertGoingBy(tabs, 'host');

      const change = async (at) => {
        const { session, camera } = window.call;
        for (let round = 0; round < 10; round += 1) {
          await new Promise((done) => setTimeout(done, at + round * 150 - Date.now()));
          if (round % 2) session.publish(camera); else session.unpublish(camera);
        }
      };
      const at = Date.now() + 500;
      await Promise.all(tabs.map(({ page }) => page.evaluate(change, at)));

      for (const tab of tabs) await reaches(tab, 'is at rest', ({ signaling }) => signaling === 'stable');
      await seeEachOther(tabs);
      await assertUnharmed(tabs);
      const [{ polite }, late] = [await tabs[0].page.evaluate(status), await tabs[1].page.evaluate(status)];
      assert.deepEqual([polite, late.polite], [false, true]);
      assert.ok(late.collisions > 0, 'offers have crossed');
    });
  }

  test('the call goes on while the server restarts, and the session after it', async () => {
    const settings = { PORT: `${await freePort()}`, ...KEYS };
    const server = await startServer(settings);
    const tabs = await meet(server.url, 'restart', { expected: [/WebSocket connection to|can.t establish a connection to the server at ws:/] });
    await seeEachOther(tabs);

    await server.end();
    for (const tab of tabs) await reaches(tab, 'notices', ({ state }) => state === 'reconnecting');
    await seeEachOther(tabs);
    await startServer(settings, server.home);

    for (const tab of tabs) await reaches(tab, 'is back', ({ state }) => state === 'connected');
    for (const [tab, other] of [tabs, [...tabs].reverse()]) {
      await tab.page.evaluate((text) => window.call.session.send(text), `from ${tab.name}`);
      await reaches(other, 'hears', ({ messages }) => messages.includes(`from ${tab.name}`));
    }
    await seeEachOther(tabs);
    await assertUnharmed(tabs);
  });

  test('a relayed call outlives two lives of its TURN credentials', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, TURNSERVER_TTL: '10' });
    const tabs = await meet(server.url, 'relayed', { rtc: { iceTransportPolicy: 'relay' } });
    await seeEachOther(tabs);
    await assertGoingBy(tabs, 'relay');

    // The ICE user name changes when the call moves to a relay address of the new credentials.
    const names = () => {
      const { connection } = [...window.call.session.peers.values()][0];
      return [connection.getConfiguration().iceServers[0].username, /a=ice-ufrag:(.*)/.exec(connection.localDescription.sdp)[1]];
    };
    const used = tabs.map(() => [new Set(), new Set()]);
    await eventually(() => `the call moves twice: ${JSON.stringify(used.map((sets) => sets.map((set) => [...set])))}`, async () => {
      for (const [number, { page }] of tabs.entries()) (await page.evaluate(names)).forEach((name, which) => used[number][which].add(name));
      return used.flat().every(({ size }) => size >= 3);
    });

    await seeEachOther(tabs);
    await assertGoingBy(tabs, 'relay');
    await assertUnharmed(tabs);
  });

  test('the call page shows each to the other, and who is muted or has no camera on', async () => {
    const server = await startServer({ DEBUG: 'true' });
    const tabs = [];
    for (const [browser, username] of [[firefox, 'user1'], [chromium, 'user2']]) {
      const page = await open(browser, `${server.url}/examples/secure_client.html?room=page`);
      await page.evaluate((name) => {
        document.querySelector('#username').value = name;
        document.querySelector('#password').value = 'password123';
        document.querySelector('#join').click();
      }, username);
      tabs.push({ page, name: username });
    }
    const click = ({ page }, selector) => page.evaluate((what) => document.querySelector(what).click(), selector);
    /** What a person sees of the other. */
    const look = () => {
      const tile = document.querySelector('#videos figure[data-client-id]:not([data-client-id="me"])');
      const video = tile?.querySelector('video');
      const canvas = Object.assign(document.createElement('canvas'), { width: 32, height: 24 });
      if (video?.videoWidth) canvas.getContext('2d').drawImage(video, 0, 0, 32, 24);
      return {
        status: document.querySelector('#status').textContent, note: document.querySelector('#note').textContent,
        name: tile?.querySelector('.name').textContent,
        picture: video?.videoWidth && !tile.classList.contains('no-picture') ? canvas.toDataURL() : null,
        isMuted: Boolean(tile?.querySelector('[aria-label=muted]')),
        how: document.querySelector('#users .how')?.textContent, chat: document.querySelector('#messages').textContent,
      };
    };
    const sees = (tab, what, condition) => {
      let last;
      return eventually(() => `${tab.name} sees ${what}: ${JSON.stringify(last)}`, async () => {
        last = await tab.page.evaluate(look);
        return condition(last) && last;
      });
    };
    const seesMoving = async (tab) => {
      const { picture } = await sees(tab, 'a picture', (now) => now.picture);
      await sees(tab, 'it move', (now) => now.picture && now.picture !== picture);
    };

    for (const [tab, other] of [tabs, [...tabs].reverse()]) {
      await sees(tab, 'the other', ({ name }) => name === other.name);
      await seesMoving(tab);
      await sees(tab, 'how it goes', ({ how }) => /^direct · \d+ ms · [1-9]\d* kbit\/s$/.test(how));
    }
    for (const [tab, other] of [tabs, [...tabs].reverse()]) {
      await click(tab, '#mic');
      await sees(other, 'that it is muted', ({ isMuted }) => isMuted);
      await click(tab, '#camera');
      await sees(other, 'no picture', ({ picture }) => picture === null);
      await click(tab, '#mic');
      await click(tab, '#camera');
      await sees(other, 'that it is heard again', ({ isMuted }) => !isMuted);
      await seesMoving(other);
      await tab.page.evaluate((text) => {
        document.querySelector('#chat').value = text;
        document.querySelector('#sendChat').click();
      }, `from ${tab.name}`);
      await sees(other, 'what is said', ({ chat }) => chat.includes(`from ${tab.name}`));
    }
    for (const tab of tabs) assert.equal((await tab.page.evaluate(look)).note, '');
  });
});
