// What the tests stand on: the real server, coturn, and nginx, Caddy or HAProxy, each on free ports and in a folder of
// its own, and small clients to talk to them. A test file calls `cleanUp` in an `after` hook.

import { spawn, execFileSync } from 'node:child_process';
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';

const HERE = dirname(fileURLToPath(import.meta.url));
export const ROOT = resolve(HERE, '../..');
export const SERVER = resolve(process.env.SIGNALING_SERVER ?? join(ROOT, 'target/debug/signaling-server'));
export const MANAGE_USERS = join(dirname(SERVER), 'manage_users');
/** Longer than anything takes, also on a loaded machine; nothing waits for it to pass. */
export const TEST_TIMEOUT = 60_000;
/** The same for all tests of a file. */
export const SUITE_TIMEOUT = 600_000;

/** The accounts that every server without DEBUG=true knows here. */
export const PASSWORDS = { alice: 'correct horse', bob: 'battery staple' };

// --- waiting, and leaving nothing behind ---------------------------------------------------------

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `condition` gives something true, and returns that; `what` completes "waited in vain until …". */
export async function eventually(what, condition) {
  const deadline = Date.now() + TEST_TIMEOUT;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what()}`);
    await sleep(40);
  }
}

const children = new Set();
const folders = [];
let certified; // made once, by `certificate`
let usersFile; // made once, by `users`

/** Ends every process that was started here and removes every folder. */
export async function cleanUp() {
  await Promise.all([...children].map((child) => child.end()));
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  certified = usersFile = undefined;
}

// The same without waiting, for a run that is interrupted.
process.on('exit', () => {
  for (const { process: child } of children) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
// A hook that never ran must not keep a whole test run waiting for our children.
if (process.env.NODE_TEST_CONTEXT) setTimeout(() => process.exit(1), SUITE_TIMEOUT + TEST_TIMEOUT).unref();

export function folder() {
  const path = mkdtempSync(join(tmpdir(), 'signaling-test-'));
  folders.push(path);
  return path;
}

/** Starts a process that `cleanUp` ends. It is `gone` when it has ended, and `isRead` when its output is complete as well. */
export function launch(command, args, options = {}) {
  const child = { output: '', process: spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options }) };
  const gone = new Promise((done) => {
    child.process.once('error', (error) => { child.output += error; done(); });
    child.process.once('exit', done).once('close', () => { child.isRead = true; });
  }).then(() => { child.gone = true; children.delete(child); });
  for (const stream of [child.process.stdout, child.process.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => { child.output += text; });
  }
  child.end = async () => {
    child.process.kill('SIGTERM');
    const stubborn = setTimeout(() => child.process.kill('SIGKILL'), 5_000);
    await gone;
    clearTimeout(stubborn);
  };
  children.add(child);
  return child;
}

/** Waits until a child is ready; ends it and says what it printed if it never is. */
export async function ready(child, name, condition) {
  try {
    return await eventually(() => `${name} is ready`, async () => {
      if (child.gone) throw new Error(`${name} ended at once`);
      return condition();
    });
  } catch (error) {
    await child.end();
    throw new Error(`${error.message}; it said:\n${child.output}`);
  }
}

// --- ports and certificates ----------------------------------------------------------------------

/** Below the ports that the system gives to others meanwhile, to connections and to servers with PORT=0; each process begins elsewhere. */
const FREE_PORTS = { first: 20_000, count: 12_000 };
let portsTried = process.pid * 97;

/** A TCP port of 127.0.0.1 on which no process listens. */
export async function freePort() {
  for (;;) {
    const port = FREE_PORTS.first + portsTried % FREE_PORTS.count;
    portsTried += 1;
    const probe = net.createServer().listen(port, '127.0.0.1');
    const isFree = await new Promise((done) => probe.once('listening', () => done(true)).once('error', () => done(false)));
    if (!isFree) continue;
    await new Promise((done) => probe.close(done));
    return port;
  }
}

export const accepts = (port) => new Promise((done) => {
  const probe = net.connect(port, '127.0.0.1')
    .once('connect', () => { probe.destroy(); done(true); })
    .once('error', () => done(false));
});

/** A port is not reserved between finding and binding it: a start that loses it tries another. */
export async function onFreePorts(start) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start();
    } catch (error) {
      if (attempt === 2) throw error;
    }
  }
}

/** A self-signed certificate for localhost, named as certbot names its files. */
export function certificate() {
  if (certified) return certified;
  const path = folder();
  const [cert, key] = [join(path, 'fullchain.pem'), join(path, 'privkey.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
    '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
    '-addext', 'basicConstraints=critical,CA:FALSE', // rustls takes no authority for a server
    '-keyout', key, '-out', cert], { stdio: 'ignore' });
  const ca = readFileSync(cert);
  const spki = new X509Certificate(ca).publicKey.export({ type: 'spki', format: 'der' });
  certified = { folder: path, ca, spkiHash: createHash('sha256').update(spki).digest('base64') };
  return certified;
}

// --- the server ----------------------------------------------------------------------------------

/** A users file with the accounts of `PASSWORDS`. */
export function users() {
  if (usersFile) return usersFile;
  const file = join(folder(), 'users.csv');
  for (const [name, password] of Object.entries(PASSWORDS)) {
    execFileSync(MANAGE_USERS, ['add', `${name}:${password}`],
      { env: { PATH: process.env.PATH, USERS_CSV: file }, cwd: dirname(file), stdio: ['ignore', 'ignore', 'pipe'] });
  }
  usersFile = file;
  return file;
}

/** The setting that gives intervals, which are no settings, other values, in milliseconds. */
export const intervals = (values) => ({
  SIGNALING_TEST_INTERVALS: Object.entries(values).map(([name, ms]) => `${name}=${ms}`).join(' '),
});

/** Clocks for a server with these `settings`, on which `pass(seconds)` lets time pass. What waits wakes up with the next request. */
export function movableClocks() {
  const home = folder();
  const [library, passed] = [join(home, 'clock.so'), join(home, 'passed')];
  execFileSync('cc', ['-shared', '-fPIC', '-o', library, join(ROOT, 'tests/it/attacks/clock.c'), '-ldl']);
  let total = 0;
  const pass = (seconds) => {
    total += seconds;
    writeFileSync(`${passed}.new`, `${total}`);
    renameSync(`${passed}.new`, passed); // never half written: the clocks would go back
  };
  pass(0);
  return { settings: { LD_PRELOAD: library, CLOCK_PASSED: passed }, pass };
}

/**
 * Starts the server and waits until it listens. What is not in `settings` is production with plain
 * HTTP; nothing is inherited from our own environment. In the `home` of a server that has ended it is
 * the next process of that one.
 */
export async function startServer(settings = {}, home = folder()) {
  if (!existsSync(SERVER)) throw new Error(`${SERVER} is missing: cargo build, or set SIGNALING_SERVER`);
  if (settings.DEBUG !== 'true') copyFileSync(users(), join(home, 'users.csv'));
  const env = {
    PATH: process.env.PATH,
    HOST: '127.0.0.1', PORT: '0', LOG_FORMAT: 'json', LOG_LEVEL: 'INFO', REQUIRE_HTTPS: 'false',
    SECRET_KEY: randomBytes(32).toString('hex'), JWT_SECRET_KEY: randomBytes(32).toString('hex'),
    RATE_LIMIT_PER_MINUTE: '100000', JOINS_PER_MINUTE: '0',
    ...settings,
  };
  const child = launch(SERVER, [], { cwd: home, env });
  const address = await waitUntilListening(child);
  return { url: `http://${address}`, port: Number(address.split(':').pop()), child, home, env, end: child.end };
}

