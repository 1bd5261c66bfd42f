// The clients of docs/build/minimal-clients.md, as the page has them, against the real server.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, Client, eventually, folder, launch, logIn, ROOT, sleep, startServer } from '../browser/harness.mjs';
import { blocksOf } from '../browser/terminal.mjs';

const PAGE = 'docs/build/minimal-clients.md';
const ADMIN_TOKEN = 'a'.repeat(16) + 'b'.repeat(16);
/** How long a client is left idle: more than twice the server's time-out. */
const IDLE_MS = 8_000;
const OFFER_LENGTH = 50_000;

const run = (command, args, options) => execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], ...options });
const debian = (name) => () => run('dpkg-query', ['-W', '-f', '${Version}', name]);
const distribution = (name) => (python) => run(python, ['-c', `from importlib.metadata import version; print(version("${name}"))`]).trim();

/** A Python program: its file and how it starts. `python` has the library. */
const python = (name) => ({ file: 'client.py', start: (path, tools) => [tools.python, path], version: (tools) => distribution(name)(tools.python) });

/**
 * Each client by the word behind the language of its block: its file, how it starts (after `build`), and the version of its
 * library. `needs` are Debian packages beside those of test.sh.
 */
export const CLIENTS = {
  websockets: python('websockets'),
  'websocket-client': python('websocket-client'),
  aiohttp: python('aiohttp'),
  ws: {
    file: 'client.mjs',
    build: (path, home) => symlinkSync(join(ROOT, 'tests/browser/node_modules'), join(home, 'node_modules')),
    start: (path) => [process.execPath, path],
    version: () => JSON.parse(readFileSync(join(ROOT, 'tests/browser/node_modules/ws/package.json'), 'utf8')).version,
  },
  gorilla: {
    file: 'main.go',
    needs: ['golang-go', 'golang-github-gorilla-websocket-dev'],
    // Of Debian, without modules.
    build: (path, home) => run('go', ['build', '-o', 'client', path], { cwd: home, env: { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode' } }),
    start: (path, tools, home) => [join(home, 'client')],
    version: debian('golang-github-gorilla-websocket-dev'),
  },
  HttpClient: {
    file: 'Minimal.java',
    needs: ['openjdk-17-jdk-headless'],
    start: (path) => ['java', path],
    version: () => run('java', ['--version']).split('\n')[0].split(' ')[1],
  },
  ClientWebSocket: {
    file: 'minimal.cs',
    needs: ['mono-mcs', 'mono-runtime'],
    build: (path, home) => run('mcs', ['-langversion:latest', '-out:client.exe', path], { cwd: home }),
    start: (path, tools, home) => ['mono', join(home, 'client.exe')],
    version: debian('mono-mcs'),
  },
  libwebsockets: {
    file: 'client.c',
    needs: ['libwebsockets-dev'],
    build: (path, home) => run('cc', ['-o', 'client', path, '-lwebsockets'], { cwd: home }),
    start: (path, tools, home) => [join(home, 'client')],
    version: debian('libwebsockets-dev'),
  },
  'faye-websocket': { file: 'client.rb', needs: ['ruby-faye-websocket'], start: (path) => ['/usr/bin/ruby', path], version: debian('ruby-faye-websocket') },
  Mojolicious: { file: 'client.pl', needs: ['libmojolicious-perl'], start: (path) => ['/usr/bin/perl', path], version: debian('libmojolicious-perl') },
  QWebSocket: { file: 'qt.py', needs: ['python3-pyqt5.qtwebsockets'], start: (path) => ['/usr/bin/python3', path], version: debian('python3-pyqt5.qtwebsockets') },
};

/** The blocks of the page by the word behind their language. */
export function blocks() {
  const all = blocksOf(readFileSync(join(ROOT, PAGE), 'utf8'));
  return Object.fromEntries(all.map(({ kind, commands }) => [kind.split(' ')[1], commands]));
}

/** The server of all clients: it takes pages of one origin only, and pings every second. */
export async function startRooms() {
  const server = await startServer({ ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '3', CORS_ORIGINS: 'https://app.example' });
  const strict = await startServer({ REQUIRE_HTTPS: 'true', TRUSTED_PROXIES: '[]' });
  return { server, strict, token: await logIn(server.url, 'alice'), peerToken: await logIn(server.url, 'bob') };
}

/** What a client does in each case: `yes`, or what it shows. Throws where it does not do what its page says. */
export async function tryClient(name, { server, strict, token, peerToken }, tools = { python: '/usr/bin/python3' }) {
  const { file, build, start, version } = CLIENTS[name];
  const home = folder();
  const path = join(home, file);
  mkdirSync(home, { recursive: true });
  writeFileSync(path, blocks()[name]);
  build?.(path, home);
  const [command, ...args] = start(path, tools, home);
  const launched = (url) => launch(command, args, { cwd: home, env: { ...process.env, NO_PROXY: '*', ROOM_URL: url, TOKEN: token } });

  const room = `field-${name}`;
  const child = launched(`${server.url.replace('http', 'ws')}/ws/${room}`);
  const shows = (what) => eventually(() => `${name} shows ${what}; it said ${child.output}`, () => {
    if (child.output.includes(what)) return true;
    if (child.gone) throw new Error(`${name} has ended; it said ${child.output}`);
    return false;
  });
  await shows('auth_success');
  await shows('users_in_room');
  const peer = await Client.join(server.url, room, peerToken, 'peer');
  await shows('user_joined');
  const { client_id: id } = peer.others[0];

  peer.send({ type: 'offer', offer: { type: 'offer', sdp: 'x'.repeat(OFFER_LENGTH) }, to: id });
  await peer.receive('answer');

  await sleep(IDLE_MS);
  const left = peer.received.find(({ type }) => type === 'user_left');
  if (left || child.gone) throw new Error(`${name} did not stay; it said ${child.output.slice(-2_000)}`);

  await ask('POST', server.url, `/admin/api/rooms/${room}/kick`, { token: ADMIN_TOKEN, json: { client_id: id } });
  await peer.receive('user_left');
  await eventually(() => `${name} shows its close; it said ${child.output.slice(-2_000)}`, () => /closed .*\n/.test(child.output) || child.gone);
  const kick = /closed (.*)\n/.exec(child.output)?.[1]?.trim() ?? 'nothing';
  await child.end();
  await peer.close();

  const refused = launched(`${strict.url.replace('http', 'ws')}/ws/${room}`);
  await eventually(() => `${name} gives up on a refused connection`, () => refused.gone || /403|refused|closed/i.test(refused.output));
  await sleep(200);
  const refusal = refused.output.includes('403') ? 'shows 403' : 'shows no status';
  await refused.end();
  return { version: version(tools), flow: 'yes', offer: 'yes', idle: 'yes', kick, refusal };
}
