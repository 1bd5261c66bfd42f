// The JavaScript client and the call page in a real Firefox, in calls with a real Chromium.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { openFirefox, startPlainPages } from './firefox.mjs';
import { cleanUp, freePort, PASSWORDS, startCoturn, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';
const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };

// --- in the page ---------------------------------------------------------------------------------

/** Enters the room, with a camera unless it only listens, and notes what happens. Its first offer may be slow. */
async function enter({ url, username, password, room, rtc, listens = false, slowness = 0 }) {
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
  const { createOffer, setLocalDescription, setRemoteDescription } = RTCPeerConnection.prototype;
  const offering = new Set();
  Object.assign(RTCPeerConnection.prototype, {
    async createOffer() {
      offering.add(this);
      const offer = await createOffer.call(this);
      await new Promise((done) => setTimeout(done, slowness));
      slowness = 0;
      return offer;
    },
    setLocalDescription(description) {
      if (description?.type === 'offer') offering.delete(this);
      return setLocalDescription.call(this, description);
    },
    setRemoteDescription(description) {
      if (description.type === 'offer' && offering.delete(this)) call.collisions += 1;
      return setRemoteDescription.call(this, description);
    },
  });
  if (!listens) {
    call.camera = await call.open();
    session.publish(call.camera);
  }
  return session.id;
}