/** Where a server listens that was just started, once it does. */
export const waitUntilListening = (child) => ready(child, 'the server', () => openLine(child.output)?.address);

function openLine(output) {
  for (const line of output.split('\n').slice(0, -1)) {
    if (!line.includes('"listening"')) continue;
    const { fields, ...flat } = JSON.parse(line);
    const said = fields ?? flat;
    if (said.message === 'listening') return said;
  }
  return undefined;
}

// --- coturn --------------------------------------------------------------------------------------

/**
 * Starts coturn with deploy/turnserver.conf. As shipped it refuses to relay to this machine, as it
 * should; `toLoopback` adds what lets two peers on it meet. `previous` is a secret that still counts.
 * `relayIp`, in 127.0.0.0/8, is the address of the relayed candidates. `changes` are pairs of texts of its configuration,
 * the second of which takes the place of the first. What has ended can `start` again.
 */
export async function startCoturn({ secret, previous, toLoopback = true, relayIp = '127.0.0.1', changes = [] }) {
  return onFreePorts(async () => {
    const home = folder();
    const [port, tlsPort] = [await freePort(), await freePort()];
    let conf = substitute(readFileSync(join(ROOT, 'deploy/turnserver.conf'), 'utf8'), [
      ['listening-port=3478', `listening-port=${port}`],
      ['tls-listening-port=5349', `tls-listening-port=${tlsPort}`],
      ['REPLACE_WITH_TURNSERVER_SECRET', secret],
      ['/etc/letsencrypt/live/turn.example.com', certificate().folder],
    ]);
    conf += `\nlistening-ip=127.0.0.1\nrelay-ip=${relayIp}\nuserdb=${home}/turndb\npidfile=${home}/pid\n`;
    if (previous) conf += `static-auth-secret=${previous}\n`;
    if (toLoopback) conf += 'allow-loopback-peers\nallowed-peer-ip=127.0.0.0-127.0.0.255\n';
    writeFileSync(join(home, 'turnserver.conf'), substitute(conf, changes));

    const coturn = { port, tlsPort, end: () => coturn.child.end() };
    coturn.start = async () => {
      coturn.child = launch('turnserver', ['-c', join(home, 'turnserver.conf')], { cwd: home });
      await ready(coturn.child, 'coturn', async () => (await accepts(port)) && (await accepts(tlsPort)));
    };
    await coturn.start();
    return coturn;
  });
}

