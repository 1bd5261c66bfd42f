// WebKitGTK's own small browser, by WebDriver, on a display that nobody sees.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, eventually, freePort, launch, ready } from '../../../browser/harness.mjs';

const LIBRARIES = '/usr/lib/x86_64-linux-gnu';

/** Opens `url`; what it returns is a page. */
export async function openWebKit(url) {
  const port = await freePort();
  const screen = launch('Xvfb', ['-displayfd', '1', '-nolisten', 'tcp']);
  const [display] = await eventually(() => `Xvfb has a display; it said ${screen.output}`, () => /^\d+$/m.exec(screen.output));
  const driver = launch('WebKitWebDriver', [`--port=${port}`, '--host=127.0.0.1'], { env: { ...process.env, DISPLAY: `:${display}` } });
  await ready(driver, 'WebKitWebDriver', () => accepts(port));
  const ask = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`WebKitWebDriver: ${value.error}: ${value.message}`);
    return value;
  };
  const version = readdirSync(LIBRARIES).filter((name) => name.startsWith('webkit2gtk-4')).sort().at(-1);
  const options = { binary: join(LIBRARIES, version, 'MiniBrowser'), args: ['--automation'] };
  const { sessionId } = await ask('POST', '/session', { capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': options } } });
  await ask('POST', `/session/${sessionId}/url`, { url });
  return {
    evaluate: (what, argument = null) => ask('POST', `/session/${sessionId}/execute/sync`, { script: `return (${what})(arguments[0])`, args: [argument] }),
    end: async () => { await ask('DELETE', `/session/${sessionId}`); await driver.end(); await screen.end(); },
  };
}
