// The server behind real proxies that run what deploy/ has for them. All of 127.0.0.0/8 is this machine,
// and here only 127.0.0.1 (where the proxy comes from) is a trusted one: 127.0.0.2 is a client from outside.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startApache, startHaproxyTcp, startLighttpd, startStunnel } from './other_proxies.mjs';
import { ask, certificate, cleanUp, Client, logIn, PASSWORDS, startCaddy, startHaproxy, startNginx, SERVER, startServer, eventually, SUITE_TIMEOUT, TEST_TIMEOUT } from './harness.mjs';

const OUTSIDE = '127.0.0.2';
const FIGURES = 'f'.repeat(32);
/** Each with more members than it carries with the limits that it has by itself. */
const LIMITED = [['nginx', startNginx, 400], ['Apache', startApache, 450], ['lighttpd', startLighttpd, 1_400]];
/** Each with what it says where it does not like its settings. */
const PROXIES = [['nginx', startNginx, /\[(warn|error|crit|alert|emerg)\]/], ['Caddy', startCaddy, /"level":"error"/],
  ['HAProxy', startHaproxy, /\[(WARNING|ALERT)\]/], ['Apache', startApache, /:(error|crit|alert|emerg)\]/],
  ['lighttpd', startLighttpd, /\((configfile|mod_|network)[^)]*\)(?!.*server (started|stopped))/]];
/** TCP proxies, each with the settings that its file in deploy/ names. */
const TCP_PROXIES = [['HAProxy in TCP mode', startHaproxyTcp, 'true'], ['stunnel', startStunnel, 'false']];

/** What `doctor --url` of a server says of its public address. */
async function doctorAt({ home, env }, url) {
  const args = ['doctor', '--json', '--url', url, '--ca', join(certificate().folder, 'fullchain.pem')];
  const said = await new Promise((done) => {
    execFile(SERVER, args, { cwd: home, env, timeout: TEST_TIMEOUT }, (error, text) => done(text));
  });
  const about = JSON.parse(said).filter(({ subject }) => subject.startsWith(url));
  return { subjects: about.map(({ subject }) => subject), verdicts: about.map(({ verdict }) => verdict), about };
}

