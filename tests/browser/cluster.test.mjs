// docs/run/three-nodes.md as it stands there, with a real Redis, nginx and HAProxy; what both balancers promise; and
// compose.cluster.yaml, as far as it goes without Docker. All of 127.0.0.0/8 is this machine: 127.0.0.2 is a client from outside.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { ask, certificate, cleanUp, folder, logIn, ROOT, eventually, SUITE_TIMEOUT } from './harness.mjs';
import { assertFiles, assertNoDefaults, assertPrepared, compose, shown } from './compose.mjs';
import { Reader, section, SECTIONS } from './three_nodes.mjs';

const OUTSIDE = '127.0.0.2';
const MADE_UP = '203.0.113.7';
const text = (path) => readFileSync(join(ROOT, path), 'utf8');

describe('docs/run/three-nodes.md', { timeout: SUITE_TIMEOUT }, () => {
  let reader;

  before(async () => { reader = await Reader.begins(); });
  after(async () => {
    await reader?.ends();
    await cleanUp();
  });

  /** Both members of the page hear each other say new numbers. */
  async function theyTalkOn() {
    const [alice, bob] = reader.heard();
    await eventually(() => `both talk on: ${reader.heard()} after ${alice},${bob}`, () => {
      const now = reader.heard();
      return now[0] > alice && now[1] > bob;
    });
  }

  test('installs no more than test.sh does', () => {
    const install = section('1.').blocks[0];
    const packages = install.commands.match(/apt-get install (.*)/)[1].split(' ');
    const known = text('test.sh').match(/[a-z0-9-]+:([a-z0-9-]+)/g).map((need) => need.split(':')[1]).concat('python3-websockets');

    assert.equal(install.kind, 'bash install');
    assert.deepEqual(packages.filter((name) => !known.includes(name)), []);
  });

  for (const { heading } of SECTIONS.filter(({ heading: start }) => /^([1-9]|10)\. /.test(start))) {
    test(heading, async () => {
      await reader.follows(heading);
      if (!/^[1-4]\./.test(heading)) await theyTalkOn();
    });
  }

  for (const balancer of ['nginx', 'haproxy']) {
    const url = () => `https://localhost:${reader.ports[balancer]}`;
    const toRoom = (room, query = '') => `wss://localhost:${reader.ports[balancer]}/ws/${encodeURIComponent(room)}${query}`;
    const many = Array.from({ length: 12 }, (_, number) => `${balancer} ${number}`);

    test(`${balancer}: a room stays on one node, whatever the query, and rooms are spread`, async () => {
      const token = await logIn(url(), 'alice', 'correct horse');
      const nodes = new Set();
      for (const room of ['a', 'b', 'c', 'd', 'e', 'f', 'a room', 'ümlaut / slash'].map((name) => `${balancer} ${name}`)) {
        const before = await reader.members();
        const sockets = [await enter(toRoom(room), token), await enter(toRoom(room, '?x=1'), token)];
        const grown = (await reader.members()).map((count, node) => count - before[node]);
        assert.deepEqual([...grown].sort(), [0, 0, 2], `${room}: ${grown}`);
        const node = grown.indexOf(2) + 1;
        nodes.add(node);

        const path = `/api/rooms/${encodeURIComponent(room)}/info`;
        assert.equal((await ask('GET', url(), path)).json.connected_users, 2);
        await eventually(() => `node ${node} has answered ${path}`, () => reader.log(node).includes(path));
        for (const socket of sockets) socket.close();
        await eventually(() => `${room} is empty`, async () => (await ask('GET', url(), path)).status === 404);
      }

      assert.ok(nodes.size > 1, 'all rooms are on one node');
    });

    test(`${balancer}: a node that was killed is passed over at once`, async () => {
      const token = await logIn(url(), 'alice', 'correct horse');

      await reader.type('kill -9 $(cat node2.pid)');
      const sockets = await Promise.all(many.map((room) => enter(toRoom(room), token)));
      const answers = await Promise.all(many.map(() => ask('GET', url(), '/')));
      const again = await Promise.all([1, 2, 3].map(() => logIn(url(), 'bob', 'correct horse')));

      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
      assert.equal(again.length, 3);
      for (const socket of sockets) socket.close();
      await reader.type('start 2');
      await eventually(() => 'node 2 is back', async () => (await reader.health(2))?.status === 'healthy');
    });

    test(`${balancer}: a made-up X-Forwarded-For is not believed`, async () => {
      const lines = () => [1, 2, 3].flatMap((node) => reader.log(node).split('\n'));
      const spoofing = { from: OUTSIDE, headers: { 'x-forwarded-for': MADE_UP } };
      const logged = (what) => lines().filter((line) => line.includes(what) && line.includes(`"address":"${OUTSIDE}"`)).length;

      const guess = await ask('POST', url(), '/auth/login', { json: { username: 'alice', password: 'a guess' }, ...spoofing });
      const refused = enter(toRoom('den'), 'no token', { localAddress: OUTSIDE, headers: spoofing.headers });

      assert.equal(guess.status, 401);
      await assert.rejects(refused, /closed with 1008/);
      await eventually(() => 'both are logged with the address that they came from', () =>
        logged('login failed') > 0 && logged('invalid_token') > 0);
      assert.deepEqual(lines().filter((line) => line.includes(MADE_UP)), []);
    });

    test(`${balancer}: figures are for the inside`, async () => {
      for (const path of ['/metrics', '/metrics/', '//metrics', '/%6detrics', '/metrics?x', '/metrics/.']) {
        const { status, headers } = await ask('GET', url(), path);
        assert.deepEqual([status, headers['x-request-id']], [404, undefined], `${path} has reached a server`);
      }
    });
  }

  test('haproxy sends nobody to a node that stops while that is still there', async () => {
    const url = `https://localhost:${reader.ports.haproxy}`;
    const token = await logIn(url, 'alice', 'correct horse');
    const slow = await enter(`ws://127.0.0.1:${reader.ports.nodes[2]}/ws/slow`, token);
    slow._socket.pause(); // it does not hear that the node closes, which therefore waits

    await reader.type('kill $(cat node3.pid)');
    const ready = () => ask('GET', `http://127.0.0.1:${reader.ports.nodes[2]}`, '/health/ready').then(({ status }) => status);
    await eventually(() => 'node 3 stops', async () => (await ready()) === 503);
    await assert.rejects(enter(`ws://127.0.0.1:${reader.ports.nodes[2]}/ws/late`, token), /closed with 1012/);
    // HAProxy looks each second, and wants to have seen it twice.
    const rooms = Array.from({ length: 12 }, (_, number) => `wss://localhost:${reader.ports.haproxy}/ws/late-${number}`);
    let refused;
    await eventually(() => `all newcomers are sent elsewhere: ${refused}`, async () => {
      const entered = await Promise.allSettled(rooms.map((room) => enter(room, token)));
      for (const { value } of entered) value?.close();
      refused = entered.find(({ reason }) => reason)?.reason;
      // Until HAProxy knows, node 3 says that it stops; nothing else may refuse anybody.
      if (refused) assert.match(`${refused}`, /closed with 1012/);
      return !refused;
    });

    assert.equal(await ready(), 503, 'node 3 has ended before the test has');
    slow.terminate();
    await reader.type('wait $(cat node3.pid); start 3');
    await eventually(() => 'node 3 is back', async () => (await reader.health(3))?.status === 'healthy');
  });

  test('plain http leads to https, by our own name, and takes no password', async () => {
    for (const [plain, secure] of [['nginxPlain', 'https://localhost'], ['haproxyPlain', `https://localhost:${reader.ports.haproxy}`]]) {
      const base = `http://127.0.0.1:${reader.ports[plain]}`;
      const page = await ask('GET', base, '/api/rooms?x=%2F', { headers: { host: 'evil.example' } });
      const login = await ask('POST', base, '/auth/login', { json: { username: 'alice', password: 'correct horse' } });
      assert.deepEqual([page.status, page.headers.location, login.status], [308, `${secure}/api/rooms?x=%2F`, 403]);
    }
  });

  test('11. Stop everything', async () => {
    await reader.follows('11.');
    await eventually(() => `nobody is left: ${reader.alive()}`, () => reader.alive().length === 0);
    assert.ok(reader.started.size >= 8);
  });

  /** A member of the room at `url`, once it is in. */
  function enter(url, token, options) {
    const socket = new WebSocket(url, { ca: certificate().ca, family: 4, ...options });
    return new Promise((done, fail) => {
      socket.once('error', fail).once('close', (code) => fail(new Error(`closed with ${code}`)));
      socket.on('message', (message) => {
        const { type } = JSON.parse(message);
        if (type === 'auth_required') socket.send(JSON.stringify({ type: 'auth_token', token }));
        if (type === 'users_in_room') done(socket);
      });
    });
  }
});

