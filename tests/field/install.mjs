// Installs foreign software: Debian packages as root, all else into target/field and tests/field/node_modules.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FIELD, TARGET, VENV } from './clients.mjs';

const run = (command, args, options) => execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'], ...options });

function isInstalled(name) {
  try {
    return execFileSync('dpkg-query', ['-W', '-f', '${Status}', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).includes('ok installed');
  } catch {
    return false;
  }
}

function installDebian(packages) {
  const missing = packages.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  run('apt-get', ['update', '-qq']);
  run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env });
}

const REGISTRIES = {
  pypi() {
    if (!existsSync(join(VENV, 'bin/python'))) run('/usr/bin/python3', ['-m', 'venv', VENV]);
    run(join(VENV, 'bin/pip'), ['install', '-q', '-r', join(FIELD, 'requirements.txt')]);
  },
  npm: () => run('npm', ['ci', '--prefix', FIELD, '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund']),
  crates: () => run('cargo', ['build', '--quiet', '--locked', '--bins', '--manifest-path', join(FIELD, 'clients/rust/Cargo.toml'), '--target-dir', join(TARGET, 'rust')]),
};

/** A program of crates.io, with no more of it than these features. */
function installCrate({ crate, features }) {
  const folders = ['--root', join(TARGET, 'cargo'), '--target-dir', join(TARGET, 'cargo-target')];
  run('cargo', ['install', '--quiet', '--locked', ...folders, '--no-default-features', '--features', features.join(), crate]);
}

/** Installs what these rows of the tables need. */
export function install(rows) {
  installDebian(['python3-venv', ...new Set(rows.flatMap(({ apt = [] }) => apt))]);
  for (const [name, installAll] of Object.entries(REGISTRIES)) {
    if (rows.some((row) => row.from === name || (name === 'pypi' && row.pypi))) installAll();
  }
  for (const row of new Map(rows.filter(({ crate }) => crate).map((it) => [it.crate, it])).values()) installCrate(row);
}