// --- nginx ---------------------------------------------------------------------------------------

/** Starts nginx with deploy/nginx.conf in front of `server`, as https://localhost. */
export async function startNginx(server) {
  return onFreePorts(async () => {
    const home = folder();
    const [port, plainPort] = [await freePort(), await freePort()];
    let site = substitute(readFileSync(join(ROOT, 'deploy/nginx.conf'), 'utf8'), [
      ['/etc/letsencrypt/live/signaling.example.com', certificate().folder],
      ['server_name signaling.example.com;', 'server_name localhost;'],
      ['server 127.0.0.1:8080;', `server 127.0.0.1:${server.port};`],
      ['listen 80;', `listen 127.0.0.1:${plainPort};`],
      ['listen [::]:80;', `listen [::1]:${plainPort};`],
      ['listen 443 ssl;', `listen 127.0.0.1:${port} ssl;`],
      ['listen [::]:443 ssl;', `listen [::1]:${port} ssl;`],
    ]);
    if (!hasIpv6Loopback()) site = site.replace(/^ *listen \[::1\].*$/gm, '');
    const child = await launchNginx(home, site, [port, plainPort]);
    return { url: `https://localhost:${port}`, port, plainUrl: `http://localhost:${plainPort}`, plainPort, child };
  });
}

/** Starts nginx that serves `server` below `/signaling/` of another site, as docs/run/proxies.md shows it, without TLS. */
export async function startNginxBelow(server) {
  return onFreePorts(async () => {
    const port = await freePort();
    const page = readFileSync(join(ROOT, 'docs/run/proxies.md'), 'utf8');
    const [location] = /^location \/signaling\/ \{[^]*?^\}/m.exec(page);
    const site = `server { listen 127.0.0.1:${port}; ${substitute(location, [['127.0.0.1:8080', `127.0.0.1:${server.port}`]])} }`;
    const child = await launchNginx(folder(), site, [port]);
    return { url: `http://localhost:${port}/signaling`, child };
  });
}

/** Starts nginx with this configuration of a site, which listens on these ports, in the folder `home`. */
async function launchNginx(home, site, ports) {
  const [manyMembers] = /^worker_rlimit_nofile [^]*?^\}/m.exec(readFileSync(join(ROOT, 'docs/run/proxies.md'), 'utf8'));
  writeFileSync(join(home, 'site.conf'), site);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(join(home, 'nginx.conf'), `
    ${process.getuid() === 0 ? 'user root;' : ''} # whose folder this is
    pid ${home}/pid;
    error_log stderr info;
    ${manyMembers}
    http {
      access_log off;
      ${temporary.map((name) => `${name}_temp_path ${home}/${name};`).join('\n        ')}
      include ${home}/site.conf;
    }`);
  chmodSync(home, 0o700);

  const child = launch('nginx', ['-p', home, '-c', join(home, 'nginx.conf'), '-g', 'daemon off;'], {
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
  });
  await ready(child, 'nginx', async () => (await Promise.all(ports.map(accepts))).every(Boolean));
  return child;
}

