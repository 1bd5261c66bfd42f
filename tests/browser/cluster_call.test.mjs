// A video call in Chromium, through the nginx and the three nodes of docs/run/three-nodes.md.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { cleanUp, eventually, SUITE_TIMEOUT } from './harness.mjs';
import { Reader } from './three_nodes.mjs';

/** In the page: enters a room with a camera, on the JavaScript client. */
async function enter({ url, username, password }) {
  window.made = 0;
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...settings) {
      super(...settings);
      window.made += 1;
    }
  };
  const { connect } = await import(`${url}/client/signaling.js`);
  const getToken = async () => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${url}/auth/login`, { method: 'POST', headers, body: JSON.stringify({ username, password }) });
    return (await answer.json()).access_token;
  };
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } });
  const session = await connect({ url, room: 'call', getToken, clientId: username });
  const call = { session, states: [], messages: [] };
  window.call = call;
  session.on('state', ({ state }) => call.states.push(state));
  session.on('message', ({ data }) => call.messages.push(data));
  session.on('track', ({ track, streams }) => {
    const video = document.createElement('video');
    Object.assign(video, { muted: true, autoplay: true, srcObject: streams[0] ?? new MediaStream([track]) });
    document.body.append(video);
    call.video = video;
  });
  session.publish(camera);
}

/** In the page: how it stands. */
function status() {
  const { session, states, messages, video } = window.call;
  const frames = video?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
  return { states, messages, frames, made: window.made };
}

describe('a call through three nodes', { timeout: SUITE_TIMEOUT }, () => {
  let reader;
  let browser;
  const pages = {};

  before(async () => {
    [reader, browser] = await Promise.all([Reader.begins(), openBrowser()]);
    for (const start of ['1.', '2.', '3.', '4.']) await reader.follows(start);
    await reader.follows('6.', 1);
    const url = `https://localhost:${reader.ports.nginx}`;
    for (const username of ['alice', 'bob']) {
      // A node that is gone shows in the console.
      pages[username] = await browser.page(`${url}/health`, { bypassCSP: true, expected: [/WebSocket connection|ERR_|Failed to load/] });
      await pages[username].evaluate(enter, { url, username, password: 'correct horse' });
    }
  });
  after(async () => {
    await browser?.close();
    await reader?.ends();
    await cleanUp();
  });

  async function reaches(username, what, condition) {
    let last;
    return eventually(() => `${username} ${what}: ${JSON.stringify(last)}`, async () => {
      last = await pages[username].evaluate(status);
      return condition(last) && last;
    });
  }

  /** Pictures flow, and what is said through the servers arrives. */
  async function theCallIsOn(word) {
    for (const [speaker, listener] of [['alice', 'bob'], ['bob', 'alice']]) {
      // Again and again: whoever is told to come back later does not hear what is said meanwhile.
      await eventually(() => `${listener} hears ${word}`, async () => {
        await pages[speaker].evaluate((data) => window.call.session.send(data), word);
        return (await pages[listener].evaluate(status)).messages.includes(word);
      });
    }
    for (const username of ['alice', 'bob']) {
      const { frames } = await reaches(username, 'sees', (now) => now.frames > 0);
      await reaches(username, 'goes on seeing', (now) => now.frames > frames + 5);
    }
  }

  test('is made', () => theCallIsOn('hello'));

  test('is on again when the node of its room was killed', async () => {
    await reader.follows('7.', 1);

    for (const username of ['alice', 'bob']) {
      await reaches(username, 'has lost its node', ({ states }) => states.includes('reconnecting'));
    }
    await theCallIsOn('still there');
    browser.assertQuiet();
  });

  test('goes on, on the same connections, while all nodes are restarted, one by one', async () => {
    const made = async () => Promise.all(['alice', 'bob'].map(async (username) => (await pages[username].evaluate(status)).made));
    await reader.type('start $room');
    await theCallIsOn('before');
    const before = await made();
    await reader.follows('8.', 1);

    await theCallIsOn('and now');
    assert.deepEqual(await made(), before);
    browser.assertQuiet();
  });
});
