// A real Firefox, by WebDriver BiDi, which it speaks itself, that tells on its pages: what they print as errors, throw, or
// fetch from elsewhere.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import WebSocket from 'ws';
import { eventually, folder } from './harness.mjs';

const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

/** What it takes beside `remote.prefs.recommended`, Firefox's own list for tests. */
const PREFERENCES = {
  'remote.prefs.recommended': true,
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.peerconnection.ice.loopback': true, // where lo is the only interface there is no candidate without it
  'media.peerconnection.ice.obfuscate_host_addresses': false, // nobody answers for .local names here
  'media.gmp-manager.updateEnabled': false, // fetches a codec
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'browser.newtabpage.enabled': false,
  'network.trr.mode': 5, // no DNS over HTTPS
};

/** An empty page to import the library into, and the proxy where requests to other machines end. */
export async function startPlainPages() {
  const server = http.createServer((request, response) => {
    if (request.url === '/') response.setHeader('content-type', 'text/html').end('<!doctype html><title>empty</title><link rel="icon" href="data:,">');
    else response.writeHead(404).end();
  }).on('connect', (request, socket) => socket.destroy());
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { port: server.address().port, url: `http://127.0.0.1:${server.address().port}/`, end: () => { server.closeAllConnections(); server.close(); } };
}

export async function openFirefox(proxyPort, more = {}) {
  if (!existsSync(FIREFOX)) throw new Error(`${FIREFOX} is missing: apt-get install firefox-esr, or set FIREFOX`);
  const home = folder();
  const preferences = {
    ...PREFERENCES, ...more,
    'network.proxy.type': 1, 'network.proxy.http': '127.0.0.1', 'network.proxy.http_port': proxyPort,
    'network.proxy.ssl': '127.0.0.1', 'network.proxy.ssl_port': proxyPort,
  };
  writeFileSync(join(home, 'user.js'), Object.entries(preferences)
    .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
  const child = spawn(FIREFOX, ['--headless', '--no-remote', '--profile', home, '--remote-debugging-port', '0', 'about:blank'], {
    // The release build heeds `services.settings.server` only with the variable that developers set.
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home, MOZ_CRASHREPORTER_DISABLE: '1', MOZ_REMOTE_SETTINGS_DEVTOOLS: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  process.prependListener('exit', () => child.kill('SIGKILL')); // before the harness removes the profile
  let output = '';
  let isGone = false;
  // Its own children hold the pipes too: once they are closed, nobody writes to the profile any more.
  const gone = new Promise((done) => child.once('close', done).once('error', (error) => { output += error; done(); })).then(() => { isGone = true; });
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
  const end = async () => {
    child.kill('SIGTERM');
    const stubborn = setTimeout(() => child.kill('SIGKILL'), 5_000);
    await gone;
    clearTimeout(stubborn);
  };

  try {
    const [, address] = await eventually(() => `Firefox listens; it said: ${output}`, () => {
      if (isGone) throw new Error(`Firefox ended at once; it said: ${output}`);
      return /WebDriver BiDi listening on (\S+)/.exec(output);
    });
    return { ...await speakTo(`${address}/session`), end };
  } catch (error) {
    await end();
    throw error;
  }
}

async function speakTo(address) {
  const socket = new WebSocket(address);
  await new Promise((done, fail) => socket.once('open', done).once('error', fail));
  const asked = new Map();
  let lastId = 0;
  const ask = (method, params) => new Promise((done, fail) => {
    asked.set(lastId += 1, { done, fail });
    socket.send(JSON.stringify({ id: lastId, method, params }));
  });
  const complaints = [];
  const expectations = new Map();
  const complain = (context, text) => {
    if (!expectations.get(context)?.some((pattern) => pattern.test(text))) complaints.push(text);
  };
  const take = {
    'log.entryAdded': ({ level, type, text, source, stackTrace }) => {
      const places = stackTrace?.callFrames.map(({ functionName, url, lineNumber, columnNumber }) => `\n  ${functionName} ${url}:${lineNumber + 1}:${columnNumber + 1}`);
      if (level === 'error') complain(source.context, `${type}: ${text}${places?.join('') ?? ''}`);
    },
    'network.beforeRequestSent': ({ context, request }) => {
      const { protocol, hostname } = new URL(request.url);
      if (/^(http|ws)/.test(protocol) && hostname !== '127.0.0.1') complain(context, `request to ${request.url}`);
    },
    'browsingContext.userPromptOpened': ({ context, message }) => complain(context, `dialog: ${message}`),
  };
  socket.on('message', (text) => {
    const { id, type, method, params, result, error, message } = JSON.parse(text);
    if (type === 'event') return take[method]?.(params);
    const { done, fail } = asked.get(id);
    asked.delete(id);
    if (type === 'success') done(result);
    else fail(new Error(`Firefox: ${error}: ${message}`));
  });
  socket.on('close', () => { for (const { fail } of asked.values()) fail(new Error('Firefox is gone')); });
  await ask('session.new', { capabilities: {} });
  await ask('session.subscribe', { events: Object.keys(take) });

  return {
    /** A tab. `expected` are errors that belong to the story. */
    async page(url, { expected = [] } = {}) {
      const { context } = await ask('browsingContext.create', { type: 'tab' });
      expectations.set(context, expected);
      await ask('browsingContext.navigate', { context, url, wait: 'complete' });
      return {
        /** As Playwright's: runs `what` in the page, and brings back what it returns. */
        async evaluate(what, argument = null) {
          const { type, result, exceptionDetails } = await ask('script.callFunction', {
            functionDeclaration: `async (argument) => JSON.stringify(await (${what})(...JSON.parse(argument)))`,
            arguments: [{ type: 'string', value: JSON.stringify([argument]) }],
            target: { context }, awaitPromise: true, userActivation: true,
          });
          if (type === 'exception') throw new Error(`in Firefox: ${exceptionDetails.text}`);
          return result.value === undefined ? undefined : JSON.parse(result.value);
        },
        close: () => ask('browsingContext.close', { context }),
      };
    },
    assertQuiet() { assert.deepEqual(complaints.splice(0), []); },
  };
}