describe('compose.cluster.yaml', { timeout: SUITE_TIMEOUT }, () => {
  let home; // a checkout, as far as compose looks at it
  let secrets; // what the page's command has made
  let services;

  before(() => {
    home = folder();
    for (const path of ['compose.yaml', 'compose.cluster.yaml', 'Dockerfile', 'deploy']) cpSync(join(ROOT, path), join(home, path), { recursive: true });
    const [{ kind, commands }] = section('With compose.cluster.yaml').blocks;
    assert.equal(kind, 'bash compose');
    execFileSync('bash', ['-e'], { input: commands, cwd: home });
    secrets = Object.fromEntries(readFileSync(join(home, '.env'), 'utf8').trim().split('\n').map((line) => line.split('=')));
    services = compose(home, ['--profile', 'nginx', '--profile', 'haproxy']).services;
  });
  after(cleanUp);

  test('is understood with what the page has made, which names it, and not without', () => {
    const bare = folder();
    for (const path of ['compose.yaml', 'compose.cluster.yaml', 'Dockerfile']) cpSync(join(home, path), join(bare, path));

    assert.equal(secrets.COMPOSE_FILE, 'compose.cluster.yaml');
    assert.throws(() => compose(bare, ['-f', 'compose.cluster.yaml']), /see docs/);
  });

  test('names no variable that the page does not make, and gives no secret a default', () => {
    assertNoDefaults(text('compose.yaml') + text('compose.cluster.yaml'), secrets);
  });

  test('names settings that there are, and the same for all nodes but for a name and a file', () => {
    const known = new Set([...text('env.example').matchAll(/^(\w+)=/gm)].map(([, name]) => name));
    const [one, ...others] = ['node1', 'node2', 'node3'].map((name) => services[name]);
    const shared = ({ environment: { NODE_ID, STATE_FILE, ...rest } }) => rest;

    for (const name of Object.keys(one.environment)) assert.ok(known.has(name), name);
    for (const other of others) assert.deepEqual(shared(other), shared(one));
    assert.equal(new Set([one, ...others].flatMap(({ environment }) => [environment.NODE_ID, environment.STATE_FILE])).size, 6);
  });

  test('trusts the balancers alone, and shows the outside nothing else', () => {
    const balancers = ['nginx', 'haproxy'].map((name) => services[name].networks.inside.ipv4_address);

    assert.deepEqual(JSON.parse(services.node1.environment.TRUSTED_PROXIES), balancers);
    assert.deepEqual(shown(services), ['coturn', 'haproxy', 'nginx']);
  });

  test('names files that there are', () => assertFiles(services, home));

  test('leaves no placeholder in the settings that it prepares', () => {
    for (const [name, made] of [['redis', ['tmp/redis.conf']], ['nginx', ['etc/nginx/conf.d/default.conf', 'etc/nginx/conf.d/cluster.conf']],
      ['haproxy', ['run/signaling/haproxy.cfg', 'run/signaling/signaling.pem']], ['coturn', ['run/signaling/turnserver.conf']]]) {
      assertPrepared(services[name], made, secrets);
    }
  });
});

