// Takes part as a page in a browser, which the first argument names: chromium, firefox or webkit.

import { openBrowser } from '../../../browser/browser.mjs';
import { openFirefox } from '../../../browser/firefox.mjs';
import { cleanUp } from '../../../browser/harness.mjs';
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

/** In the page: opens the socket, and keeps what there is to print; `nextLines` gives it as soon as there is any. */
function open({ url, token }) {
  const lines = [];
  let tell = () => {};
  const print = (line) => { lines.push(line); tell(); };
  window.nextLines = async () => {
    // A driver does not wait for ever.
    if (lines.length === 0) await new Promise((done) => { tell = done; setTimeout(done, 5_000); });
    return lines.splice(0);
  };
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => {
    print(data);
    const { type, from } = JSON.parse(data);
    if (type === 'auth_required') socket.send(JSON.stringify({ type: 'auth_token', token }));
    if (type === 'offer') socket.send(JSON.stringify({ type: 'answer', answer: {}, to: from }));
  };
  socket.onclose = ({ code, reason }) => print(`closed ${code} ${reason}`);
}

const page = await BROWSERS[process.argv[2]]();
await page.evaluate(open, { url: process.env.ROOM_URL, token: process.env.TOKEN });
for (let isOpen = true; isOpen;) {
  for (const line of await page.evaluate(() => window.nextLines())) {
    console.log(line);
    if (line.startsWith('closed')) isOpen = false;
  }
}
await page.end();
await cleanUp();
