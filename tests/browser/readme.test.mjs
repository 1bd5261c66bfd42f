// The browser snippet of the README, as it stands there, makes a call.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { ROOT, cleanUp, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const SNIPPET = readFileSync(join(ROOT, 'README.md'), 'utf8').match(/```js\n([\s\S]*?)```/)[1];

/** What the snippet leaves to its reader: a place for the videos of others. */
const SHOW = `
  window.videos = new Map();
  const show = (id, stream) => {
    const video = videos.get(id) ?? document.body.appendChild(document.createElement('video'));
    videos.set(id, video);
    video.muted = true;
    video.srcObject = stream;
    video.play().catch(() => {});
  };`;

describe('the snippet of the README', { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let browser;

  before(async () => {
    server = await startServer({ DEBUG: 'true', USERS_CSV: 'demo.csv' });
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });

  test('makes a video call of three that shrinks when one leaves', async () => {
    const pages = [];
    for (let number = 0; number < 3; number += 1) {
      const page = await browser.page(`${server.url}/health`, { bypassCSP: true });
      await page.evaluate(`(async () => { ${SHOW}\n${SNIPPET}\n window.peers = peers; })()`);
      pages.push(page);
    }

    const playing = (page) => page.evaluate(() => [...videos.values()].filter((video) => video.videoWidth > 0 && video.currentTime > 0.2).length);
    for (const page of pages) await eventually(() => 'both others play', async () => (await playing(page)) === 2);
    await pages.pop().context().close();
    for (const page of pages) await eventually(() => 'one is gone', async () => (await page.evaluate(() => peers.size)) === 1);

    browser.assertQuiet();
    assert.equal(pages.length, 2);
  });
});
