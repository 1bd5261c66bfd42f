// Runs foreign proxies and clients against the server, and compares what they do with the last results:
//
//   node tests/field/run.mjs [--accept] [NAME...]
//
// It installs what it needs: Debian packages (as root), Python packages into target/field. A verdict that differs from
// tests/field/results.json is an error; with --accept it is written there, and into the tables of docs/build/minimal-clients.md and
// docs/run/proxies.md. SIGNALING_SERVER names the binary; default: target/debug/signaling-server.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cleanUp, ROOT } from '../browser/harness.mjs';
import { CLIENTS, startRooms, tryClient } from './clients.mjs';
import { PROXIES, tryProxy } from './proxies.mjs';

const RESULTS = join(ROOT, 'tests/field/results.json');
const VENV = join(ROOT, 'target/field/venv');
const PACKAGES = ['nginx-light', 'haproxy', 'caddy', 'apache2-bin', 'lighttpd', 'lighttpd-mod-openssl', 'stunnel4', 'python3-venv',
  ...Object.values(CLIENTS).flatMap(({ needs = [] }) => needs)];

const run = (command, args, options) => execFileSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options });

function isInstalled(name) {
  try {
    return execFileSync('dpkg-query', ['-W', '-f', '${Status}', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).includes('ok installed');
  } catch {
    return false;
  }
}

function install() {
  const missing = PACKAGES.filter((name) => !isInstalled(name));
  if (missing.length > 0) {
    run('apt-get', ['update', '-qq']);
    run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } });
  }
  if (!existsSync(join(VENV, 'bin/python'))) run('python3', ['-m', 'venv', VENV]);
  run(join(VENV, 'bin/pip'), ['install', '-q', '-r', join(ROOT, 'tests/field/requirements.txt')]);
}

/** The rows of a table in a page, between the comments that name it. */
function writeTable(page, columns, rows, date) {
  const path = join(ROOT, page);
  const lines = [
    `Seen on ${date}.`, '', `| ${columns.join(' | ')} |`, `|${' --- |'.repeat(columns.length)}`,
    ...Object.entries(rows).map(([name, row]) => `| ${[name, ...columns.slice(1).map((column) => row[column])].join(' | ')} |`),
  ];
  const text = readFileSync(path, 'utf8');
  const written = text.replace(/(<!-- field -->\n)[\s\S]*?(<!-- end of field -->)/, `$1\n${lines.join('\n')}\n\n$2`);
  writeFileSync(path, written);
}

const args = process.argv.slice(2);
const isAccepted = args.includes('--accept');
const names = args.filter((name) => !name.startsWith('--'));
const isWanted = (name) => names.length === 0 || names.includes(name);

install();
const before = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) : { clients: {}, proxies: {} };
const now = structuredClone(before);
const failures = [];

async function each(kind, all, attempt) {
  for (const name of Object.keys(all).filter(isWanted)) {
    const result = await attempt(name).catch((error) => ({ failed: error.message }));
    console.log(`${kind} ${name}: ${JSON.stringify(result)}`);
    if (result.failed) failures.push(`${name}: ${result.failed}`);
    else now[kind][name] = result;
    if (!result.failed && JSON.stringify(before[kind][name]) !== JSON.stringify(result) && !isAccepted) {
      failures.push(`${name}: ${JSON.stringify(before[kind][name])} is now ${JSON.stringify(result)}`);
    }
  }
}

try {
  const rooms = await startRooms();
  await each('clients', CLIENTS, (name) => tryClient(name, rooms, { python: join(VENV, 'bin/python') }));
  await cleanUp();
  await each('proxies', PROXIES, async (name) => {
    try {
      return await tryProxy(name);
    } finally {
      await cleanUp();
    }
  });
} finally {
  await cleanUp();
}
if (isAccepted && failures.length === 0) {
  const date = new Date().toISOString().slice(0, 10);
  writeFileSync(RESULTS, `${JSON.stringify(now, null, 2)}\n`);
  writeTable('docs/build/minimal-clients.md', ['client', 'version', 'flow', 'offer', 'idle', 'kick', 'refusal'], now.clients, date);
  writeTable('docs/run/proxies.md', ['proxy', 'version', 'login', 'upgrade', 'frames', 'idle', 'reload', 'restart', 'kick', 'forged'], now.proxies, date);
}
for (const failure of failures) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);