// --- Caddy and HAProxy ---------------------------------------------------------------------------

/**
 * Starts Caddy with deploy/Caddyfile in front of `server`, as https://localhost. `caddy` is the program, which `isNew` from
 * version 2.7 on. With `admin` it can be reloaded: what is returned has `reload`.
 */
export async function startCaddy(server, { caddy = 'caddy', isNew = false, admin = false } = {}) {
  return onFreePorts(async () => {
    const home = folder();
    const [port, plainPort, adminPort] = [await freePort(), await freePort(), await freePort()];
    const { folder: pem } = certificate();
    const site = substitute(readFileSync(join(ROOT, 'deploy/Caddyfile'), 'utf8'), [
      ['http:// {', `http://:${plainPort} {`],
      ['https://signaling.example.com {', `https://localhost:${port} {\n\ttls ${pem}/fullchain.pem ${pem}/privkey.pem`],
      ['https://signaling.example.com', 'https://localhost'],
      ['127.0.0.1:8080 {', `127.0.0.1:${server.port} {`],
      ['# stream_close_delay', isNew ? 'stream_close_delay' : '# stream_close_delay'],
    ]);
    // It would listen on 80 as well.
    const options = `{\n\tadmin ${admin ? `127.0.0.1:${adminPort}` : 'off'}\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}\n`;
    writeFileSync(join(home, 'Caddyfile'), options + site);

    const config = ['--config', join(home, 'Caddyfile'), '--adapter', 'caddyfile'];
    const env = { PATH: process.env.PATH, HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home };
    const child = launch(caddy, ['run', ...config], { env });
    await ready(child, 'Caddy', async () => (await accepts(port)) && (await accepts(plainPort)));
    const reload = () => execFileSync(caddy, ['reload', ...config, '--address', `127.0.0.1:${adminPort}`, '--force'], { env, stdio: 'ignore' });
    return { url: `https://localhost:${port}`, plainUrl: `http://localhost:${plainPort}`, child, ...(admin && { reload }) };
  });
}

/** What makes of deploy/haproxy.cfg one for a single server. */
export const HAPROXY_FOR_ONE = "sed -e '/server node[23] /d' -e 's/127.0.0.1:8081/127.0.0.1:8080/'";

/**
 * Starts HAProxy with deploy/haproxy.cfg, as far as it is about one server, in front of `server`, as https://localhost. `args`
 * are further arguments.
 */
export async function startHaproxy(server, { args = [] } = {}) {
  return onFreePorts(async () => {
    const home = folder();
    const [port, plainPort] = [await freePort(), await freePort()];
    const one = execFileSync('bash', ['-c', `${HAPROXY_FOR_ONE} deploy/haproxy.cfg`], { cwd: ROOT, encoding: 'utf8' });
    const cfg = substitute(one, [
      ['    user haproxy\n    group haproxy\n', ''],
      ['/etc/haproxy/signaling.pem', `${home}/signaling.pem`],
      ['https://signaling.example.com', 'https://localhost'],
      ['127.0.0.1:8080', `127.0.0.1:${server.port}`],
      ['bind :80\n', `bind 127.0.0.1:${plainPort}\n`],
      ['bind :443 ', `bind 127.0.0.1:${port} `],
    ]);
    const pems = ['fullchain.pem', 'privkey.pem'].map((name) => readFileSync(join(certificate().folder, name)));
    writeFileSync(join(home, 'signaling.pem'), Buffer.concat(pems), { mode: 0o600 });
    writeFileSync(join(home, 'haproxy.cfg'), cfg);

    const child = launch('haproxy', ['-db', ...args, '-f', join(home, 'haproxy.cfg')], { env: { PATH: `${process.env.PATH}:/usr/sbin` } });
    await ready(child, 'HAProxy', async () => (await accepts(port)) && (await accepts(plainPort)));
    return { url: `https://localhost:${port}`, plainUrl: `http://localhost:${plainPort}`, child };
  });
}

/** Each placeholder is there: one that was renamed must not pass unnoticed. */
export function substitute(text, pairs) {
  return pairs.reduce((done, [placeholder, value]) => {
    if (!done.includes(placeholder)) throw new Error(`deploy/: no "${placeholder}" to substitute`);
    return done.replaceAll(placeholder, value);
  }, text);
}

