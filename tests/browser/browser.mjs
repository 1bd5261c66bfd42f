// A real Chromium that tells on its pages: what they print as errors, throw, or fetch from elsewhere.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { certificate, ROOT, TEST_TIMEOUT } from './harness.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server',
  '--use-fake-device-for-media-stream=device-count=2', '--use-fake-ui-for-media-stream',
  '--allow-loopback-in-peer-connection', // where lo is the only interface there is no candidate without it
];

/** Where pages may go: this machine, by whatever name. */
const HERE = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * `trusted` are hashes of further keys that certificates may have, `hosts` the addresses of further names of this machine;
 * `options` are Playwright's.
 */
export async function openBrowser({ trusted = [], hosts = {}, ...options } = {}) {
  for (const host of Object.keys(hosts)) HERE.add(host);
  // Chromium puts a period behind the host of a TURN URL before it asks for its address.
  const rules = Object.entries(hosts).flatMap(([host, address]) => [`MAP ${host} ${address}`, `MAP ${host}. ${address}`]).join(',');
  if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing: apt-get install chromium, or set CHROMIUM`);
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    ...options,
    // `ignoreHTTPSErrors` does not reach turns:, so the certificate is trusted by its key.
    args: [...FLAGS, `--ignore-certificate-errors-spki-list=${[certificate().spkiHash, ...trusted].join(',')}`, ...(rules ? [`--host-resolver-rules=${rules}`] : [])],
  });
  return {
    /**
     * A page in a context of its own, as another person's browser. `bypassCSP` is for tests that only
     * borrow the URL of a page; `expected` are console errors that belong to the story.
     */
    async page(url, { bypassCSP = false, expected = [] } = {}) {
      const context = await browser.newContext({ ignoreHTTPSErrors: true, bypassCSP });
      await context.grantPermissions(['camera', 'microphone']).catch(() => {});
      context.setDefaultTimeout(TEST_TIMEOUT);
      context.on('page', (opened) => watch(opened, expected));
      const page = await context.newPage();
      // Playwright tells of a WebSocket only once it is answered; the wish itself counts here.
      const devtools = await context.newCDPSession(page);
      devtools.on('Network.webSocketCreated', ({ url: wanted }) => visited(page, wanted, expected));
      await devtools.send('Network.enable');
      if (url) await page.goto(url);
      return page;
    },
    /** Asserts that no page that was opened here has done what it should not. */
    assertQuiet() {
      const all = complaints.splice(0);
      assert.deepEqual(all, []);
    },
    close: () => browser.close(),
  };
}

/** The picture of a page in docs/images. It is taken in every run, and written only where WRITE_IMAGES is set. */
export async function takeImage(page, name, options) {
  const picture = await page.screenshot(options);
  if (process.env.WRITE_IMAGES) writeFileSync(join(ROOT, 'docs/images', name), picture);
}

const complaints = [];

function complain(page, text, expected) {
  if (!expected.some((pattern) => pattern.test(text))) complaints.push(`${page.url()}: ${text}`);
}

function visited(page, url, expected) {
  const { protocol, hostname } = new URL(url);
  const inside = ['data:', 'blob:', 'file:', 'about:'].includes(protocol);
  if (!inside && !HERE.has(hostname)) complain(page, `request to ${url}`, expected);
}

function watch(page, expected) {
  page.on('console', (message) => {
    // Chromium asks for an icon by itself, and may be told that there is none.
    const aboutIcon = message.location().url.endsWith('/favicon.ico');
    if (message.type() === 'error' && !aboutIcon) complain(page, `console: ${message.text()}`, expected);
  });
  page.on('pageerror', (error) => complain(page, `thrown: ${error.message}`, expected));
  page.on('dialog', (dialog) => {
    complain(page, `dialog: ${dialog.message()}`, expected);
    dialog.dismiss().catch(() => {}); // its page may be closing
  });
  page.on('request', (request) => visited(page, request.url(), expected));
  page.on('websocket', (socket) => visited(page, socket.url(), expected));
}