for (const [name, startProxy, complaint] of PROXIES) describe(`behind ${name}`, { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let proxy;
  let token;

  before(async () => {
    server = await startServer({ REQUIRE_HTTPS: 'true', WEBSOCKET_TIMEOUT: '3', TRUSTED_PROXIES: '["127.0.0.1"]', METRICS_TOKEN: FIGURES });
    proxy = await startProxy(server);
    token = await logIn(proxy.url, 'alice');
  });
  after(cleanUp);

  test('the configuration is understood without a complaint', () => {
    assert.doesNotMatch(proxy.child.output, complaint);
  });

  test('a login over https gives a token that works, and says to stay with https', async () => {
    const me = await ask('GET', proxy.url, '/auth/me', { token });

    assert.equal(me.json.username, 'alice');
    assert.match(me.headers['strict-transport-security'], /^max-age=\d+/);
    assert.match(me.headers['x-request-id'], /./);
  });

  test('two clients signal to each other over wss', async () => {
    const room = 'a room / with ümlauts';
    const alice = await Client.join(proxy.url, room, token, 'alice-1');
    const bob = await Client.join(proxy.url, room, await logIn(proxy.url, 'bob'), 'bob-1');

    assert.deepEqual(bob.others, [{ client_id: 'alice-1', username: 'alice', polite: true }]);
    bob.send({ type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, to: 'alice-1' });

    const offer = await alice.receive('offer');
    assert.deepEqual(offer, { type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, from: 'bob-1', username: 'bob' });
    await bob.close();
    assert.equal((await alice.receive('user_left')).client_id, 'bob-1');
    await alice.close();
  });

  test('a silent socket is kept alive by the server\'s pings', async () => {
    const quiet = await Client.join(proxy.url, 'library', token);

    // Four pings are more than the three seconds after which a silent peer counts as gone.
    await eventually(() => `four pings came, not ${quiet.pings}`, () => quiet.pings >= 4);

    quiet.send({ type: 'ping' });
    await quiet.receive('pong');
    await quiet.close();
  });

  test('plain http leads to https, whatever Host says, and takes no password', async () => {
    const redirect = await ask('GET', proxy.plainUrl, '/api/rooms?x=%2F', { headers: { host: 'evil.example' } });
    const login = await ask('POST', proxy.plainUrl, '/auth/login', { json: { username: 'alice', password: PASSWORDS.alice } });

    assert.equal(redirect.status, 308);
    assert.equal(redirect.headers.location, 'https://localhost/api/rooms?x=%2F');
    assert.equal(login.status, 403);
  });

  test('doctor finds nothing wrong at the public address', async () => {
    const { subjects, verdicts } = await doctorAt(server, proxy.url);

    assert.deepEqual(subjects, ['', '', ' WebSocket'].map((what) => `${proxy.url}/${what}`));
    assert.deepEqual(verdicts, ['ok', 'ok', 'ok']);
  });

  test('figures are not shown to the outside, however their path is written', async () => {
    for (const path of ['/metrics', '/metrics/', '//metrics', '/%6detrics', '/ws/../metrics', '/metrics?x', '/metrics/.']) {
      const { status } = await ask('GET', proxy.url, path, { token: FIGURES });

      assert.equal(status, 404, path);
    }
    assert.equal((await ask('GET', server.url, '/metrics', { token: FIGURES })).status, 200, 'inside they are shown');
  });

  test('a body that is too large is refused', async () => {
    const answer = await ask('POST', proxy.url, '/auth/login', { body: 'x'.repeat(65_537) });

    assert.equal(answer.status, 413);
  });

  test('a client that makes up X-Forwarded-For is locked out as the one that it is, and nobody else is', async () => {
    const strict = await startServer({ REQUIRE_HTTPS: 'true', AUTH_MAX_FAILURES: '2', TRUSTED_PROXIES: '["127.0.0.1"]' });
    const { url } = await startProxy(strict);
    const guess = (n, password = 'a guess') => ask('POST', url, '/auth/login',
      { json: { username: 'alice', password }, from: OUTSIDE, headers: { host: 'localhost', 'x-forwarded-for': `203.0.113.${n}` } });

    const statuses = [(await guess(1)).status, (await guess(2)).status];
    const locked = await guess(3, PASSWORDS.alice);
    const alice = await ask('POST', url, '/auth/login', { json: { username: 'alice', password: PASSWORDS.alice }, from: '127.0.0.3', headers: { host: 'localhost' } });

    assert.deepEqual(statuses, [401, 401]);
    assert.equal(locked.status, 429);
    assert.match(locked.headers['retry-after'], /^\d+$/);
    assert.equal(alice.status, 200);
  });
});

for (const [name, startProxy, count] of LIMITED) test(`${name} carries more members than a website has connections`, { timeout: SUITE_TIMEOUT }, async () => {
  const server = await startServer({
    REQUIRE_HTTPS: 'true', TRUSTED_PROXIES: '["127.0.0.1"]', MAX_CONNECTIONS_PER_IP: '0', MAX_CONNECTIONS_PER_ROOM: '50', JOINS_PER_MINUTE: '0', RATE_LIMIT_PER_MINUTE: '0',
  });
  try {
    const proxy = await startProxy(server);
    const token = await logIn(proxy.url, 'alice');
    const joins = (room) => Array.from({ length: 50 }, (_, number) => Client.join(proxy.url, `room-${room}`, token, `member-${number}`));
    const members = [];
    while (members.length < count) members.push(...await Promise.all(joins(members.length)));

    assert.ok(members.every(({ socket }) => socket.readyState === socket.OPEN));
    for (const { socket } of members) socket.terminate();
  } finally {
    await cleanUp();
  }
});

