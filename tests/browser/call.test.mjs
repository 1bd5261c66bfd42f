// A video call between two real browsers: pages of a product, our server behind nginx, coturn between.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { callStatus, startCall } from './call_page.mjs';
import { cleanUp, PASSWORDS, startCoturn, startNginx, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';

describe('two browsers in a call', { timeout: SUITE_TIMEOUT }, () => {
  let coturn;
  let browser;

  before(async () => {
    [coturn, browser] = await Promise.all([startCoturn({ secret: SECRET }), openBrowser()]);
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  /** A server that hands out these TURN URLs, behind nginx. */
  async function serve(turnUrls) {
    const server = await startServer({
      REQUIRE_HTTPS: 'true', TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: JSON.stringify(turnUrls),
    });
    return startNginx(server);
  }

  /** Alice waits in the room; Bob comes and calls her. */
  async function meet(base, room, relayOnly) {
    const enter = async (username) => {
      const page = await browser.page(`${base}/health`, { bypassCSP: true });
      await page.evaluate(startCall, { username, password: PASSWORDS[username], room, clientId: `${username}-1`, relayOnly });
      return page;
    };
    const alice = await enter('alice');
    await reaches(alice, 'is in the room', ({ entered }) => entered);
    const bob = await enter('bob');
    return { alice, bob };
  }

  async function reaches(page, what, condition) {
    let status;
    return eventually(() => `the page ${what}: ${JSON.stringify(status)}`, async () => {
      status = await page.evaluate(callStatus);
      if (status.failure) throw new Error(status.failure);
      return condition(status) && status;
    });
  }

  /** Video decodes at both ends and goes on doing so, and what Bob says comes back. */
  async function assertTheyHearAndSeeEachOther({ alice, bob }) {
    await reaches(bob, 'has an open channel', ({ channel }) => channel === 'open');
    await bob.evaluate(() => window.call.channel.send('are you there?'));
    await reaches(bob, 'hears its echo', ({ echoes }) => echoes.includes('are you there?'));
    for (const page of [alice, bob]) {
      const { frames } = await reaches(page, 'sees a first frame', (status) => status.frames > 0);
      await reaches(page, 'sees more frames', (status) => status.frames > frames + 5);
    }
  }

  test('see each other directly, and hear when a tab is closed', async () => {
    const nginx = await serve([`turn:127.0.0.1:${coturn.port}`]);
    const call = await meet(nginx.url, 'direct', false);

    await assertTheyHearAndSeeEachOther(call);
    for (const page of [call.alice, call.bob]) {
      const { local, remote } = await reaches(page, 'is connected', ({ state }) => state === 'connected');
      for (const kind of [local, remote]) assert.ok(['host', 'prflx'].includes(kind), `${local} to ${remote}`);
    }

    await call.bob.close();
    const { heard } = await reaches(call.alice, 'hears that Bob left', (status) => status.heard.some(({ type }) => type === 'user_left'));
    const left = heard.filter(({ type }) => type === 'user_left');
    assert.deepEqual(left, [{ type: 'user_left', room_id: 'direct', client_id: 'bob-1', username: 'bob', connected_users: 1 }]);
    const others = heard.filter(({ from }) => from && from !== 'bob-1');
    assert.deepEqual(others, [], 'only Bob spoke to her');
  });

  const relays = {
    'turn: over UDP': [() => `turn:127.0.0.1:${coturn.port}`, 'udp'],
    'turn: over TCP': [() => `turn:127.0.0.1:${coturn.port}?transport=tcp`, 'tcp'],
    'turns: over TLS': [() => `turns:localhost:${coturn.tlsPort}?transport=tcp`, 'tls'],
  };
  for (const [name, [url, relayProtocol]] of Object.entries(relays)) {
    test(`see each other through coturn with the server's iceServers, ${name}`, async () => {
      const nginx = await serve([url()]);
      const call = await meet(nginx.url, 'relayed', true);

      await assertTheyHearAndSeeEachOther(call);

      for (const page of [call.alice, call.bob]) {
        const before = await reaches(page, 'is connected', ({ state }) => state === 'connected');
        assert.deepEqual([before.local, before.relayProtocol], ['relay', relayProtocol]);
        await reaches(page, 'sends and receives through the relay', ({ bytes }) => bytes > before.bytes + 1_000);
        await page.context().close();
      }
    });
  }
});
