// The TURN servers: what `doctor` and the running server say of each set-up, and what comes of two peers that meet through it
// with the credentials that this server gives.

import { execFile, execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  ask, certificate, eventually, folder, logIn, MANAGE_USERS, ROOT, SERVER, startCoturn, startServer,
} from '../browser/harness.mjs';
import { debian, FIELD, npmVersion } from './clients.mjs';
import { startEjabberd, startNodeTurn, startPion, startSilence, startTurnRs } from './turn_starts.mjs';

const run = promisify(execFile);
const SECRET = 'a-secret-that-server-and-turn-share-0123456789';
const OTHER_SECRET = 'the-secret-of-another-server-altogether-01234';
/** An account whose name coturn would not take as it stands. */
const TWO_WORDS = { name: 'anna maria', password: 'horse battery' };
const METRICS_TOKEN = 'e'.repeat(31) + 'f';
const TTL = 3600;
const DAY = 86_400;

const ofDebian = (name) => ({ apt: [name, 'python3-aioice'], version: () => debian(name) });
const coturn = (changes = [], more = {}) => ({
  ...ofDebian('coturn'), start: () => startCoturn({ secret: SECRET, changes, ...more }), ...more,
});

/** coturn, and a server whose clock is ahead of it by so many seconds. */
const coturnBehind = (seconds) => coturn([], { offset: seconds });

/** What moves the clock of a process by so many seconds. */
function clock(seconds) {
  const home = folder();
  const [library, offset] = [join(home, 'clock.so'), join(home, 'offset')];
  execFileSync('cc', ['-shared', '-fPIC', '-o', library, join(ROOT, 'tests/it/attacks/clock.c'), '-ldl']);
  writeFileSync(offset, String(seconds));
  return { LD_PRELOAD: library, CLOCK_OFFSET: offset };
}

const USE_SECRET = '\nuse-auth-secret\n';
const OWN_SECRET = `static-auth-secret=${SECRET}`;

const udp = { transport: 'udp', url: ({ port }) => `turn:127.0.0.1:${port}` };
const tcp = { transport: 'tcp', url: ({ port }) => `turn:127.0.0.1:${port}?transport=tcp` };
const tls = { transport: 'tls', url: ({ tlsPort }) => `turns:localhost:${tlsPort}` };

const TURN_RS = '4.1.5';
const turnRs = { crate: `turn-server@${TURN_RS}`, features: ['udp', 'tcp'], apt: ['python3-aioice'], version: () => TURN_RS };

/**
 * Each server: how it starts, over what it is asked, and what its version is of. `isSlow` is one that tries all its ports before it
 * refuses, for which a client may not wait.
 */
export const TURN_SERVERS = {
  'coturn, UDP': coturn(),
  'coturn, TCP': coturn([], tcp),
  'coturn, TLS': coturn([], { ...tls, authorities: () => join(certificate().folder, 'fullchain.pem') }),
  'coturn, TLS, certificate not trusted': coturn([], { ...tls, authorities: () => '/etc/ssl/certs/ca-certificates.crt' }),
  'coturn, `stale-nonce=1`': coturn([['stale-nonce=600', 'stale-nonce=1']]),
  'coturn, beside `lt-cred-mech`': coturn([[USE_SECRET, '\nuse-auth-secret\nlt-cred-mech\n']]),
  'coturn, another secret': coturn([[SECRET, OTHER_SECRET]]),
  'coturn, a comment behind the secret': coturn([[OWN_SECRET, `${OWN_SECRET}  # must match .env`]]),
  'coturn, `lt-cred-mech` alone': coturn([[USE_SECRET, '\nlt-cred-mech\nuser=alice:password\n'], [OWN_SECRET, '']]),
  'coturn, `no-auth`': coturn([[USE_SECRET, '\nno-auth\n'], [OWN_SECRET, '']]),
  'coturn, `stun-only`': coturn([[USE_SECRET, '\nuse-auth-secret\nstun-only\n']]),
  'coturn, `no-udp`': coturn([['\nno-tcp-relay\n', '\nno-tcp-relay\nno-udp\n']]),
  'coturn, its clock behind by two days': coturnBehind(2 * DAY),
  'coturn, its clock ahead by ten minutes': coturnBehind(-600),
  'coturn, its clock ahead by a day': coturnBehind(-DAY),
  'coturn, `relay-ip` of another machine': coturn([['relay-ip=127.0.0.1', 'relay-ip=192.0.2.1']], { isSlow: true }),
  'coturn, `external-ip` of another machine': coturn([['relay-ip=127.0.0.1', 'relay-ip=127.0.0.1\nexternal-ip=127.0.0.9/127.0.0.1']]),
  'turn-rs, UDP': { ...turnRs, start: () => startTurnRs({ secret: SECRET }) },
  'turn-rs, TCP': { ...turnRs, ...tcp, start: () => startTurnRs({ secret: SECRET }) },
  'turn-rs, another secret': { ...turnRs, start: () => startTurnRs({ secret: OTHER_SECRET }) },
  'ejabberd, `mod_stun_disco`': { ...ofDebian('ejabberd'), start: () => startEjabberd({ secret: SECRET }) },
  'pion/turn, its example': {
    apt: ['golang-github-pion-turn.v2-dev', 'golang-go', 'python3-aioice'], version: () => debian('golang-github-pion-turn.v2-dev'),
    start: () => startPion({ secret: SECRET }),
  },
  ...Object.fromEntries(['long-term', 'none'].map((auth) => [`node-turn, \`${auth}\``, {
    from: 'npm', apt: ['python3-aioice'], version: () => npmVersion('node-turn'), start: startNodeTurn(auth),
  }])),
  'a silent port, UDP': { apt: ['python3-aioice'], version: () => '–', start: startSilence },
  'a silent port, TCP': { apt: ['python3-aioice'], version: () => '–', ...tcp, start: startSilence },
};

