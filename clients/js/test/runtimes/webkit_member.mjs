// The same as a page in WebKitGTK, which has no WebRTC: `webkit_member.mjs URL ROOM TOKEN` loads the client from the server. It needs
// the Debian packages webkit2gtk-driver and xvfb.

import { startPlainPages } from '../../../../tests/browser/firefox.mjs';
import { sleep } from '../../../../tests/browser/harness.mjs';
import { openWebKit } from '../../../../tests/field/clients/js/webkit.mjs';
import { takePart } from './take_part.mjs';

const [url, room, token] = process.argv.slice(2);
const enter = `(options) => {
  window.told = [];
  const tell = (what) => told.push(JSON.stringify(what));
  import(options.url + '/client/signaling.js')
    .then(({ connect }) => (${takePart})(connect, options, tell))
    .catch((error) => tell(['error', String(error)]));
}`;

const plain = await startPlainPages();
const page = await openWebKit(plain.url);
await page.evaluate(enter, { url, room, token });
let isOver = false;
process.once('SIGTERM', () => { isOver = true; });
while (!isOver) {
  for (const line of await page.evaluate(() => window.told.splice(0))) console.log(line);
  await sleep(100);
}
await page.end();
plain.end();
