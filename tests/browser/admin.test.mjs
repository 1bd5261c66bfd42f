// The administrator's page against the real server: what it shows of real clients, and what it does to them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, describe, test } from 'node:test';
import { openBrowser, takeImage } from './browser.mjs';
import { ask, cleanUp, Client, freePort, logIn, MANAGE_USERS, startCoturn, startNginxBelow, startServer, eventually, SUITE_TIMEOUT } from './harness.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const ADMIN_TOKEN = 'a-token-of-an-administrator-with-32-bytes';
const KEPT = 'signaling-admin-token';
/** What does harm wherever it is taken for HTML: the dialog, and the request for x, are noticed. */
const HTML = '<img src=x onerror=alert(1)>';
const GONE = [/404 \(Not Found\)/]; // Chromium prints whatever is not there

describe("the administrator's page", { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let browser;
  let alice;
  let bob;

  before(async () => {
    [server, browser] = await Promise.all([startServer({ ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '300' }), openBrowser()]);
    [alice, bob] = await Promise.all(['alice', 'bob'].map((name) => logIn(server.url, name)));
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });
  afterEach(() => browser.assertQuiet());

  async function signIn(page, token = ADMIN_TOKEN) {
    await page.getByLabel('Admin token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
  }

  async function open({ room, base = server.url, ...options } = {}) {
    const page = await browser.page(`${base}/admin/${room === undefined ? '' : `#rooms/${encodeURIComponent(room)}`}`, options);
    await signIn(page);
    await page.locator(room === undefined ? '.plot >> nth=0' : '#membersNote:not(:empty)').waitFor();
    return page;
  }

  const shown = (page, title) => page.locator('.plot', { hasText: title }).locator('strong').first().innerText();
  const row = (page, text) => page.locator('#rooms tr, #members tr, #rules tr', { hasText: text });
  const act = (page, name) => page.getByRole('button', { name, exact: true }).click();
  const news = (page, text) => page.locator('#notice', { hasText: text }).waitFor();
  const couple = async (room) => [await Client.join(server.url, room, alice, 'alice-1'), await Client.join(server.url, room, bob, 'bob-2')];

  // --- signing in --------------------------------------------------------------------------------

  test('takes the right token only, keeps it for its tab, and forgets it at once', async () => {
    const page = await browser.page(`${server.url}/admin/`, { expected: [/401 \(Unauthorized\)/] });
    const kept = () => page.evaluate((key) => [sessionStorage.getItem(key), localStorage.length, document.cookie, location.href], KEPT);

    const refused = [];
    page.on('response', (response) => { if (response.status() === 401) refused.push(response.url()); });

    for (const wrong of ['not the token at all, but as long as it is', 'schlüssel']) {
      await signIn(page, wrong);
      await page.locator('#error', { hasText: 'does not accept this token' }).waitFor();
      assert.deepEqual(await kept(), [null, 0, '', `${server.url}/admin/`]);
      assert.equal(await page.getByRole('button', { name: 'Drain…' }).isVisible(), false);
    }

    assert.deepEqual(refused, Array(2).fill(`${server.url}/admin/api/status`), 'one request, and so one line in the log, for each');

    await signIn(page);
    await page.locator('.plot').first().waitFor();
    assert.equal(await page.locator('#error').innerText(), '');
    assert.deepEqual(await kept(), [ADMIN_TOKEN, 0, '', `${server.url}/admin/`]);
    await page.reload();
    await page.locator('.plot').first().waitFor();

    await act(page, 'Sign out');
    assert.equal(await page.getByLabel('Admin token').isVisible(), true);
    assert.equal((await kept())[0], null);
    assert.equal(await page.locator('.plot, #rooms tr, #logLines li').count(), 0);

    // A token that was changed on the server.
    await page.evaluate((key) => sessionStorage.setItem(key, 'the token of yesterday, which was changed'), KEPT);
    await page.reload();
    await page.locator('#error', { hasText: 'does not accept this token' }).waitFor();
    assert.equal((await kept())[0], null);
    await page.context().close();
  });

  test('puts no token into an address, and asks this server alone, without cookies', async () => {
    const page = await browser.page(`${server.url}/admin/`);
    const asked = [];
    page.on('request', (request) => asked.push(request));

    await signIn(page);
    await page.locator('.plot').first().waitFor();

    assert.ok(asked.length >= 4);
    for (const request of asked) {
      assert.ok(request.url().startsWith(`${server.url}/admin/api/`) && !request.url().includes(ADMIN_TOKEN), request.url());
      assert.equal((await request.allHeaders()).cookie, undefined);
    }
    await page.context().close();
  });

  test('works below a path of another site, as its clients do', async () => {
    const site = await startNginxBelow(server);
    const member = await Client.join(site.url, 'below', alice, 'alice-1');
    const page = await open({ base: site.url, room: 'below', expected: GONE });

    await row(page, 'alice-1').getByRole('button', { name: 'Kick…' }).click();
    await act(page, 'Kick');

    assert.equal((await member.closed).code, 4002);
    await page.context().close();

    // Without the slash the page finds its files, too.
    const bare = await browser.page(`${site.url}/admin`);
    await signIn(bare);
    await bare.locator('.plot').first().waitFor();
    await bare.context().close();
    await site.child.end();
  });

  // --- what it shows -----------------------------------------------------------------------------

  test('shows figures that move with what happens', async () => {
    const page = await open();
    const before = Number(await shown(page, 'Members'));

    const both = await couple('traffic');
    await eventually(() => 'two more members are shown', async () => Number(await shown(page, 'Members')) === before + 2);
    assert.match(await page.locator('.plot svg').first().getAttribute('aria-label'), /^Members: \d+; at most \d+ in 1 min$/);
    const talking = setInterval(() => both[0].send({ type: 'message', data: 'hello' }), 50);
    await eventually(() => 'messages are shown', async () => Number(await shown(page, 'Messages per second')) > 1);
    await eventually(() => 'how long they take is shown', async () => /^p50 [\d.]+ (µs|ms|s)$/.test(await shown(page, 'Routing')));
    clearInterval(talking);

    for (const client of both) await client.close();
    await page.getByLabel('Additional metric').selectOption('signaling_session_ends_total');
    await eventually(() => 'their ends are plotted', async () => /left true/.test(await page.locator('.plot', { hasText: 'signaling_session_ends_total' }).innerText()));
    await page.context().close();
  });

  test('has axes with units, and what is wrong before the list of rooms', async () => {
    const page = await open();

    const memory = page.locator('.plot', { hasText: 'Memory' });
    const values = await memory.locator('.values span').allInnerTexts();
    assert.match(values.join('|'), /^\d+ MB\|[\d.]+ MB\|0 B$/);
    assert.deepEqual(await memory.locator('.times span').allInnerTexts(), ['1 min ago', 'now']);
    const titles = await page.locator('#overview h2').allInnerTexts();
    assert.ok(titles.indexOf('Recent warnings and errors') < titles.indexOf('Rooms'), titles.join());
    await page.setViewportSize({ width: 390, height: 844 });
    const { y } = await page.getByRole('heading', { name: 'Rooms', exact: true }).boundingBox();
    assert.ok(y < 844, `on a phone the rooms begin at ${y}`);
    await page.context().close();
  });

  test('says in words which request has failed, and shows the others', async () => {
    const both = await couple('half');
    const page = await open({ expected: [/500 \(Internal Server Error\)/, /net::ERR_FAILED/] });
    const error = page.locator('#error');

    await page.route('**/admin/api/metrics', (route) => route.fulfill({ status: 500, json: { detail: 'Internal server error' } }));
    await page.locator('#error', { hasText: 'Metrics: Internal server error' }).waitFor();
    const third = await Client.join(server.url, 'later', alice, 'alice-9');
    await row(page, 'later').waitFor();
    await page.route('**/admin/api/closed', (route) => route.abort());
    await page.locator('#error', { hasText: 'Closed rooms: The server does not answer.' }).waitFor();
    assert.ok(await row(page, 'half').isVisible());

    await page.unrouteAll();
    await eventually(() => 'nothing fails any more', async () => (await error.innerText()) === '');
    await page.context().close();
    for (const client of [...both, third]) await client.close();
  });

  test('shows the certificate and the relays where the metrics tell of them', async () => {
    const page = await browser.page(`${server.url}/admin/`);
    const inDays = (days) => Math.floor(Date.now() / 1000 + days * 86_400 + 600);
    const more = [`signaling_tls_certificate_expiry_timestamp_seconds ${inDays(12)}`, 'signaling_turn_up{url="turn:a.example:3478"} 1',
      'signaling_turn_latency_seconds{url="turn:a.example:3478"} 0.0123', 'signaling_turn_up{url="turns:b.example:5349"} 0'];
    await page.route('**/admin/api/metrics', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: (await response.text()).replace('# EOF', `${more.join('\n')}\n# EOF`) });
    });

    await signIn(page);

    await page.locator('#health li').first().waitFor();
    const health = await page.locator('#health li').evaluateAll((items) => items.map(({ textContent, className }) => [textContent, className]));
    assert.deepEqual(health, [['Certificate: 12 days left', 'bad'], ['turn:a.example:3478 relays, 12 ms', 'good'], ['turns:b.example:5349 does not relay', 'bad']]);
    await page.context().close();
  });

  test('shows what the server found when it tried its relays', async () => {
    const [dead, coturn] = [await freePort(), await startCoturn({ secret: 'a secret' })];
    const urls = [`turn:127.0.0.1:${coturn.port}?transport=tcp`, `turn:127.0.0.1:${dead}?transport=tcp`];
    const other = await startServer({ ADMIN_TOKEN, TURNSERVER_SECRET: 'a secret', TURNSERVER_URLS: JSON.stringify(urls) });
    const page = await open({ base: other.url });

    await page.locator('#health li.good', { hasText: new RegExp(`127.0.0.1:${coturn.port}.* relays, [\\d.]+ (µs|ms|s)$`) }).waitFor();
    await page.locator('#health li.bad', { hasText: new RegExp(`127.0.0.1:${dead}.* does not relay`) }).waitFor();

    await page.context().close();
    await Promise.all([other.end(), coturn.end()]);
  });

  test('lists rooms, finds them, sorts them, and says who is in one, from where, and by which way', async () => {
    const [first, second] = await couple('den');
    const third = await Client.join(server.url, 'attic/é?#', alice, 'alice-3');
    first.send({ type: 'call_report', peer: 'bob-2', outcome: 'connected', ms: 840, path: 'relay' });
    const page = await open();
    const names = () => page.locator('#rooms th').allInnerTexts();

    await eventually(() => 'both rooms are shown', async () => (await names()).length >= 2);
    assert.ok((await names()).indexOf('den') < (await names()).indexOf('attic/é?#'), 'the fullest first');
    await act(page, 'Room');
    assert.equal(await page.locator('th[aria-sort="ascending"]').innerText(), 'Room');
    assert.ok((await names()).indexOf('attic/é?#') < (await names()).indexOf('den'));
    await page.getByLabel('Find or open a room').fill('ATTIC');
    assert.deepEqual(await names(), ['attic/é?#']);
    await page.getByRole('link', { name: 'attic/é?#' }).click();
    await row(page, 'alice-3').waitFor();
    await page.goBack();
    await page.getByLabel('Find or open a room').fill('den');
    await page.keyboard.press('Enter');

    await row(page, 'bob-2').waitFor();
    const cells = await row(page, 'alice-1').locator('th, td').allInnerTexts();
    assert.match(cells.join('|'), /^alice\|alice-1\|connected\|\d+ s\|127\.0\.0\.1\|\|TURN\|/);
    assert.equal(await page.getByRole('heading', { name: 'Room den' }).evaluate((title) => title === document.activeElement), true);
    await page.context().close();
    for (const client of [first, second, third]) await client.close();
  });

  test('shows many rooms a page at a time, the fullest first, and searches all of them', async () => {
    const crowded = await startServer({ ADMIN_TOKEN, MAX_CONNECTIONS_PER_IP: '0' });
    const token = await logIn(crowded.url, 'alice');
    const enter = (room, id) => Client.join(crowded.url, room, token, id);
    const members = [await enter('fullest', 'a'), await enter('fullest', 'b')];
    for (let number = 0; number < 210; number += 10) {
      members.push(...await Promise.all(Array.from({ length: 10 }, (_, index) => enter(`room-${String(number + index).padStart(3, '0')}`, 'a'))));
    }
    const page = await open({ base: crowded.url });
    const note = (text) => page.locator('#roomsNote', { hasText: text }).waitFor();
    const names = () => page.locator('#rooms th').allInnerTexts();

    await note('Rooms 1 to 200 of 211');
    assert.deepEqual((await names()).slice(0, 2), ['fullest', 'room-000']);
    await act(page, 'Next rooms');
    await note('Rooms 201 to 211 of 211');
    assert.equal((await names()).at(-1), 'room-209');
    assert.equal(await page.getByRole('button', { name: 'Next rooms' }).isDisabled(), true);
    await act(page, 'Previous rooms');
    await note('Rooms 1 to 200 of 211');
    await page.getByLabel('Find or open a room').fill('ROOM-209');
    await row(page, 'room-209').waitFor();
    assert.deepEqual(await names(), ['room-209']);
    await page.context().close();
    for (const member of members) await member.close();
  });

  test('shows recent warnings, and asks nothing while nobody looks', async () => {
    await ask('GET', server.url, '/admin/api/status', { token: 'wrong' });
    const page = await open();
    await page.locator('#logLines', { hasText: 'invalid admin token' }).waitFor();
    const hide = (hidden) => page.evaluate((is) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => is });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);

    await page.clock.install();
    await page.reload();
    await page.locator('#logLines', { hasText: 'invalid admin token' }).waitFor();

    await hide(true);
    let asked = 0;
    page.on('request', () => { asked += 1; });
    await page.clock.runFor(60_000);

    assert.equal(asked, 0);
    await hide(false);
    await eventually(() => 'it asks again', () => asked > 0);
    await page.context().close();
  });

  test('shows how long a silent member took to answer a ping', async () => {
    const other = await startServer({ ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '3' });
    const member = await Client.join(other.url, 'silent', await logIn(other.url, 'alice'), 'alice-1');
    const page = await open({ base: other.url, room: 'silent' });

    await eventually(() => 'its ping is shown', async () => /^[\d.]+ (µs|ms|s)$/.test(await row(page, 'alice-1').locator('td').nth(4).innerText()));

    await page.context().close();
    await member.close();
    await other.end();
  });

  // --- what it does ------------------------------------------------------------------------------

  test('kicks a client out, keeps it out, and lets it in again', async () => {
    const [first, second] = await couple('kicked');
    const page = await open({ room: 'kicked' });

    await row(page, 'bob-2').getByRole('button', { name: 'Kick…' }).click();
    await page.getByLabel('Ban').selectOption({ label: 'for 10 minutes' });
    await act(page, 'Kick');

    assert.equal((await second.closed).code, 4002);
    await news(page, 'bob-2 was kicked.');
    await eventually(() => 'it is not shown any more', async () => (await page.locator('#members tr').count()) === 1);
    const barred = new Client(server.url, 'kicked');
    await barred.receive('auth_required');
    barred.send({ type: 'auth_token', token: bob, clientId: 'bob-2' });
    assert.equal((await barred.closed).code, 4002);
    await page.locator('#events', { hasText: 'bob-2 (bob) was refused (banned: an administrator has banned it)' }).waitFor({ state: 'attached' });

    await row(page, 'Ban of client id bob-2').getByRole('button', { name: 'Remove' }).click();
    await news(page, 'Rule removed.');
    const again = await Client.join(server.url, 'kicked', bob, 'bob-2');
    await row(page, 'bob-2').waitFor();
    await page.context().close();
    for (const client of [first, again]) await client.close();
  });

  test('shows which moderator made a rule', async () => {
    const can = ['join', 'send', 'broadcast', 'moderate'];
    const { json } = await ask('POST', server.url, '/admin/api/tokens', { token: ADMIN_TOKEN, json: { username: 'alice', can } });
    const moderator = await Client.join(server.url, 'moderated', json.access_token, 'alice-1');
    moderator.send({ type: 'lock' });
    await moderator.receive('moderated');
    const page = await open({ room: 'moderated', expected: GONE });

    await row(page, 'Locked').filter({ hasText: 'moderator alice' }).filter({ hasText: 'it is removed' }).waitFor();

    await row(page, 'Locked').getByRole('button', { name: 'Remove' }).click();
    await news(page, 'Rule removed.');
    await page.context().close();
    await moderator.close();
  });

  test('throws an account out of every room', async () => {
    const [first, second] = await couple('here');
    const elsewhere = await Client.join(server.url, 'there', bob, 'bob-9');
    const page = await open({ room: 'here', expected: GONE });

    await row(page, 'bob-2').getByRole('button', { name: 'Kick…' }).click();
    await page.getByLabel('Target').selectOption({ label: 'user bob, from all rooms' });
    await act(page, 'Kick');

    assert.deepEqual((await Promise.all([second.closed, elsewhere.closed])).map(({ code }) => code), [4002, 4002]);
    await first.close();
    await eventually(() => 'the shortest ban is over', async () => (await ask('GET', server.url, '/admin/api/rules', { token: ADMIN_TOKEN })).json.rules.length === 0);
    await page.context().close();
  });

  test('locks a room, opens it, changes what it holds, says something, and closes it', async () => {
    const first = await Client.join(server.url, 'managed', alice, 'alice-1');
    const page = await open({ room: 'managed', expected: GONE });
    const knocks = async () => {
      const client = new Client(server.url, 'managed');
      await client.receive('auth_required');
      client.send({ type: 'auth_token', token: bob, clientId: 'bob-2' });
      return (await client.closed).reason;
    };

    await act(page, 'Lock');
    await page.locator('#membersNote', { hasText: '1 of 10 members; the room is locked' }).waitFor();
    await row(page, 'Locked').filter({ hasText: 'an administrator' }).waitFor();
    assert.equal(await knocks(), 'Room is locked');
    await act(page, 'Unlock');
    await news(page, 'The room is unlocked.');

    await act(page, 'Capacity…');
    await page.getByRole('spinbutton', { name: 'Members' }).fill('1');
    await act(page, 'Set');
    await page.locator('#membersNote', { hasText: '1 of 1 members' }).waitFor();
    assert.equal(await knocks(), 'Room is full');

    await act(page, 'Send message…');
    await page.getByLabel('Text').fill('"Down" at <noon>');
    await act(page, 'Send');
    assert.equal((await first.receive('server_message')).data, '"Down" at <noon>');
    await row(page, 'alice-1').getByRole('button', { name: 'Message…' }).click();
    await page.getByLabel('Text').fill('you alone');
    await act(page, 'Send');
    assert.equal((await first.receive('server_message')).data, 'you alone');

    await act(page, 'Close…');
    await act(page, 'Close the room');
    assert.equal((await first.closed).code, 4002);
    await page.locator('#membersNote', { hasText: /^(The room is closed\.|0 of 1 members)$/ }).waitFor();

    await act(page, 'Send message…');
    await page.getByLabel('Text').fill('anybody?');
    await act(page, 'Send');
    await page.locator('#dialogError:not(:empty)').waitFor();
    assert.equal(await page.locator('#dialog').evaluate((dialog) => dialog.open), true);
    await page.context().close();
  });

  test('drains the server, but not by one click', async () => {
    const other = await startServer({ ADMIN_TOKEN });
    const page = await open({ base: other.url, expected: [/ERR_(CONNECTION|EMPTY_RESPONSE|SOCKET)/] });

    await act(page, 'Drain…');
    await act(page, 'Drain');
    assert.equal((await ask('GET', other.url, '/health/ready')).status, 200);
    await page.getByLabel('Confirm').fill('drain');
    await act(page, 'Drain');

    await eventually(() => 'the process has ended', () => other.child.gone);
    await page.locator('#error', { hasText: 'The server does not answer.' }).waitFor();
    await page.context().close();
  });

  // --- the timeline ------------------------------------------------------------------------------

  test('draws what was said, and says why a call failed, also when the room is over', async () => {
    const [first, second] = await couple('a failed call');
    second.send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, to: 'alice-1' });
    await first.receive('offer');
    first.send({ type: 'answer', answer: { type: 'answer', sdp: 'v=0' }, to: 'bob-2' });
    for (let number = 0; number < 3; number += 1) first.send({ type: 'ice_candidate', candidate: { candidate: `candidate:${number}` }, to: 'bob-2' });
    first.send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, to: 'nobody-7' });
    first.send({ type: 'message', data: 'to all' });
    await second.receive('message');
    second.send({ type: 'call_report', peer: 'alice-1', outcome: 'failed', ms: 15_200 });
    const page = await open({ room: 'a failed call', expected: GONE });
    const drawn = (kind, part) => page.locator(`#diagram g.${kind} ${part}`).count();

    await page.locator('#diagram g.call_report').waitFor();
    assert.deepEqual(await page.locator('#diagram .heads text').allTextContents(), ['alice', 'alice-1', 'bob', 'bob-2']);
    assert.deepEqual([await drawn('offer:not(.bad)', '.tip'), await drawn('answer', '.tip'), await drawn('ice_candidate', '.tip'), await drawn('message', '.tip')], [1, 1, 1, 1]);
    assert.match(await page.locator('#diagram g.ice_candidate').textContent(), /3 × ice_candidate \d+ B/);
    assert.match(await page.locator('#diagram g.offer.bad').textContent(), /offer \d+ B: target_not_found/);
    const [offer] = await page.locator('#diagram g.offer:not(.bad) line').evaluateAll((lines) => lines.map((line) => line.x1.baseVal.value < line.x2.baseVal.value));
    assert.equal(offer, true);
    const diagnosis = page.locator('#diagnosis li.wrong');
    await eventually(() => 'both faults are named', async () => (await diagnosis.count()) === 2);
    assert.match(await diagnosis.first().innerText(), /^An offer of alice-1 was not delivered/);
    assert.match(await diagnosis.last().innerText(), /^No ICE candidate came from bob-2, and the call between alice-1 and bob-2 failed after 15 s/);

    await page.getByText('List of events').click();
    assert.match(await page.locator('#events').innerText(), /bob-2 \(bob\) sent offer, \d+ B, to alice-1/);
    assert.doesNotMatch(await page.content(), /candidate:1|to all|v=0/);

    await page.getByLabel('Show').selectOption('bob-2');
    assert.deepEqual([await drawn('joined', 'circle'), await page.locator('#diagram g.offer').count(), await drawn('call_report', 'circle')], [1, 1, 1]);
    await page.getByLabel('Show').selectOption('all clients');

    for (const client of [first, second]) await client.close();
    await page.locator('#diagram g.left').nth(1).waitFor();
    await page.getByRole('link', { name: '← All rooms' }).click();
    await eventually(() => 'the room is listed as closed', async () => /closed \d+ s ago/.test(await row(page, 'a failed call').innerText()));
    await page.getByRole('link', { name: 'a failed call' }).click();
    await page.locator('#membersNote', { hasText: 'The room is closed.' }).waitFor();
    await page.locator('#diagram g.closed').waitFor();
    await page.context().close();
  });

  test('shows who is away, and follows as things happen', async () => {
    const first = await Client.join(server.url, 'tunnel', alice, 'alice-1');
    const second = new Client(server.url, 'tunnel');
    await second.receive('auth_required');
    second.send({ type: 'auth_token', token: bob, clientId: 'bob-2', features: ['resume'] });
    await second.receive('users_in_room');
    const page = await open({ room: 'tunnel' });

    second.socket.terminate();

    await eventually(() => 'bob is disconnected', async () => (await row(page, 'bob-2').locator('td').nth(1).innerText()) === 'disconnected');
    await page.locator('#diagram line.life.detached').waitFor({ state: 'attached' });
    first.send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, to: 'bob-2' });
    await page.locator('#diagnosis li.wrong', { hasText: 'alice-1 offered to bob-2, which is disconnected' }).waitFor();
    await page.context().close();
    await first.close();
  });

  test('looks as the picture in the documents', async () => {
    const room = 'standup-42';
    const laptop = await Client.join(server.url, room, alice, 'alice-laptop');
    const phone = await Client.join(server.url, room, bob, 'bob-phone');
    const send = async (from, type, to) => {
      const names = new Map([[laptop, 'alice-laptop'], [phone, 'bob-phone']]);
      const description = { type, sdp: 'v=0'.padEnd(1_540) };
      from.send({ type, ...(type === 'ice_candidate' ? { candidate: { candidate: 'candidate:1'.padEnd(60) } } : { [type]: description }), to: names.get(to) ?? to });
      if (names.has(to)) await to.receive(type);
    };
    await send(phone, 'offer', laptop);
    for (let number = 0; number < 5; number += 1) await send(phone, 'ice_candidate', laptop);
    await send(laptop, 'answer', phone);
    for (let number = 0; number < 4; number += 1) await send(laptop, 'ice_candidate', phone);
    const tablet = new Client(server.url, room);
    await tablet.receive('auth_required');
    tablet.send({ type: 'auth_token', token: bob, clientId: 'bob-tablet', features: ['resume'] });
    await tablet.receive('users_in_room');
    tablet.send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0'.padEnd(1_540) }, to: 'alice-laptop' });
    await laptop.receive('offer');
    laptop.send({ type: 'answer', answer: { type: 'answer', sdp: 'v=0'.padEnd(1_540) }, to: 'bob-tablet' });
    await tablet.receive('answer');
    laptop.send({ type: 'call_report', peer: 'bob-tablet', outcome: 'connected', ms: 640, path: 'srflx' });
    tablet.socket.terminate();
    await eventually(() => 'the tablet is away', async () => {
      const answer = await ask('GET', server.url, `/admin/api/rooms/${room}`, { token: ADMIN_TOKEN });
      return answer.text.includes('"is_detached":true');
    });
    await send(phone, 'offer', 'bob-tablet');
    await send(laptop, 'offer', 'carol-laptop');
    phone.send({ type: 'call_report', peer: 'alice-laptop', outcome: 'failed', ms: 15_200 });

    const page = await browser.page(`${server.url}/admin/#rooms/${room}`);
    await page.setViewportSize({ width: 1000, height: 700 });
    await signIn(page);
    await page.locator('#diagram g.call_report').nth(1).waitFor();
    await page.locator('#diagnosis li.wrong').nth(2).waitFor();
    await takeImage(page, 'admin.png', { fullPage: true });
    await page.context().close();
    for (const client of [laptop, phone]) await client.close();
  });

  // --- for everybody, and against some -----------------------------------------------------------

  test('takes what clients are called for text', async () => {
    execFileSync(MANAGE_USERS, ['add', `${HTML}:password123`, 'evil@example.com'], { cwd: server.home, env: { PATH: process.env.PATH }, stdio: 'ignore' });
    const token = await eventually(() => 'the server knows the new user', () => logIn(server.url, HTML, 'password123').catch(() => undefined));
    const room = `\u202e"'/><svg onload=alert(2)> ${HTML}`;
    const evil = await Client.join(server.url, room, token, 'evil-1');
    const other = await Client.join(server.url, room, bob, 'x'.repeat(128));
    evil.send({ type: 'offer', offer: { type: 'offer', sdp: HTML }, to: other.id });
    const page = await open();

    await page.getByRole('link', { name: room }).click();
    await row(page, 'evil-1').getByText(HTML).waitFor();
    await page.locator('#diagram g.offer').waitFor();
    await row(page, 'evil-1').getByRole('button', { name: 'Kick…' }).click();
    await page.locator('#dialog option', { hasText: `user ${HTML}, from this room` }).waitFor({ state: 'attached' });

    assert.equal(await page.locator('img').count(), 0);
    assert.equal(await page.locator('svg[onload]').count(), 0);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth), false);
    await page.context().close();
    for (const client of [evil, other]) await client.close();
  });

  test('is accessible in both themes, and fits a phone', async () => {
    const both = await couple('axe');
    both[0].send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, to: 'bob-2' });
    const suits = async (page, what) => {
      await page.addScriptTag({ content: AXE });
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], `${what}, ${colorScheme}`);
      }
      await page.setViewportSize({ width: 360, height: 640 });
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], `${what}, on a phone`);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth), false, `${what} is too wide`);
      await page.context().close();
    };

    await suits(await browser.page(`${server.url}/admin/`, { bypassCSP: true }), 'the sign-in');
    await suits(await open({ bypassCSP: true }), 'the board');
    const room = await open({ room: 'axe', bypassCSP: true });
    await room.locator('#diagram g.offer').waitFor();
    await room.getByText('List of events').click();
    await suits(room, 'a room');
    const asking = await open({ room: 'axe', bypassCSP: true });
    await row(asking, 'bob-2').getByRole('button', { name: 'Kick…' }).click();
    await suits(asking, 'a question');
    for (const client of both) await client.close();
  });

  test('on a phone each member is a card with its buttons in view, those without a connection first', async () => {
    const first = await Client.join(server.url, 'pocket', alice, 'alice-1');
    const second = new Client(server.url, 'pocket');
    await second.receive('auth_required');
    second.send({ type: 'auth_token', token: bob, clientId: 'bob-2', features: ['resume'] });
    await second.receive('users_in_room');
    const page = await open({ room: 'pocket' });
    await page.setViewportSize({ width: 390, height: 844 });
    await row(page, 'bob-2').waitFor();

    second.socket.terminate();
    await page.locator('#members tr').first().getByText('disconnected').waitFor();

    assert.deepEqual(await page.locator('#members tr').evaluateAll((rows) => rows.map((it) => it.dataset.key)), ['bob-2', 'alice-1']);
    for (const name of ['Message…', 'Mute…', 'Kick…']) {
      const box = await row(page, 'alice-1').getByRole('button', { name }).boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= 390, `${name}: ${JSON.stringify(box)}`);
    }
    assert.equal(await page.locator('#members').evaluate((body) => body.closest('.wide').scrollWidth > body.closest('.wide').clientWidth), false);
    const address = await row(page, 'alice-1').locator('td[data-column="Address"]').evaluate((cell) => getComputedStyle(cell, '::before').content);
    assert.equal(address, '"Address"');
    await row(page, 'alice-1').getByRole('button', { name: 'Kick…' }).click();
    await act(page, 'Kick');
    assert.equal((await first.closed).code, 4002);
    await page.context().close();
  });

  test('can be used with the keyboard alone, and keeps the focus while it is brought up to date', async () => {
    const both = await couple('keys');
    const page = await browser.page(`${server.url}/admin/#rooms/keys`);
    await page.getByLabel('Admin token').focus();
    await page.keyboard.type(ADMIN_TOKEN);
    await page.keyboard.press('Enter');
    await row(page, 'bob-2').waitFor();

    await row(page, 'bob-2').getByRole('button', { name: 'Message…' }).focus();
    const rounds = [];
    page.on('requestfinished', (request) => { if (request.url().endsWith('/timeline')) rounds.push(request); });
    await eventually(() => 'it was brought up to date twice', () => rounds.length >= 2);
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Message…');
    await page.keyboard.press('Enter');
    await page.keyboard.type('hello');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');

    assert.equal((await both[1].receive('server_message')).data, 'hello');
    await page.context().close();
    for (const client of both) await client.close();
  });
});