/** What comes of two peers that have only this server, with credentials for it. */
async function meet(port, transport, { username, credential }, env) {
  const program = join(FIELD, 'turn/relay.py');
  const { stdout } = await run('/usr/bin/python3', [program], {
    env: {
      PATH: process.env.PATH, ...env, TURN_HOST: transport === 'tls' ? 'localhost' : '127.0.0.1', TURN_PORT: String(port),
      TURN_TRANSPORT: transport, TURN_USERNAME: username, TURN_CREDENTIAL: credential,
    },
  });
  return stdout.trim();
}

/** Credentials that have ended so many seconds ago, by the clock of a server that is off. */
function mint(name, ago, offset) {
  const username = `${Math.floor(Date.now() / 1000) + offset - ago}:${name}`;
  return { username, credential: createHmac('sha1', SECRET).update(username).digest('base64') };
}

/** A sentence of `doctor`, without what differs from run to run; coturn may try all its ports for longer than `doctor` waits. */
const sentence = (text) => (/relay-ip= is no address of its machine/.exec(text)?.[0]
  ?? text.replace(/, within [\d.]+ ms/, '').replace(/within [\d.]+ s/, 'in time'));

/** What a running server says of the one URL that it has. */
async function probed({ url, child }, turnUrl) {
  const lineOf = () => child.output.split('\n').find((line) => /"TURN server (works|does not work)/.test(line));
  await eventually(() => 'the server has tried its TURN server', lineOf);
  const { text } = await ask('GET', url, '/metrics', { token: METRICS_TOKEN });
  const line = text.split('\n').find((it) => it.startsWith(`signaling_turn_up{url="${turnUrl}"}`));
  return line.endsWith(' 1') ? 'up' : 'down';
}

/** What each check shows with a TURN server. */
export async function tryTurnServer(name) {
  const { start, version, authorities, transport, url, offset = 0, isSlow = false } = { ...udp, ...TURN_SERVERS[name] };
  const turn = await start();
  const turnUrl = url(turn);
  const env = { ...(authorities && { SSL_CERT_FILE: authorities() }), ...(offset && clock(offset)) };
  const server = await startServer({
    METRICS_TOKEN, TURNSERVER_URLS: JSON.stringify([turnUrl]), TURNSERVER_SECRET: SECRET, TURNSERVER_TTL: String(TTL), ...env,
  });
  const verdict = { version: version() };

  const output = await run(SERVER, ['doctor', '--json'], { cwd: server.home, env: server.env }).catch((found) => found); // with faults it ends with 1
  const about = JSON.parse(output.stdout).find(({ subject }) => subject === turnUrl);
  verdict.doctor = `${about.verdict}: ${sentence(about.message)}`;
  verdict.probe = await probed(server, turnUrl);

  const port = transport === 'tls' ? turn.tlsPort : turn.port;
  const { name: twoWords, password } = TWO_WORDS;
  execFileSync(MANAGE_USERS, ['add', `${twoWords}:${password}`], { cwd: server.home, env: { ...server.env, USERS_CSV: join(server.home, 'users.csv') }, stdio: 'ignore' });
  const token = await eventually(() => 'the new account can log in', () => logIn(server.url, twoWords, password).catch(() => undefined));
  const { json } = await ask('GET', server.url, '/auth/turn-credentials', { token });
  const outcome = await meet(port, transport, json, env);
  verdict.relay = isSlow && ['508', 'no answer'].includes(outcome) ? '508 or no answer' : outcome;
  // A server that does not answer the good ones may answer these with another of its threads.
  verdict.expired = verdict.relay.endsWith('no answer') ? '–' : await meet(port, transport, mint('alice', DAY, offset), env);
  await server.end();
  await (turn.end ?? turn.child.end)();
  return verdict;
}
