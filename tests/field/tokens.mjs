// The libraries with which backends make tokens: one row for each. Its program in `tokens/` prints a line for each token with the
// library, the form, what is expected and the token itself; some are wrong on purpose. `doctor --token` decides as the server does.

import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { folder, SERVER, users } from '../browser/harness.mjs';
import { buildGo, debian, FIELD, npmVersion, pinned, VENV } from './clients.mjs';

const run = promisify(execFile);
const PROGRAMS = join(FIELD, 'tokens');
/** Also hexadecimal and base64, so that a library may decode it by mistake. */
const KEY = '9b1e48362f0a7d5ca0c7d5e9f1b2a3c4d5e6f708192a3b4c5d6e7f8091a2b3c4';
const ENV = { PATH: process.env.PATH, JWT_SECRET_KEY: KEY };

const program = (file, ...command) => () => run(command[0], [...command.slice(1), join(PROGRAMS, file)], { env: ENV });
const python = { language: 'Python', from: 'pypi', make: program('make.py', join(VENV, 'bin/python')) };
const node = { language: 'Node', from: 'npm', make: program('make.mjs', process.execPath) };
const pypi = (name) => ({ ...python, version: () => pinned(name) });
const npm = (name) => ({ ...node, version: () => npmVersion(name) });
const ofDebian = (language, apt, make) => ({ language, apt, version: () => debian(apt[0]), make });

async function makeInGo() {
  const binary = join(folder(), 'make');
  await buildGo(binary, join(PROGRAMS, 'make.go'));
  return run(binary, [], { env: ENV });
}

export const LIBRARIES = {
  PyJWT: pypi('PyJWT'),
  'python-jose': pypi('python-jose'),
  Authlib: pypi('Authlib'),
  joserfc: pypi('joserfc'),
  jwcrypto: pypi('jwcrypto'),
  jose: npm('jose'),
  jsonwebtoken: npm('jsonwebtoken'),
  'fast-jwt': npm('fast-jwt'),
  'jwt-simple': npm('jwt-simple'),
  'ruby-jwt': ofDebian('Ruby', ['ruby-jwt'], program('make.rb', 'ruby')),
  'Crypt::JWT': ofDebian('Perl', ['libcrypt-jwt-perl'], program('make.pl', 'perl')),
  'golang-jwt': ofDebian('Go', ['golang-github-golang-jwt-jwt-dev', 'golang-go'], makeInGo),
  'erlang-jose': ofDebian('Erlang', ['erlang-jose', 'erlang-jiffy', 'erlang-base'], program('make.escript', 'escript')),
  'PHP, no library': ofDebian('PHP', ['php-cli'], program('make.php', 'php')),
};

/** What each program has printed: those of several libraries run once. */
const printed = new Map();

function linesOf(make) {
  if (!printed.has(make)) printed.set(make, make().then(({ stdout }) => stdout.trim().split('\n').map((line) => line.split('\t'))));
  return printed.get(make);
}

/** What the server finds wrong with a token. */
function faultsOf(token, home) {
  let report;
  try {
    report = execFileSync(SERVER, ['doctor', '--json', '--token', '-'], {
      input: token, cwd: home, encoding: 'utf8', stdio: ['pipe', 'pipe', 'ignore'], env: { ...ENV, SECRET_KEY: '2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4' },
    });
  } catch (refused) {
    report = refused.stdout; // it ends with 1
  }
  return JSON.parse(report).filter(({ verdict }) => verdict === 'fault').map(({ message }) => message);
}

/** How many tokens of a library are accepted, and refused with the true reason; an error where one is neither. */
export async function tryLibrary(name) {
  const { language, make, version } = LIBRARIES[name];
  const home = folder();
  copyFileSync(users(), join(home, 'users.csv'));
  const wrong = [];
  const counts = { accepted: 0, refused: 0 };
  for (const [maker, form, expected, token] of await linesOf(make)) {
    if (maker !== name) continue;
    const faults = faultsOf(token, home);
    counts[expected === 'ok' ? 'accepted' : 'refused'] += 1;
    const isRight = expected === 'ok' ? faults.length === 0 : faults.some((fault) => fault.includes(expected));
    if (!isRight) wrong.push(`${form}: expected ${expected}, found ${JSON.stringify(faults)}`);
  }
  if (counts.accepted === 0) wrong.push('it has made no token');
  if (wrong.length > 0) throw new Error(wrong.join('; '));
  return { language, version: version(), ...counts };
}
