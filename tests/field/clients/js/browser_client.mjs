// Takes part as a page in a browser, which the first argument names: chromium, firefox or webkit.

import { openBrowser } from '../../../browser/browser.mjs';
import { openFirefox } from '../../../browser/firefox.mjs';
import { cleanUp, sleep } from '../../../browser/harness.mjs';
import { openWebKit } from './webkit.mjs';

const PAGE = process.env.PAGE_URL;
const BROWSERS = {
  async chromium() {
    const browser = await openBrowser();
    const page = await browser.page(PAGE, { expected: [/./] });
    return { evaluate: (what, argument) => page.evaluate(what, argument), end: () => browser.close() };
  },
  async firefox() {
    const browser = await openFirefox(1);
    const page = await browser.page(PAGE, { expected: [/./] });
    return { evaluate: (what, argument) => page.evaluate(what, argument), end: browser.end };
  },
  webkit: () => openWebKit(PAGE),
};

/** In the page: opens the socket, and keeps what there is to print. */
function open({ url, token }) {
  window.lines = [];
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => {
    lines.push(data);
    const { type, from } = JSON.parse(data);
    if (type === 'auth_required') socket.send(JSON.stringify({ type: 'auth_token', token }));
    if (type === 'offer') socket.send(JSON.stringify({ type: 'answer', answer: {}, to: from }));
  };
  socket.onclose = ({ code, reason }) => lines.push(`closed ${code} ${reason}`);
}

const page = await BROWSERS[process.argv[2]]();
await page.evaluate(open, { url: process.env.ROOM_URL, token: process.env.TOKEN });
for (let isOpen = true; isOpen; await sleep(100)) {
  for (const line of await page.evaluate(() => window.lines.splice(0))) {
    console.log(line);
    if (line.startsWith('closed')) isOpen = false;
  }
}
await page.end();
await cleanUp();