describe('the Dockerfile', () => {
  test('lets in what the source includes, and no secrets', () => {
    const [everything, ...let_in] = text('.dockerignore').split('\n').filter((line) => line && !line.startsWith('#'));
    const included = execFileSync('grep', ['-rhoE', '--exclude=tests.rs', 'include_str!\\("(\\.\\./)+[^"]+', 'src'], { cwd: ROOT, encoding: 'utf8' })
      .trim().split('\n').map((line) => line.split('../').at(-1));
    const isLetIn = (path) => let_in.some((line) => path.startsWith(line.slice(1)) || (line.endsWith('/*.html') && path.startsWith(line.slice(1, -6)) && path.endsWith('.html')));

    assert.equal(everything, '*');
    assert.ok(included.length >= 5);
    for (const path of [...included, 'Cargo.lock', 'src/main.rs', 'bench/Cargo.toml', 'clients/rust/Cargo.toml']) assert.ok(isLetIn(path), path);
    for (const path of ['.env', 'users.csv', 'ssl/privkey.pem', '.git/config', 'target/debug']) assert.ok(!isLetIn(path), path);
  });

  test('needs nothing in the image but what it copies there', () => {
    const final = text('Dockerfile').split(/^FROM /m).at(-1);

    assert.match(final, /^scratch\n/);
    assert.match(final, /^USER 10001:10001$/m);
    assert.doesNotMatch(final, /^RUN /m);
  });
});