for (const [name, startProxy, requireHttps] of TCP_PROXIES) describe(`behind ${name}`, { timeout: SUITE_TIMEOUT }, () => {
  let server;
  let proxy;

  before(async () => {
    server = await startServer({
      REQUIRE_HTTPS: requireHttps, PROXY_PROTOCOL: 'true', TRUSTED_PROXIES: '["127.0.0.1"]', WEBSOCKET_TIMEOUT: '3', RATE_LIMIT_PER_MINUTE: '20',
    });
    proxy = await startProxy(server);
  });
  after(cleanUp);

  test('two clients signal to each other over wss, and idle ones stay', async () => {
    const alice = await Client.join(proxy.url, 'den', await logIn(proxy.url, 'alice'), 'alice-1');
    const bob = await Client.join(proxy.url, 'den', await logIn(proxy.url, 'bob'), 'bob-1');
    bob.send({ type: 'offer', offer: { sdp: 'x'.repeat(60_000) }, to: 'alice-1' });

    assert.equal((await alice.receive('offer')).offer.sdp.length, 60_000);
    await eventually(() => `four pings came, not ${bob.pings}`, () => bob.pings >= 4);
    await bob.close();
    assert.equal((await alice.receive('user_left')).client_id, 'bob-1');
    await alice.close();
  });

  test('each client counts as the address that it has, whatever it makes up', async () => {
    const from = (address, n) => ask('GET', proxy.url, '/', { from: address, headers: { host: 'localhost', 'x-forwarded-for': `203.0.113.${n}` } });
    const statuses = [];
    for (let n = 0; n <= 40; n += 1) statuses.push((await from(OUTSIDE, n)).status);

    assert.deepEqual([statuses[0], statuses[40]], [200, 429]);
    assert.equal((await from('127.0.0.3', 1)).status, 200);
  });

  test('past the proxy nothing is answered', async () => {
    await assert.rejects(ask('GET', server.url, '/health'));
  });
});

describe('past the proxy', { timeout: SUITE_TIMEOUT }, () => {
  let server;

  before(async () => { server = await startServer({ REQUIRE_HTTPS: 'true', TRUSTED_PROXIES: '["127.0.0.1"]' }); });
  after(cleanUp);

  test('plain http is sent to https or refused by the server itself', async () => {
    const get = await ask('GET', server.url, '/api/rooms', { from: OUTSIDE });
    const post = await ask('POST', server.url, '/auth/login', { json: { username: 'alice', password: PASSWORDS.alice }, from: OUTSIDE });
    const health = await ask('GET', server.url, '/health');

    assert.equal(get.status, 308);
    assert.match(get.headers.location, /^https:\/\/.*\/api\/rooms$/);
    assert.deepEqual([post.status, post.json], [403, { detail: 'HTTPS required' }]);
    assert.equal(health.status, 200);
    assert.equal(health.headers['strict-transport-security'], undefined);
  });

  test('a client that claims https for itself is not believed', async () => {
    const post = await ask('POST', server.url, '/auth/logout', { from: OUTSIDE, headers: { 'x-forwarded-proto': 'https' } });

    assert.equal(post.status, 403);
  });
});

describe('a client that makes up X-Forwarded-For', { timeout: SUITE_TIMEOUT }, () => {
  after(cleanUp);

  /** An address of its own each time, as an attacker would write it. */
  const spoofed = (n) => ({ from: OUTSIDE, headers: { 'x-forwarded-for': `203.0.113.${n}` } });

  test('does not escape RATE_LIMIT_PER_MINUTE', async () => {
    const server = await startServer({ REQUIRE_HTTPS: 'true', RATE_LIMIT_PER_MINUTE: '5', TRUSTED_PROXIES: '["127.0.0.1"]' });
    const nginx = await startNginx(server);

    const statuses = [];
    for (let n = 1; n <= 6; n += 1) statuses.push((await ask('GET', nginx.url, '/', spoofed(n))).status);
    const neighbour = await ask('GET', nginx.url, '/', { from: '127.0.0.3' });

    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 429]);
    assert.equal(neighbour.status, 200);
  });
});
