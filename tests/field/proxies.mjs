// Proxies with their files from deploy/, against the real server: what passes, and what a reload and a restart do to members.

import { execFileSync } from 'node:child_process';
import WebSocket from '../browser/node_modules/ws/wrapper.mjs';
import {
  ask, certificate, Client, eventually, logIn, sleep, startCaddy, startHaproxy, startNginx, startServer,
} from '../browser/harness.mjs';
import { startApache, startHaproxyTcp, startLighttpd, startStunnel } from '../browser/other_proxies.mjs';

const ADMIN_TOKEN = 'a'.repeat(16) + 'b'.repeat(16);
const BIG = 60_000;
const IDLE_MS = 8_000;
/** How long a member is watched after a reload. */
const AFTER_RELOAD_MS = 12_000;
const OUTSIDE = '127.0.0.2';

const printed = (command, args, pattern) => () => {
  const text = execFileSync('sh', ['-c', `${[command, ...args].join(' ')} 2>&1`], { encoding: 'utf8', env: { PATH: `${process.env.PATH}:/usr/sbin` } });
  return pattern.exec(text)[1];
};
const http = { REQUIRE_HTTPS: 'true' };
const tcp = { REQUIRE_HTTPS: 'true', PROXY_PROTOCOL: 'true' };

/** Each proxy: how it starts, with which settings of the server, the signal that reloads it, and its version. */
export const PROXIES = {
  nginx: { start: startNginx, settings: http, reload: 'SIGHUP', version: printed('nginx', ['-v'], /nginx\/(\S+)/) },
  Apache: { start: startApache, settings: http, reload: 'SIGUSR1', version: printed('apache2', ['-v'], /Apache\/(\S+)/) },
  HAProxy: { start: startHaproxy, settings: http, version: printed('haproxy', ['-v'], /version (\S+)/) },
  'HAProxy, TCP': { start: startHaproxyTcp, settings: tcp, version: printed('haproxy', ['-v'], /version (\S+)/) },
  Caddy: { start: startCaddy, settings: http, version: printed('caddy', ['version'], /\b(\d+\.\d+\.\d+)/) },
  lighttpd: { start: startLighttpd, settings: http, reload: 'SIGUSR1', version: printed('lighttpd', ['-v'], /lighttpd\/(\S+)/) },
  'stunnel, TCP': { start: startStunnel, settings: { ...tcp, REQUIRE_HTTPS: 'false' }, reload: 'SIGHUP', version: printed('stunnel', ['-version'], /stunnel (\S+)/) },
};

/** A member that can resume. */
class Member {
  constructor(url) {
    this.received = [];
    this.socket = new WebSocket(`${url.replace('http', 'ws')}/ws/field`, { ca: certificate().ca });
    this.closed = new Promise((done) => this.socket.once('close', (code, reason) => { this.end = `${code} ${reason}`.trim(); done(); }));
    this.socket.on('error', () => {}).on('message', (text) => {
      const message = JSON.parse(text);
      this.received.push(message);
      this.seq = message.seq ?? this.seq;
      this.resumeToken = message.resume_token ?? this.resumeToken;
    });
  }

  send(message) { this.socket.send(JSON.stringify(message)); }

  receive(...types) {
    return eventually(() => `${types} comes, after ${JSON.stringify(this.received)} ${this.end ?? ''}`, () => this.received.find(({ type }) => types.includes(type)));
  }

  static async join(url, token) {
    const member = new Member(url);
    await member.receive('auth_required');
    member.send({ type: 'auth_token', token, clientId: 'member', features: ['resume'] });
    await member.receive('users_in_room');
    return member;
  }

  /** What comes of a resume on a new connection: `resumed`, or the code of the error. */
  static async resume(url, { resumeToken, seq }) {
    for (let attempt = 1; ; attempt += 1) {
      const member = new Member(url);
      const first = await Promise.race([member.receive('auth_required'), member.closed]);
      if (!first) {
        if (attempt === 50) return ['no connection', member];
        await sleep(200);
        continue;
      }
      member.send({ type: 'resume', resume_token: resumeToken, last_seq: seq ?? 0 });
      const { type, code } = await member.receive('resumed', 'error');
      return [type === 'resumed' ? 'resumed' : code, member];
    }
  }
}

/** What becomes of a member in an event: that it stays, or how its connection ends, and whether it resumes. */
async function survives(url, member, event) {
  const lost = event === 'reload' ? await Promise.race([member.closed.then(() => true), sleep(AFTER_RELOAD_MS)]) : await member.closed.then(() => true);
  if (!lost) return ['stays', member];
  const [outcome, next] = await Member.resume(url, member);
  return [`${member.end.split(' ')[0]}, ${outcome}`, next];
}

/** What each check shows with a proxy. Throws where something does not pass at all. */
export async function tryProxy(name) {
  const { start, settings, reload, version } = PROXIES[name];
  const all = {
    ADMIN_TOKEN, WEBSOCKET_TIMEOUT: '3', TRUSTED_PROXIES: '["127.0.0.1"]', SHUTDOWN_GRACE_SECONDS: '5', AUTH_MAX_FAILURES: '2', ...settings,
    SECRET_KEY: 'd'.repeat(31) + 'e', JWT_SECRET_KEY: 'f'.repeat(31) + 'e',
  };
  let server = await startServer(all);
  const proxy = await start(server);
  const { url } = proxy;
  const verdict = { version: version() };

  const token = await logIn(url, 'alice');
  verdict.login = 'yes';
  let member = await Member.join(url, token);
  const peer = await Client.join(url, 'field', await logIn(url, 'bob'), 'peer');
  verdict.upgrade = 'yes';

  peer.send({ type: 'offer', offer: { sdp: 'x'.repeat(BIG) }, to: 'member' });
  await member.receive('offer');
  member.send({ type: 'answer', answer: { sdp: 'y'.repeat(BIG) }, to: 'peer' });
  await peer.receive('answer');
  verdict.frames = 'yes';

  await sleep(IDLE_MS);
  verdict.idle = member.end ?? 'stays';

  verdict.reload = 'not tried';
  if (reload) {
    proxy.child.process.kill(reload);
    [verdict.reload, member] = await survives(url, member, 'reload');
  }

  const port = String(server.port);
  const home = server.home;
  await server.end();
  server = await startServer({ ...all, PORT: port }, home);
  [verdict.restart, member] = await survives(url, member, 'restart');

  const kicked = member.closed;
  const admin = await ask('POST', url, '/admin/api/rooms/field/kick', { token: ADMIN_TOKEN, json: { client_id: 'member' } });
  if (admin.status !== 200) throw new Error(`kick: ${admin.status} ${admin.text}`);
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