/** How it stands. */
async function status() {
  const { session, left, errors, messages, videos, collisions } = window.call;
  const [peer] = session.peers.values();
  const decoded = new Map();
  // Firefox (153) never answers for a connection that is closed meanwhile.
  const report = await Promise.race([peer?.connection.getStats(), new Promise((done) => setTimeout(done, 2_000))]);
  report?.forEach(({ type, trackIdentifier, framesDecoded }) => {
    if (type === 'inbound-rtp') decoded.set(trackIdentifier, framesDecoded);
  });
  // A headless Firefox paints nothing, and so counts no frames of the element itself.
  const frames = [...videos.values()].map(({ srcObject, currentTime }) => (currentTime && decoded.get(srcObject.getTracks()[0]?.id)) || 0);
  return {
    id: session.id, state: session.state, left, errors, messages, frames, collisions, polite: peer?.polite,
    connection: peer?.connection.connectionState, signaling: peer?.connection.signalingState, stats: await peer?.stats(),
    muted: [...videos.values()].some(({ srcObject }) => srcObject.getTracks().some(({ muted }) => muted)),
    ufrag: /a=ice-ufrag:(.*)/.exec(peer?.connection.localDescription?.sdp)?.[1],
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
  async function meet(url, room, { rtc, browsers = [firefox, chromium], expected, each = [{}, {}] } = {}) {
    const tabs = [];
    for (const [number, browser] of browsers.entries()) {
      const page = await open(browser, plain.url, expected);
      const username = ['alice', 'bob'][number];
      const id = await page.evaluate(enter, { url, username, password: PASSWORDS[username], room, rtc, ...each[number] });
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
    const inOrder = () => names.map((name) => (name === 'Firefox' ? firefox : chromium));

    test(`${names[0]} was there first and listens: what it begins during the call reaches ${names[1]}`, async () => {
      const server = await startServer();
      const listening = async (room) => {
        const tabs = await meet(server.url, room, { browsers: inOrder(), each: [{ listens: true }, {}] });
        await seeEachOther([tabs[0]]);
        return tabs;
      };

      let tabs = await listening('publishes');
      await tabs[0].page.evaluate(async () => window.call.session.publish(await window.call.open()));
      await seeEachOther(tabs);
      await assertUnharmed(tabs);

      tabs = await listening('opens a channel');
      await tabs[0].page.evaluate(() => {
        const channel = [...window.call.session.peers.values()][0].createDataChannel('late');
        channel.onopen = () => channel.send('hello');
      });
      await reaches(tabs[1], 'hears the other', ({ messages }) => messages.includes('late: hello'));
      await assertUnharmed(tabs);

      tabs = await listening('restarts ICE');
      // Several times: in some restarts Firefox and Chromium find no new path (docs/build/clients.md), and the client restarts again.
      for (let round = 0; round < 6; round += 1) {
        const before = [];
        for (const { page } of tabs) before.push((await page.evaluate(status)).ufrag);
        await tabs[round % 2].page.evaluate(() => [...window.call.session.peers.values()][0].restartIce());
        for (const [number, tab] of tabs.entries()) await reaches(tab, 'restarts', ({ ufrag }) => ufrag !== before[number]);
        await seeEachOther([tabs[0]]);
      }
      await assertUnharmed(tabs);
    });

    test(`${names[1]} joins ${names[0]} with an offer that is late: both offer, and no track is muted`, async () => {
      const server = await startServer();
      // On a busy machine the late offer may find the other one there already: then no offers have crossed.
      let collisions = 0;
      for (let attempt = 1; attempt <= 5 && !collisions; attempt += 1) {
        const tabs = await meet(server.url, `late${attempt}`, { browsers: inOrder(), each: [{}, { slowness: 1_500 }] });

        await seeEachOther(tabs);

        for (const tab of tabs) await reaches(tab, 'has no muted track', ({ muted }) => !muted);
        await assertUnharmed(tabs);
        ({ collisions } = await tabs[0].page.evaluate(status));
        for (const page of pages.splice(0)) await page.close();
      }
      assert.equal(collisions, 1);
    });
  }

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

  test('a relayed call outlives two lives of its TURN credentials, whoever was there first', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, TURNSERVER_TTL: '10' });
    // The ICE user name changes when the call moves to a relay address of the new credentials.
    const names = () => {
      const { connection } = [...window.call.session.peers.values()][0];
      return [connection.getConfiguration().iceServers[0].username, /a=ice-ufrag:(.*)/.exec(connection.localDescription.sdp)[1]];
    };
    await Promise.all([[firefox, chromium], [chromium, firefox]].map(async (browsers, order) => {
      const tabs = await meet(server.url, `relayed${order}`, { browsers, rtc: { iceTransportPolicy: 'relay' } });
      await seeEachOther(tabs);
      await assertGoingBy(tabs, 'relay');

      const used = tabs.map(() => [new Set(), new Set()]);
      await eventually(() => `the call of ${tabs[0].name} moves twice: ${JSON.stringify(used.map((sets) => sets.map((set) => [...set])))}`, async () => {
        for (const [number, { page }] of tabs.entries()) (await page.evaluate(names)).forEach((name, which) => used[number][which].add(name));
        return used.flat().every(({ size }) => size >= 3);
      });

      await seeEachOther(tabs);
      await assertGoingBy(tabs, 'relay');
      await assertUnharmed(tabs);
    }));
  });

  test('a relayed call and its data channels outlive a restart of the TURN server, over UDP and over TCP', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const calls = await Promise.all(Object.entries({ udp: [firefox, chromium], tcp: [chromium, chromium] }).map(async ([transport, browsers]) => {
      const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}?transport=${transport}"]` });
      const tabs = await meet(server.url, transport, { browsers, rtc: { iceTransportPolicy: 'relay' } });
      await seeEachOther(tabs);
      await assertGoingBy(tabs, 'relay');
      for (const { page } of tabs) {
        await page.evaluate(() => {
          window.channel = [...window.call.session.peers.values()][0].createDataChannel('words');
          window.channel.onopen = () => window.channel.send('before');
        });
      }
      for (const tab of tabs) await reaches(tab, 'hears the other', ({ messages }) => messages.includes('words: before'));
      return tabs;
    }));

    await coturn.end();
    await coturn.start();

    for (const tabs of calls) {
      await seeEachOther(tabs);
      for (const { page } of tabs) await page.evaluate(() => window.channel.send('after'));
      for (const tab of tabs) await reaches(tab, 'hears the other again', ({ messages }) => messages.includes('words: after'));
      await assertUnharmed(tabs);
    }
  });

  test('a TURN server that is gone for long costs neither the calls of before nor those that begin meanwhile', async () => {
    const coturn = await startCoturn({ secret: SECRET });
    const server = await startServer({ TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]` });
    const rtc = { iceTransportPolicy: 'relay' };
    const before = await meet(server.url, 'before', { rtc });
    await seeEachOther(before);
    // With a channel in use Firefox gives the connection up, and sends nothing more over it, whatever it says later.
    await before[0].page.evaluate(() => {
      const [peer] = window.call.session.peers.values();
      window.first = peer.connection;
      const channel = peer.createDataChannel('beats');
      setInterval(() => channel.readyState === 'open' && channel.send('beat'), 200);
    });
    await reaches(before[1], 'hears', ({ messages }) => messages.includes('beats: beat'));

    await coturn.end();
    const meanwhile = await meet(server.url, 'meanwhile', { rtc });
    const tried = new Set();
    await eventually(() => `the second call tries anew: ${[...tried]}`, async () => tried.add((await meanwhile[0].page.evaluate(status)).ufrag).size > 3);
    await eventually(() => 'Firefox gives the connection up', () => before[0].page.evaluate(() => /failed|closed/.test(window.first.connectionState)));
    await coturn.start();

    for (const tabs of [before, meanwhile]) {
      await seeEachOther(tabs);
      await assertGoingBy(tabs, 'relay');
      await assertUnharmed(tabs);
    }
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
        how: document.querySelector('#users li:not([data-client-id=me]) .how')?.textContent, chat: document.querySelector('#messages').textContent,
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
