// What a browser does to a page that its user leaves alone: the back/forward cache, freezing, no network, sleep.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import { startPlainPages } from './firefox.mjs';
import { cleanUp, eventually, PASSWORDS, startProxy, startServer, SUITE_TIMEOUT } from './harness.mjs';

const EXPECTED = [/WebSocket connection to|ERR_|Failed to load/];
/** In seconds. After it the server gives up a member that sleeps. */
const RESUME_WINDOW = 3;

/** In the page: enters the room, and notes what it is told. */
async function enter({ url, username, password, room, opensChannel }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const tab = window.tab = { told: [], errors: [], channelTexts: [] };
  const session = tab.session = await connect({ url, room, clientId: username, getToken: signIn({ url, username, password }) });
  session.on('state', ({ state }) => tab.told.push(state));
  session.on('peer-joined', ({ peer, existing }) => tab.told.push(`${peer.id} ${existing ? 'is there' : 'joined'}`));
  session.on('peer-left', ({ peer }) => tab.told.push(`${peer.id} left`));
  session.on('peer', ({ peer, state }) => ['reconnecting', 'connected'].includes(state) && tab.told.push(`${peer.id} ${state}`));
  session.on('message', ({ data }) => tab.told.push(data));
  session.on('error', ({ error }) => tab.errors.push(`${error.code} ${error.message}`));
  const use = (channel) => {
    tab.channel = channel;
    channel.onmessage = ({ data }) => tab.channelTexts.push(data);
  };
  session.on('channel', ({ channel }) => use(channel));
  if (opensChannel) session.on('peer-joined', ({ peer }) => use(peer.createDataChannel('talk')));
}

describe('a page that its user leaves alone', { timeout: SUITE_TIMEOUT }, () => {
  let browser;
  let plain;
  let server;

  before(async () => {
    [plain, browser] = [await startPlainPages(), await openBrowser({ ignoreDefaultArgs: ['--disable-back-forward-cache'] })];
    server = await startServer({ RESUME_WINDOW_SECONDS: `${RESUME_WINDOW}` });
  });
  after(async () => {
    await browser?.close();
    plain.end();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  async function open(username, room, { url = server.url, ...more } = {}) {
    const page = await browser.page(plain.url, { expected: EXPECTED });
    await page.evaluate(enter, { url, username, password: PASSWORDS[username], room, ...more });
    return page;
  }

  async function tells(page, what, condition) {
    let last;
    return eventually(() => `${what}: ${JSON.stringify(last)}`, async () => {
      last = await page.evaluate(() => ({ told: window.tab.told, state: window.tab.session.state, texts: window.tab.channelTexts, channel: window.tab.channel?.readyState, errors: window.tab.errors }));
      return condition(last) && last;
    });
  }

  const members = async (room) => {
    const answer = await fetch(`${server.url}/api/rooms/${room}/info`);
    return answer.ok ? (await answer.json()).connected_users : 0;
  };

  async function freeze(page, state) {
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Page.setWebLifecycleState', { state });
  }

  /** Alice and Bob with an open channel; Bob is behind a proxy. */
  async function pair(room) {
    const proxy = await startProxy(server.port);
    const alice = await open('alice', room);
    const bob = await open('bob', room, { url: proxy.url, opensChannel: true });
    for (const page of [alice, bob]) await tells(page, 'the channel is open', ({ channel }) => channel === 'open');
    for (const page of [alice, bob]) await page.evaluate(() => { window.tab.told.length = 0; });
    return { alice, bob, proxy };
  }

  async function end({ alice, bob, proxy }) {
    for (const page of [alice, bob]) {
      assert.deepEqual(await page.evaluate(() => window.tab.errors), []);
      await page.context().close();
    }
    proxy.end();
  }

  test('in the back/forward cache has left the room, and joins anew when it is shown again', async () => {
    const page = await open('alice', 'cached');
    await page.evaluate(() => addEventListener('pageshow', ({ persisted }) => { window.tab.isFromCache = persisted; }));
    assert.equal(await members('cached'), 1);

    // Playwright waits in vain for a page that comes from the cache to load.
    const devtools = await page.context().newCDPSession(page);
    await devtools.send('Page.navigate', { url: `${server.url}/health` });
    await eventually(() => 'the server knows that it has left', async () => (await members('cached')) === 0);
    const { entries } = await devtools.send('Page.getNavigationHistory');
    await devtools.send('Page.navigateToHistoryEntry', { entryId: entries.find(({ url }) => url === plain.url).id });

    let last;
    await eventually(() => `the page is back, from the cache: ${last}`, async () => {
      const expression = 'window.tab && JSON.stringify([window.tab.session.state, window.tab.isFromCache, window.tab.errors])';
      ({ result: { value: last } } = await devtools.send('Runtime.evaluate', { expression }));
      return last === '["connected",true,[]]';
    });
    assert.equal(await members('cached'), 1);
    await page.context().close();
  });

  test('frozen, loses its connection without noticing, and hears what was said meanwhile when it goes on', async () => {
    const call = await pair('frozen');
    await freeze(call.bob, 'frozen');
    call.proxy.mend(); // breaks his connection
    await tells(call.alice, 'alice is told that bob is away', ({ told }) => told.includes('bob reconnecting'));
    await call.alice.evaluate(() => window.tab.session.send('while you were away'));
    await freeze(call.bob, 'active');

    const { told } = await tells(call.bob, 'bob hears it', ({ told: heard }) => heard.includes('while you were away'));
    assert.ok(!told.includes('alice left'), `${told}`);
    await tells(call.alice, 'alice is told that bob is back', ({ told: heard }) => heard.includes('bob connected') && !heard.includes('bob left'));
    await call.alice.evaluate(() => window.tab.channel.send('directly'));
    await tells(call.bob, 'the channel goes on', ({ texts }) => texts.includes('directly'));
    await end(call);
  });

  test('without a network says so at once, and is back without a wait when there is one', async () => {
    const call = await pair('offline');
    const went = Date.now();
    await call.bob.context().setOffline(true);
    await tells(call.bob, 'bob knows that he is offline', ({ state }) => state === 'reconnecting');
    assert.ok(Date.now() - went < 15_000, 'sooner than a ping would tell');
    await call.bob.context().setOffline(false);

    const { told } = await tells(call.bob, 'bob is back', ({ state }) => state === 'connected');
    assert.deepEqual(told.filter((one) => one === 'alice left'), []);
    await call.alice.evaluate(() => window.tab.session.send('welcome back'));
    await tells(call.bob, 'bob hears alice', ({ told: heard }) => heard.includes('welcome back'));
    await end(call);
  });

  test('asleep for longer than its membership is kept, has left for the others, and joins anew when it wakes', async () => {
    const call = await pair('asleep');
    await freeze(call.bob, 'frozen');
    call.proxy.mend(); // breaks his connection
    call.proxy.cut();
    await tells(call.alice, 'alice is told that bob has left', ({ told }) => told.includes('bob left'));
    assert.equal(await members('asleep'), 1);
    call.proxy.mend();
    await freeze(call.bob, 'active');

    await tells(call.alice, 'alice is told that bob has joined', ({ told }) => told.includes('bob joined'));
    await tells(call.bob, 'bob is connected', ({ state }) => state === 'connected');
    await call.bob.evaluate(() => {
      const [peer] = window.tab.session.peers.values();
      window.tab.channel = peer.createDataChannel('again');
    });
    await tells(call.bob, 'a new channel opens', ({ channel }) => channel === 'open');
    await end(call);
  });
});