function hasIpv6Loopback() {
  return Object.values(networkInterfaces()).flat().some(({ address }) => address === '::1');
}

// --- a network that breaks ------------------------------------------------------------------------

/** A TCP proxy to `port`. While it is cut no byte passes, not even a reset; mending it resets the connections of before. */
export async function startProxy(port) {
  const proxy = { isCut: false, sockets: new Set() };
  const server = net.createServer((near) => {
    if (proxy.isCut) return near.destroy();
    const far = net.connect(port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]]) {
      proxy.sockets.add(from);
      from.on('data', (data) => { if (!proxy.isCut) to.write(data); });
      from.on('error', () => {}).on('close', () => { proxy.sockets.delete(from); to.destroy(); });
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  proxy.url = `http://127.0.0.1:${server.address().port}`;
  proxy.cut = () => { proxy.isCut = true; };
  proxy.mend = () => { for (const socket of proxy.sockets) socket.destroy(); proxy.isCut = false; };
  proxy.end = () => { for (const socket of proxy.sockets) socket.destroy(); server.close(); };
  return proxy;
}

// --- talking to them -----------------------------------------------------------------------------

/**
 * One HTTP request, its path sent as it stands. `from` is the local address to come from: all of
 * 127.0.0.0/8 is this machine, so that a test can be several clients.
 */
export function ask(method, base, path, { headers = {}, json, form, body, token, from } = {}) {
  const { protocol, hostname, port } = new URL(base);
  const sent = { ...headers };
  let payload = body;
  if (json !== undefined) [payload, sent['content-type']] = [JSON.stringify(json), 'application/json'];
  if (form !== undefined) {
    [payload, sent['content-type']] = [new URLSearchParams(form).toString(), 'application/x-www-form-urlencoded'];
  }
  if (token) sent.authorization = `Bearer ${token}`;
  const over = protocol === 'https:' ? https : http;
  const options = {
    method, host: from ? '127.0.0.1' : hostname, port, path, headers: sent, agent: false, localAddress: from,
    timeout: TEST_TIMEOUT, ...(protocol === 'https:' && { ca: certificate().ca, servername: 'localhost' }),
  };
  return new Promise((done, fail) => {
    const request = over.request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece) => { text += piece; }).on('end', () => done({
        status: response.statusCode, headers: response.headers, text,
        get json() { return JSON.parse(text); },
      }));
    });
    request.once('timeout', () => request.destroy(new Error(`no answer to ${method} ${path}`)));
    request.once('error', fail).end(payload);
  });
}

/** A token for `username`. */
export async function logIn(base, username, password = PASSWORDS[username], options = {}) {
  const answer = await ask('POST', base, '/auth/login', { json: { username, password }, ...options });
  if (answer.status !== 200) throw new Error(`login as ${username}: ${answer.status} ${answer.text}`);
  return answer.json.access_token;
}

/** A client of the WebSocket, for what needs no browser. */
export class Client {
  constructor(base, room, headers = {}) {
    this.received = [];
    this.pings = 0;
    this.socket = new WebSocket(`${base.replace(/^http/, 'ws')}/ws/${encodeURIComponent(room)}`, { ca: certificate().ca, headers });
    this.closed = new Promise((done) => this.socket.once('close', (code, reason) => done({ code, reason: `${reason}` })));
    this.socket.on('message', (text) => this.received.push(JSON.parse(text)));
    this.socket.on('ping', () => { this.pings += 1; });
    this.socket.on('error', (error) => { this.error = error; });
  }

  /** Joins `room` as the user of `token`, and waits for the list of its members. */
  static async join(base, room, token, clientId) {
    const client = new Client(base, room);
    await client.receive('auth_required');
    client.send({ type: 'auth_token', token, clientId });
    client.id = (await client.receive('auth_success')).client_id;
    client.others = (await client.receive('users_in_room')).users;
    return client;
  }

  send(message) { this.socket.send(JSON.stringify(message)); }

  /** The oldest message of that type that was not returned yet. */
  receive(type) {
    return eventually(() => `a client receives ${type}; it has received ${JSON.stringify(this.received)} ${this.error ?? ''}`, () => {
      const at = this.received.findIndex((message) => message.type === type);
      return at >= 0 && this.received.splice(at, 1)[0];
    });
  }

  close() { this.socket.close(); return this.closed; }
}
