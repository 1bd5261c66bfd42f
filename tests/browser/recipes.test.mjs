// The recipes of clients/js/README.md, as they stand there, each between two pages.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { build } from '../../clients/js/node_modules/esbuild/lib/main.js';
import { openBrowser } from './browser.mjs';
import { cleanUp, eventually, PASSWORDS, ROOT, startServer, SUITE_TIMEOUT } from './harness.mjs';

const README = readFileSync(join(ROOT, 'clients/js/README.md'), 'utf8');
const RECIPES = new Map([...README.matchAll(/^### (.+)\n(?:(?!^#)[^])*?^```js\n([^]*?)^```$/gm)].map(([, title, code]) => [title, code]));

/** In the page: enters the room with a camera, and runs a recipe with what it takes for granted. */
async function enter({ url, username, password, room, code }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const camera = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  const session = await connect({ url, room, getToken: signIn({ url, username, password }) });
  const page = window.page = {
    session, camera,
    shown: {}, muted: {}, texts: [], errors: [],
    shareButton: document.createElement('button'), muteButton: document.createElement('button'), cameraList: document.createElement('select'),
    show(peer, label, stream) { page.shown[label] = stream.id; page.stream = stream; },
    hide(peer, label) { delete page.shown[label]; },
    showMuted(peer, isMuted) { page.muted[session.peers.get(peer).username] = isMuted; },
    use(channel) {
      channel.onopen = () => channel.send(`from ${username}`);
      channel.onmessage = ({ data }) => page.texts.push(data);
    },
  };
  session.on('error', ({ error }) => page.errors.push(error.message));
  const names = ['session', 'camera', 'shareButton', 'muteButton', 'cameraList', 'show', 'hide', 'showMuted', 'use'];
  new Function(...names, code)(...names.map((name) => page[name]));
}

describe('the recipes of the JavaScript client', { timeout: SUITE_TIMEOUT }, () => {
  let browser;
  let server;

  before(async () => { [browser, server] = await Promise.all([openBrowser(), startServer()]); });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  /** Alice, then Bob, in a room, both with the recipe. */
  async function pair(title) {
    const code = RECIPES.get(title);
    assert.ok(code, `no recipe "${title}" among ${[...RECIPES.keys()]}`);
    const pages = [];
    for (const [username, password] of Object.entries(PASSWORDS)) {
      const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
      await page.evaluate(enter, { url: server.url, username, password, room: title, code });
      pages.push(page);
    }
    return pages;
  }

  async function reaches(page, what, read, expected) {
    let last;
    await eventually(() => `${what}: ${JSON.stringify(last)}`, async () => JSON.stringify(last = await page.evaluate(read)) === JSON.stringify(expected));
  }

  async function end(pages) {
    for (const page of pages) {
      assert.deepEqual(await page.evaluate(() => window.page.errors), []);
      await page.context().close();
    }
  }

  test('data channel: one between each two members', async () => {
    const [alice, bob] = await pair('Data channel');
    await reaches(alice, 'alice hears bob', () => window.page.texts, ['from bob']);
    await reaches(bob, 'bob hears alice', () => window.page.texts, ['from alice']);
    await end([alice, bob]);
  });

  test('screen share beside a camera: both are seen, and the screen goes', async () => {
    const [alice, bob] = await pair('Screen share beside a camera');
    await reaches(bob, 'bob sees the camera', () => Object.keys(window.page.shown), ['camera']);
    await alice.evaluate(() => window.page.shareButton.click());
    await reaches(bob, 'bob sees both', () => Object.keys(window.page.shown), ['camera', 'screen']);
    // As the browser's own button does it.
    await alice.evaluate(() => [...window.page.session.streams.keys()].at(-1).getVideoTracks()[0].dispatchEvent(new Event('ended')));
    await reaches(bob, 'bob sees the camera alone', () => Object.keys(window.page.shown), ['camera']);
    await end([alice, bob]);
  });

  test('mute: the others are told, also those that come later', async () => {
    const [alice, bob] = await pair('Mute');
    await reaches(bob, 'bob hears alice', () => window.page.muted, { alice: false });
    await alice.evaluate(() => window.page.muteButton.click());
    await reaches(bob, 'bob sees that alice is muted', () => window.page.muted, { alice: true });
    assert.deepEqual(await alice.evaluate(() => window.page.camera.getAudioTracks().map(({ enabled }) => enabled)), [false]);
    await end([bob]);
    const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
    await page.evaluate(enter, { url: server.url, username: 'bob', password: PASSWORDS.bob, room: 'Mute', code: RECIPES.get('Mute') });
    await reaches(page, 'who comes later sees it, too', () => window.page.muted, { alice: true });
    await end([alice, page]);
  });

  test('device change: another camera is seen, in the same track', async () => {
    const [alice, bob] = await pair('Device change');
    await bob.evaluate(() => window.page.session.on('track', ({ track, streams: [stream] }) => {
      window.page.tracks = (window.page.tracks ?? 0) + 1;
      if (track.kind !== 'video') return;
      window.page.video = Object.assign(document.createElement('video'), { srcObject: stream, muted: true, autoplay: true });
      document.body.append(window.page.video);
    }));
    await alice.evaluate(() => window.page.session.publish(window.page.camera));
    const moves = async () => {
      const at = await bob.evaluate(() => window.page.video?.currentTime ?? 0);
      await eventually(() => `the picture moves on from ${at}`, () => bob.evaluate((before) => window.page.video?.currentTime > before + 0.2, at));
    };
    await moves();
    const [before, now] = await alice.evaluate(async () => {
      const { cameraList, camera } = window.page;
      const id = () => camera.getVideoTracks()[0].getSettings().deviceId;
      const first = id();
      for (const { kind, deviceId } of await navigator.mediaDevices.enumerateDevices()) if (kind === 'videoinput') cameraList.append(new Option(deviceId, deviceId));
      cameraList.value = [...cameraList.options].map(({ value }) => value).find((value) => value !== first);
      await cameraList.onchange();
      return [first, id()];
    });
    assert.notEqual(now, before);
    await moves();
    assert.equal(await bob.evaluate(() => window.page.tracks), 2);
    await end([alice, bob]);
  });

  test('React hook: a component shows who is there and what they publish, and leaves', async () => {
    const { outputFiles: [{ text }] } = await build({
      stdin: {
        contents: `${RECIPES.get('React hook')}
          import { createElement } from 'react';
          import { createRoot } from 'react-dom/client';
          import { signIn } from 'signaling-client';
          export function start({ url, username, password, room }) {
            const getToken = signIn({ url, username, password });
            const Room = () => {
              const { state, peers, error } = useRoom({ url, room, getToken });
              return createElement('p', {}, error ? String(error) : state + ': ' + peers.map(({ peer, tracks }) => [peer.username, ...tracks.map(({ label, track }) => label + ' ' + track.kind).sort()].join(' ')).join(', '));
            };
            const root = createRoot(document.body.appendChild(document.createElement('div')));
            root.render(createElement(Room));
            return root;
          }`,
        resolveDir: join(ROOT, 'tests/browser'),
      },
      alias: { 'signaling-client': join(ROOT, 'clients/js/dist/signaling.js') },
      define: { 'process.env.NODE_ENV': '"development"' },
      bundle: true, write: false, format: 'iife', globalName: 'recipe', target: 'es2022',
    });
    const [alice] = await pair('Mute'); // a member with the library alone
    const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
    await page.addScriptTag({ content: text });
    await page.evaluate((options) => { window.root = window.recipe.start(options); }, { url: server.url, username: 'bob', password: PASSWORDS.bob, room: 'Mute' });
    const reads = (expected) => page.locator('p', { hasText: expected }).waitFor();
    await reads(/^connected: alice$|^connected: .*alice/);
    await alice.evaluate(() => window.page.session.publish(window.page.camera, 'camera'));
    await reads(/alice camera audio camera video/);
    await alice.evaluate(() => window.page.session.unpublish(window.page.camera));
    await eventually(() => 'the tracks are gone', async () => !(await page.locator('p').innerText()).includes('camera'));
    const names = () => alice.evaluate(() => [...window.page.session.peers.values()].length);
    const before = await names();
    await page.evaluate(() => window.root.unmount());
    await eventually(() => 'the component has left', async () => (await names()) === before - 1);
    await page.context().close();
    await alice.context().close();
  });
});
