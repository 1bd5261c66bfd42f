// Runs foreign proxies, clients, token libraries, engines and TURN servers with the server, and compares what they do with the last results:
//
//   node tests/field/run.mjs [--accept] [NAME...]
//
// It installs what it needs. A verdict that differs from tests/field/results.json is an error, versions included; with --accept
// the results are written there, and into the tables of the pages below. A NAME is a row of a table, or clients, proxies, tokens,
// engines, turn or doctor. SIGNALING_SERVER names the server; default: target/debug/signaling-server.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { cleanUp, ROOT } from '../browser/harness.mjs';
import { CLIENTS } from './clients.mjs';
import { ENGINES, tryEngine } from './engines.mjs';
import { install } from './install.mjs';
import { PROXIES, tryProxy, trySlowDoctor } from './proxies.mjs';
import { LIBRARIES, tryLibrary } from './tokens.mjs';
import { startRooms, tryClient } from './try_client.mjs';
import { TURN_SERVERS, tryTurnServer } from './turn_servers.mjs';

const RESULTS = join(ROOT, 'tests/field/results.json');
/** How many clients run at a time; they are idle for most of it. */
const CLIENTS_AT_A_TIME = 3;

const KINDS = {
  clients: { rows: CLIENTS, page: 'docs/build/minimal-clients.md', first: 'client' },
  proxies: { rows: PROXIES, page: 'docs/run/proxies.md', first: 'proxy' },
  tokens: { rows: LIBRARIES, page: 'docs/build/your-own-users.md', first: 'library' },
  engines: { rows: ENGINES, page: 'docs/run/scaling.md', first: 'engine' },
  turn: { rows: TURN_SERVERS, page: 'docs/run/turn-servers.md', first: 'server' },
  doctor: { rows: { 'nginx, its documents\' time-outs': {} } },
};

const args = process.argv.slice(2);
const isAccepted = args.includes('--accept');
const names = args.filter((name) => !name.startsWith('--'));
const known = Object.entries(KINDS).flatMap(([kind, { rows }]) => [kind, ...Object.keys(rows)]);
for (const name of names) if (!known.includes(name)) throw new Error(`no such row: ${name}`);
const wanted = (kind) => Object.keys(KINDS[kind].rows).filter((name) => names.length === 0 || names.includes(kind) || names.includes(name));

const before = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : {};
const today = new Date().toISOString().slice(0, 10);
const failures = [];

/** Runs the wanted rows of a kind, so many at a time, and returns what is known of all of them now. */
async function each(kind, atATime, attempt) {
  const found = { ...before[kind] };
  const queue = wanted(kind);
  const worker = async () => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      try {
        const result = await attempt(name);
        console.log(`${kind} ${name}: ${JSON.stringify(result)}`);
        const { seen, ...last } = found[name] ?? {};
        if (!isAccepted && !isDeepStrictEqual(last, result)) failures.push(`${name}: ${JSON.stringify(last)} is now ${JSON.stringify(result)}`);
        found[name] = { ...result, seen: today };
      } catch (error) {
        console.log(`${kind} ${name}: ${error.message}`);
        failures.push(`${name}: ${error.message}`);
      }
    }
  };
  await Promise.all(Array.from({ length: atATime }, worker));
  return Object.fromEntries(Object.keys(KINDS[kind].rows).filter((name) => found[name]).map((name) => [name, found[name]]));
}

/** Writes the rows of a table into its page, between the comments that name it. */
function writeTable({ page, first }, rows) {
  const columns = [first, ...Object.keys(Object.values(rows)[0])];
  const lines = [
    `| ${columns.join(' | ')} |`, `|${' --- |'.repeat(columns.length)}`,
    ...Object.entries(rows).map(([name, row]) => `| ${[name, ...columns.slice(1).map((column) => row[column])].join(' | ')} |`),
  ];
  const path = join(ROOT, page);
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace(/(<!-- field -->\n)[\s\S]*?(<!-- end of field -->)/, (all, start, end) => `${start}\n${lines.join('\n')}\n\n${end}`));
}

const now = {};
try {
  install(Object.entries(KINDS).flatMap(([kind, { rows }]) => wanted(kind).map((name) => rows[name])));
  const rooms = wanted('clients').length > 0 && await startRooms();
  now.clients = await each('clients', CLIENTS_AT_A_TIME, (name) => tryClient(name, rooms));
  await cleanUp();
  now.proxies = await each('proxies', 1, (name) => tryProxy(name).finally(cleanUp));
  now.tokens = await each('tokens', 1, tryLibrary);
  now.engines = await each('engines', 1, (name) => tryEngine(name).finally(cleanUp));
  now.turn = await each('turn', 1, (name) => tryTurnServer(name).finally(cleanUp));
  now.doctor = await each('doctor', 1, () => trySlowDoctor().finally(cleanUp));
} finally {
  await cleanUp();
}
if (isAccepted) {
  writeFileSync(RESULTS, `${JSON.stringify(now, null, 2)}\n`);
  for (const [kind, table] of Object.entries(KINDS)) if (table.page) writeTable(table, now[kind]);
}
for (const failure of failures) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);
