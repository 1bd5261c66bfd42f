// Clients whose tokens say `"ice": "relay"`, and a real coturn: the call works, and no peer learns their addresses.

import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { openFirefox, startPlainPages } from './firefox.mjs';
import { ask, cleanUp, eventually, launch, MANAGE_USERS, ROOT, startCoturn, startServer, SUITE_TIMEOUT } from './harness.mjs';

const SECRET = 'a-secret-that-server-and-coturn-share';
const ADMIN_TOKEN = 'an-administrator-of-this-test-0123456789';
/** What coturn relays from: no other address is in what a peer sends. */
const RELAY_IP = '127.0.0.77';
/** Addresses in place of those that are removed. */
const NONE = ['0.0.0.0', '::'];

/** Enters the room with a channel to each peer, and notes every frame that is received. */
async function enter({ url, room, token }) {
  const { connect } = await import(`${url}/client/signaling.js`);
  const call = { frames: [], echoes: [], errors: [] };
  window.call = call;
  class NotedSocket extends WebSocket {
    constructor(address) {
      super(address);
      this.addEventListener('message', ({ data }) => call.frames.push(data));
    }
  }
  const session = await connect({ url, room, token, WebSocket: NotedSocket });
  call.session = session;
  session.on('error', ({ error }) => call.errors.push(`${error.code} ${error.message}`));
  session.on('channel', ({ channel }) => { channel.onmessage = ({ data }) => channel.send(data); });
  session.on('peer-joined', ({ peer }) => {
    const channel = peer.createDataChannel('words');
    channel.onopen = () => channel.send(`from ${session.username}`);
    channel.onmessage = ({ data }) => call.echoes.push(data);
  });
  session.publish(await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } }));
}

async function status() {
  const { session, frames, echoes, errors } = window.call;
  const [peer] = session.peers.values();
  let decoded = 0;
  // Firefox (153) never answers for a connection that is closed meanwhile.
  const report = await Promise.race([peer?.connection.getStats(), new Promise((done) => setTimeout(done, 2_000))]);
  report?.forEach(({ framesDecoded }) => {
    decoded += framesDecoded ?? 0;
  });
  return { frames, echoes, errors, decoded, stats: await peer?.stats(), policy: peer?.connection.getConfiguration().iceTransportPolicy };
}

/** What peers have sent that looks like an address or a name of a host. */
function addressesIn(frames) {
  const signals = frames.filter((text) => ['offer', 'answer', 'ice_candidate'].includes(JSON.parse(text).type)).join(' ');
  assert.match(signals, /typ relay/);
  const found = signals.match(/\b\d{1,3}(\.\d{1,3}){3}\b|[\da-f-]+\.local\b|(?<![\w:])[\da-f]*:[\da-f]*:[\da-f:]*(?![\w:])/gi) ?? [];
  // The fingerprint of a certificate has 32 bytes.
  return new Set(found.filter((text) => !/^([\dA-F]{2}:){19,}[\dA-F]{2}$/i.test(text)));
}

describe('relay-only tokens', { timeout: SUITE_TIMEOUT }, () => {
  let plain;
  let chromium;
  let firefox;
  let server;
  const pages = [];
  const bots = [];

  before(async () => {
    plain = await startPlainPages();
    const coturn = await startCoturn({ secret: SECRET, relayIp: RELAY_IP });
    server = await startServer({
      TURNSERVER_SECRET: SECRET, TURNSERVER_URLS: `["turn:127.0.0.1:${coturn.port}"]`, TURN_PROBE_SECONDS: '0', ADMIN_TOKEN, USERS_REQUIRED: 'false',
    });
    [chromium, firefox] = await Promise.all([openBrowser(), openFirefox(plain.port)]);
  });
  after(async () => {
    await Promise.all([chromium?.close(), firefox?.end()]);
    plain?.end();
    await cleanUp();
  });
  afterEach(async () => {
    for (const page of pages.splice(0)) await page.close();
    await Promise.all(bots.splice(0).map((bot) => bot.end()));
    chromium.assertQuiet();
    firefox.assertQuiet();
  });

  async function mint(username, ice) {
    const answer = await ask('POST', server.url, '/admin/api/tokens', { token: ADMIN_TOKEN, json: { username, ice } });
    assert.equal(answer.status, 200, answer.text);
    return answer.json.access_token;
  }

  async function open(browser, room, username) {
    const page = await browser.page(plain.url);
    pages.push(page);
    await page.evaluate(enter, { url: server.url, room, token: await mint(username, 'relay') });
    return page;
  }

  async function reaches(page, what, condition) {
    let last;
    return eventually(() => `a page ${what}: ${JSON.stringify(last)}`, async () => {
      last = await page.evaluate(status);
      return condition(last) && last;
    });
  }

  for (const [name, browsers] of [
    ['Chromium and Firefox', () => [chromium, firefox]], ['Firefox and Chromium', () => [firefox, chromium]],
    ['two Chromiums', () => [chromium, chromium]], ['two Firefoxes', () => [firefox, firefox]],
  ]) {
    test(`${name} call each other, and no frame holds an address but that of the TURN server`, async () => {
      const tabs = [];
      for (const [number, browser] of browsers().entries()) tabs.push(await open(browser, name, `user${number}`));

      for (const tab of tabs) {
        const { frames, policy, stats, errors } = await reaches(tab, 'sees and hears the other through coturn',
          ({ decoded, echoes, stats: now }) => decoded > 5 && echoes.length && now?.path === 'relay');

        assert.deepEqual([policy, stats.path, errors], ['relay', 'relay', []]);
        for (const address of addressesIn(frames)) assert.ok([RELAY_IP, ...NONE].includes(address), address);
        const own = frames.map((text) => JSON.parse(text)).find(({ type }) => type === 'auth_success');
        assert.equal(own.iceTransportPolicy, 'relay');
      }
    });
  }

  test('the Python bot, whose WebRTC cannot be held to TURN, does not take such a token', async () => {
    const bot = launch('/usr/bin/python3', [join(ROOT, 'clients/python/examples/echo_bot.py'), '--url', server.url, '--room', 'python', '--token', await mint('bot', 'relay')],
      { env: { PATH: process.env.PATH, PYTHONPATH: join(ROOT, 'clients/python') } });
    bots.push(bot);

    await eventually(() => `the bot ends: ${bot.output}`, () => bot.isRead);

    assert.match(bot.output, /the token allows TURN servers only, and aiortc 1\.4 cannot be held to that/);
  });

  test('the Rust bot, which has no TURN, does not take such a token', async () => {
    const command = join(dirname(MANAGE_USERS), 'examples/echo_bot');
    const bot = launch(command, ['--url', server.url, '--room', 'rust', '--token', await mint('bot', 'relay')], { env: { PATH: process.env.PATH } });
    bots.push(bot);

    await eventually(() => `the bot ends: ${bot.output}`, () => bot.isRead);

    assert.match(bot.output, /the token allows TURN servers only, and this bot uses none/);
  });
});
