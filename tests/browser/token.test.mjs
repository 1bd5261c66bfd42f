// Tokens that end in the middle of a call, with a server that ends a session with its token.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { cleanUp, eventually, intervals, startServer, SUITE_TIMEOUT } from './harness.mjs';

const KEY = 'j'.repeat(40);
/** How long the server lets a session continue past the end of its token: a minute, and less here. */
const GRACE = 5;
/** How long the first token is valid, in seconds: longer than a call takes to begin. */
const LIFETIME = 12;

/** A token as the server mints it, but for so many seconds. */
function mint(username, seconds) {
  const part = (json) => Buffer.from(JSON.stringify(json)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: username, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac('sha256', KEY).update(signed).digest('base64url')}`;
}

/** In the page: a call of a camera, with tokens from `window.mint`. */
async function enter({ url, room }) {
  const { connect } = await import(`${url}/client/signaling.js`);
  const call = { states: [], left: [], connections: new Set(), frames: 0, asked: [], refreshed: 0 };
  window.call = call;
  const getToken = async (renew) => {
    const token = await window.mint(call.asked.push(renew));
    if (!token) throw new Error('there is no token now');
    return token;
  };
  class Counted extends WebSocket {
    constructor(address) {
      super(address);
      this.addEventListener('message', ({ data }) => { if (JSON.parse(data).type === 'token_refreshed') call.refreshed += 1; });
    }
  }
  const session = await connect({ url, room, getToken, WebSocket: Counted });
  call.session = session;
  session.on('state', ({ state }) => call.states.push(state));
  session.on('peer-left', ({ peer }) => call.left.push(peer.id));
  session.on('track', ({ peer, streams }) => {
    const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true, srcObject: streams[0] });
    document.body.append(video);
    call.connections.add(peer.connection);
    call.video = video;
  });
  session.publish(await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } }));
}

const status = () => {
  const { session, states, left, connections, asked, refreshed, video } = window.call;
  const frames = video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
  return { state: session.state, states, left, connections: connections.size, asked, refreshed, frames };
};

describe('a token that ends in the middle of a call', { timeout: SUITE_TIMEOUT, concurrency: true }, () => {
  let browser;
  let server;

  before(async () => {
    [browser, server] = await Promise.all([
      openBrowser(), startServer({ DEBUG: 'true', JWT_SECRET_KEY: KEY, WEBSOCKET_ENFORCE_TOKEN_EXPIRY: 'true', ...intervals({ token_refresh_grace: GRACE * 1000 }) }),
    ]);
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });

  /** Two in a room; `tokens` gives the n-th token of each. */
  async function call(room, tokens) {
    return Promise.all(['user1', 'user2'].map(async (username) => {
      const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
      await page.exposeFunction('mint', (asked) => tokens(username, asked));
      await page.evaluate(enter, { url: server.url, room });
      return page;
    }));
  }

  async function each(pages, what, condition) {
    for (const page of pages) {
      let last;
      await eventually(() => `${what}: ${JSON.stringify(last)}`, async () => condition(last = await page.evaluate(status)));
    }
  }

  test('is refreshed again and again, and nobody notices', async () => {
    const pages = await call('refreshed', (username) => mint(username, 6));
    await each(pages, 'video flows', ({ frames }) => frames > 0);

    await each(pages, 'three tokens later', ({ refreshed }) => refreshed >= 3);

    for (const page of pages) {
      const { state, states, left, connections } = await page.evaluate(status);
      assert.deepEqual([state, states, left, connections], ['connected', [], [], 1]);
    }
    for (const page of pages) await page.context().close();
  });

  test('is replaced after the server has ended the session with it, and the call is made anew', async () => {
    let hasEnded = false;
    const pages = await call('expired', (username, asked) => {
      if (asked === 1) return mint(username, LIFETIME);
      return hasEnded ? mint(username, 3600) : null;
    });
    await each(pages, 'video flows', ({ frames }) => frames > 0);

    await each(pages, 'the server has ended the session', ({ states }) => states.includes('reconnecting'));
    hasEnded = true;
    await each(pages, 'the client is back', ({ states }) => states.at(-1) === 'connected');

    for (const page of pages) {
      const { states, asked, frames } = await page.evaluate(status);
      assert.ok(states.includes('reconnecting') && !states.includes('closed'), `${states}`);
      assert.equal(asked.at(-1), true);
      await each([page], 'video flows again', (now) => now.frames > 0 && now.frames !== frames);
    }
    for (const page of pages) await page.context().close();
  });
});
