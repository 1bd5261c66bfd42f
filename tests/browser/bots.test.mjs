// Bots in a room with the JavaScript client: whatever they are written in, they answer every call and
// echo what comes over its data channels.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { cleanUp, MANAGE_USERS, PASSWORDS, ROOT, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

/** Each also gets --url, --room, --username and --password; the environment is theirs beside our PATH. */
const BOTS = [
  {
    name: 'the Python bot',
    command: '/usr/bin/python3',
    args: [join(ROOT, 'clients/python/examples/echo_bot.py')],
    env: { PYTHONPATH: join(ROOT, 'clients/python') },
  },
  { name: 'the JavaScript bot', command: process.execPath, args: [join(ROOT, 'clients/js/examples/echo_bot.mjs')], env: {} },
  // Beside the server, where `cargo build --example echo_bot` puts it.
  { name: 'the Rust bot', command: join(dirname(MANAGE_USERS), 'examples/echo_bot'), args: [], env: {} },
];

/** In the page: enters the room, and opens a channel to everyone who is there or comes. */
async function enter({ url, username, password, room, clientId }) {
  const { connect } = await import(`${url}/client/signaling.js`);
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${url}/auth/login`, { method: 'POST', headers, body: JSON.stringify({ username, password }) });
  const { access_token: token } = await answer.json();
  const call = { channels: [], echoes: [], errors: [], states: [] };
  window.call = call;
  call.open = (peer, label) => {
    const channel = peer.createDataChannel(label);
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      call.echoes.push([label, peer.id, typeof data === 'string' ? data : [...new Uint8Array(data)]]);
    };
    channel.onopen = () => {
      channel.send(`wörld by ${label}`);
      channel.send(new Uint8Array([0, 1, 255]));
    };
    call.channels.push(channel);
  };
  const session = await connect({ url, room, token, clientId });
  call.session = session;
  session.on('error', ({ error }) => call.errors.push(`${error.code} ${error.message}`));
  session.on('peer', ({ state }) => call.states.push(state));
  session.on('peer-joined', ({ peer }) => call.open(peer, 'first'));
}

/** In the page: how it stands. */
function status() {
  const { session, channels, echoes, errors, states } = window.call;
  return { echoes, errors, states, state: session.state, peers: [...session.peers.keys()], open: channels.map(({ readyState }) => readyState) };
}

/** What both echoes of a channel to `peer` look like. */
const echoesOf = (label, peer) => [[label, peer, `wörld by ${label}`], [label, peer, [0, 1, 255]]];

/** What keeps tokens valid through a crash of the server. */
const SAME_KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };
const LOST = [/WebSocket connection to|ERR_/];

describe('bots and the JavaScript client', { timeout: SUITE_TIMEOUT }, () => {
  let browser;
  let server;
  const pages = [];
  const running = new Set();

  before(async () => {
    browser = await openBrowser();
    server = await startServer();
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(async () => {
    for (const page of pages.splice(0)) await page.context().close();
    await Promise.all([...running].map((bot) => bot.end()));
    browser.assertQuiet();
  });
  // For a run that is interrupted.
  process.on('exit', () => { for (const bot of running) bot.process.kill('SIGKILL'); });

  /** Starts a bot; it may take its time to enter. */
  function start({ command, args, env }, room, { url } = server) {
    const whom = ['--url', url, '--room', room, '--username', 'bob', '--password', PASSWORDS.bob];
    const bot = { log: '', process: spawn(command, [...args, ...whom], { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH, ...env } }) };
    for (const stream of [bot.process.stdout, bot.process.stderr]) stream.on('data', (data) => { bot.log += data; });
    const gone = new Promise((done) => {
      bot.process.once('error', (error) => { bot.log += error; done(); });
      bot.process.once('exit', (code) => { bot.code = code; done(); });
    }).then(() => running.delete(bot));
    bot.end = async () => {
      bot.process.kill('SIGTERM');
      const stubborn = setTimeout(() => bot.process.kill('SIGKILL'), 5_000);
      await gone;
      clearTimeout(stubborn);
    };
    running.add(bot);
    return bot;
  }

  const open = async (room, clientId, { url } = server) => {
    const page = await browser.page(`${url}/health`, { bypassCSP: true, expected: LOST });
    pages.push(page);
    await joins(page, room, clientId, url);
    return page;
  };
  const joins = (page, room, clientId, url = server.url) => page.evaluate(enter, { url, username: 'alice', password: PASSWORDS.alice, room, clientId });

  async function reaches(page, bot, what, condition) {
    let last;
    return eventually(() => `${what}: ${JSON.stringify(last)}; the bot said:\n${bot.log}`, async () => {
      last = await page.evaluate(status);
      return condition(last) && last;
    });
  }

  /** Waits for both echoes of `label`, and that they are all there is. */
  async function hearsEchoes(page, bot, label = 'first') {
    const heard = await reaches(page, bot, `the page hears the echoes of ${label}`,
      ({ echoes }) => echoes.filter(([of]) => of === label).length >= 2);
    assert.deepEqual(heard.echoes.filter(([of]) => of === label), echoesOf(label, heard.peers[0]));
    assert.deepEqual(heard.errors, []);
    return heard;
  }

  for (const kind of BOTS) {
    describe(kind.name, () => {
      test('echoes text and binary to a page that comes later, and again after it was reloaded', async () => {
        const bot = start(kind, 'later');
        await eventually(() => `the bot is in:\n${bot.log}`, async () => (await (await fetch(`${server.url}/api/rooms`)).text()).includes('later'));

        const page = await open('later', 'alice-1');
        const { peers } = await hearsEchoes(page, bot);
        for (let round = 0; round < 2; round += 1) {
          await page.reload();
          await joins(page, 'later', 'alice-1');
          assert.deepEqual((await hearsEchoes(page, bot)).peers, peers);
        }

        await bot.end();
        assert.equal(bot.code, 0, bot.log);
        await reaches(page, bot, 'the page hears that the bot has left', ({ peers: left }) => left.length === 0);
      });

      test('echoes to a page that was there before it, also when it comes a second time', async () => {
        const page = await open('before');
        const first = start(kind, 'before');
        const { peers } = await hearsEchoes(page, first);
        await first.end();
        await reaches(page, first, 'the page hears that the bot has left', ({ peers: left }) => left.length === 0);
        await page.evaluate(() => { window.call.echoes.length = 0; });

        const second = start(kind, 'before');
        assert.notDeepEqual((await hearsEchoes(page, second)).peers, peers);
      });

      test('goes on with a page that negotiates again, sends it pictures, and restarts ICE', async () => {
        const page = await open('again');
        const bot = start(kind, 'again');
        const { peers } = await hearsEchoes(page, bot);

        await page.evaluate(async () => {
          window.call.camera = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
          window.call.session.publish(window.call.camera);
          for (const peer of window.call.session.peers.values()) window.call.open(peer, 'second');
        });
        await hearsEchoes(page, bot, 'second');
        await page.evaluate(async () => {
          window.call.session.unpublish(window.call.camera);
          for (const peer of window.call.session.peers.values()) {
            peer.restartIce();
            window.call.open(peer, 'third');
          }
        });

        const now = await hearsEchoes(page, bot, 'third');
        await page.evaluate(() => window.call.channels[0].send('still the first'));
        await reaches(page, bot, 'the first channel goes on', ({ echoes }) => echoes.some(([, , data]) => data === 'still the first'));
        assert.deepEqual([now.peers, now.open], [peers, ['open', 'open', 'open']]);
      });

      test('goes on with its call through a crash of the server, and answers a new channel after it', async () => {
        const own = await startServer(SAME_KEYS);
        const page = await open('crash', 'alice-1', own);
        const bot = start(kind, 'crash', own);
        const { peers } = await hearsEchoes(page, bot);

        own.child.process.kill('SIGKILL');
        await own.end();
        await page.evaluate(() => window.call.channels[0].send('without a server'));
        await reaches(page, bot, 'the first channel goes on', ({ echoes }) => echoes.some(([, , data]) => data === 'without a server'));
        await startServer({ ...SAME_KEYS, PORT: `${own.port}` }, own.home);
        await reaches(page, bot, 'both are back', ({ state, peers: present }) => state === 'connected' && `${present}` === `${peers}`);
        await eventually(() => `the bot is back:\n${bot.log}`, async () => (await (await fetch(`${own.url}/api/rooms/crash/info`)).json()).connected_users === 2);
        await page.evaluate(() => { for (const peer of window.call.session.peers.values()) window.call.open(peer, 'after'); });
        await hearsEchoes(page, bot, 'after');
      });

      test('hears two pages at once, each on its own', async () => {
        const bot = start(kind, 'two');
        const one = await open('two');
        const other = await open('two');
        for (const page of [one, other]) {
          const echoed = await reaches(page, bot, 'both echoes of the bot', ({ echoes }) => echoes.length >= 2);
          assert.deepEqual(echoed.echoes.map(([, , data]) => data), ['wörld by first', [0, 1, 255]]);
          assert.deepEqual(echoed.errors, []);
        }
      });
    });
  }
});
