// The interactive API pages in a real browser: they draw themselves from our own server alone.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { cleanUp, startServer, SUITE_TIMEOUT } from './harness.mjs';

describe('the API pages', { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let browser;

  before(async () => {
    server = await startServer({ API_DOCS: 'true' });
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  for (const path of ['/docs', '/redoc']) {
    test(`${path} shows every group of routes without a console error or another host`, async () => {
      const page = await browser.page(server.url + path);

      for (const text of ['/auth/login', '/auth/turn-credentials', '/api/rooms/{room_id}/info']) {
        await page.getByText(text, { exact: false }).first().waitFor();
      }

      await page.context().close();
    });
  }

  for (const path of ['/docs', '/redoc']) {
    test(`${path} follows the theme of the system, and shows no Markdown as it is written`, async () => {
      const page = await browser.page(server.url + path);
      await page.locator('.opblock-summary').first().waitFor();
      const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g).map(Number)[0]);

      for (const [colorScheme, isDark] of [['dark', true], ['light', false], ['dark', true]]) {
        await page.emulateMedia({ colorScheme });
        await page.locator(isDark ? 'html.dark-mode' : 'html:not(.dark-mode)').waitFor();
        if (isDark) assert.ok((await ground()) < 64, `${await ground()}`);
      }
      // On /redoc all routes are open.
      if (path === '/redoc') await page.locator('.opblock.is-open .responses-wrapper').last().waitFor();
      assert.doesNotMatch(await page.locator('#docs').innerText(), /`/);
      await page.context().close();
    });
  }

  test('/docs lets one try a route', async () => {
    const page = await browser.page(`${server.url}/docs`);

    await page.locator('#operations-General-health .opblock-summary-control').click();
    await page.getByRole('button', { name: 'Try it out' }).click();
    await page.getByRole('button', { name: 'Execute' }).click();

    await page.locator('.live-responses-table').getByText('"healthy"').first().waitFor();
    await page.context().close();
  });
});
