// turn_credentials_example.html, the TURN doctor, in front of relays that are well and relays that are not.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { openBrowser } from './browser.mjs';
import { cleanUp, freePort, ROOT, startCoturn, startServer, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';
const PAGE = 'examples/turn_credentials_example.html';

describe('the TURN doctor', { timeout: SUITE_TIMEOUT }, () => {
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

  const serve = (...urls) => startServer({ DEBUG: 'true', TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: JSON.stringify(urls) });

  /** What it says of each server, and of a call through the relay. */
  async function diagnose(url) {
    const page = await browser.page(url);
    const state = (name) => page.locator(`#status[data-state="${name}"]`).waitFor();
    await page.locator('#login').click();
    await state('have-credentials');
    await page.locator('#test').click();
    await state('done');
    const verdicts = await page.locator('#results [data-url]').evaluateAll((rows) =>
      Object.fromEntries(rows.map(({ dataset }) => [dataset.url, dataset.verdict])));
    const calls = await page.locator('#call li').evaluateAll((rows) => rows.map(({ dataset }) => dataset.verdict));
    return { page, verdicts, calls };
  }

  test('tells a good relay from one with another secret and from a dead port', async () => {
    const other = await startCoturn({ secret: 'the-secret-of-another-server' });
    const urls = {
      good: `turn:127.0.0.1:${coturn.port}`,
      overTcp: `turn:127.0.0.1:${coturn.port}?transport=tcp`,
      other: `turn:127.0.0.1:${other.port}`,
      dead: `turn:127.0.0.1:${await freePort()}?transport=tcp`,
    };
    const server = await serve(...Object.values(urls));

    const { page, verdicts, calls } = await diagnose(`${server.url}/${PAGE}`);

    assert.equal(verdicts[urls.good], 'relay');
    assert.equal(verdicts[urls.overTcp], 'relay');
    assert.equal(verdicts[urls.other], 'refused');
    assert.match(verdicts[urls.dead], /^(unreachable|timeout)$/);
    assert.deepEqual(calls, ['relay']);
    assert.match(await page.locator('#call').innerText(), /Round trip through the TURN server\s+[\d.]+ ms\s+Throughput\s+[1-9]\d* kbit/);
    assert.match(await page.locator('#credentials').innerText(), /\d+:user1/);
    await page.context().close();
  });

  test('tells the address that this browser does not use from one that does not answer', async () => {
    const [low, blocked] = ['turn:127.0.0.1:444', 'turn:127.0.0.1:993?transport=tcp'];
    const server = await serve(low, blocked);

    const { page, verdicts } = await diagnose(`${server.url}/${PAGE}`);
    const text = (url) => page.locator(`#results [data-url="${url}"]`).innerText();

    assert.equal(verdicts[blocked], 'unused');
    assert.match(await text(blocked), /This browser did not use the address.*Firefox refuses port 993/s);
    // Over UDP it does not tell that it has ended.
    assert.match(verdicts[low], /^(unused|timeout)$/);
    assert.match(await text(low), /Chromium uses no TURN server on port 444/);
    await page.context().close();
  });

  test('finds the relay that gives addresses and passes nothing on', async () => {
    const strict = await startCoturn({ secret: SECRET, toLoopback: false });
    const server = await serve(`turn:127.0.0.1:${strict.port}`);

    const { page, verdicts, calls } = await diagnose(`${server.url}/${PAGE}`);

    assert.deepEqual(Object.values(verdicts), ['relay']);
    assert.deepEqual(calls, ['timeout']);
    assert.match(await page.locator('#call').innerText(), /denied-peer-ip/);
    await page.context().close();
  });

  test('works from disk', async () => {
    const url = `turn:127.0.0.1:${coturn.port}`;
    const server = await serve(url);

    const { page, verdicts, calls } = await diagnose(`${pathToFileURL(join(ROOT, PAGE))}?server=${encodeURIComponent(server.url)}`);

    assert.deepEqual(verdicts, { [url]: 'relay' });
    assert.deepEqual(calls, ['relay']);
    await page.context().close();
  });
});
