// What can be said of a compose file without Docker.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { folder } from './harness.mjs';

/** The compose file of a checkout as docker-compose understands it, with what `.env` there says; throws what it complains of. */
export function compose(checkout, options = []) {
  const understood = execFileSync('docker-compose', [...options, 'config'], { cwd: checkout, stdio: 'pipe', env: { PATH: process.env.PATH } });
  return JSON.parse(execFileSync('/usr/bin/python3', ['-c', 'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))'], { input: understood }));
}

/** Every variable is among `secrets`, none has a default, and all but the names are 32 random bytes. */
export function assertNoDefaults(text, secrets) {
  for (const [, name, rest] of text.matchAll(/(?<!\$)\$\{(\w+)([^}]*)\}/g)) {
    if (name === 'CERTIFICATES') continue; // a folder
    assert.ok(secrets[name], `${name} is not made`);
    assert.ok(rest === '' || rest.startsWith(':?'), `${name}${rest}`);
  }
  const { COMPOSE_FILE, DOMAIN, ...random } = secrets;
  for (const value of Object.values(random)) assert.match(value, /^[0-9a-f]{64}$/);
}

/** The services that the outside can reach. */
export function shown(services) {
  return Object.keys(services).filter((name) => services[name].ports || services[name].network_mode).sort();
}

const files = ({ volumes = [] }, checkout) => volumes.filter((volume) => volume.startsWith(`${checkout}/deploy/`)).map((volume) => volume.split(':'));

/** What services take from the checkout is there. */
export function assertFiles(services, checkout) {
  const paths = Object.values(services).flatMap((service) => files(service, checkout)).map(([from]) => from);

  assert.ok(paths.length >= 2);
  for (const path of paths) assert.ok(existsSync(path), path);
}

/** What a service's entrypoint writes before its program starts, the files `made`, has no placeholder left in it. */
export function assertPrepared({ entrypoint, ...service }, made, secrets) {
  const root = folder();
  for (const path of ['tmp', 'run/signaling', 'etc/nginx/conf.d', 'etc/signaling/ssl', 'etc/redis']) mkdirSync(join(root, path), { recursive: true });
  for (const [from, to] of service.volumes.map((volume) => volume.split(':')).filter(([from]) => from.includes('/deploy/'))) cpSync(from, join(root, to));
  for (const pem of ['fullchain.pem', 'privkey.pem']) writeFileSync(join(root, 'etc/signaling/ssl', pem), `${pem}\n`);

  const [shell, flag, script] = entrypoint;
  // In its own root; what comes last is the program itself.
  const here = script.replaceAll('$$', '$').replace(/(?<=[ >])\/(etc|tmp|run)\//g, `${root}/$1/`).replace(/^exec .*$/m, '');
  execFileSync(shell, [flag, `set -e\n${here}`], { env: { PATH: process.env.PATH, ...secrets }, stdio: 'pipe' });

  for (const path of made) {
    const lines = readFileSync(join(root, path), 'utf8').split('\n').filter((line) => !/^\s*#/.test(line));
    assert.ok(lines.length > 2, path);
    const left = lines.filter((line) => /REPLACE_WITH|example\.com|letsencrypt|127\.0\.0\.1:/.test(line.replaceAll(secrets.DOMAIN, '')));
    assert.deepEqual(left, [], path);
  }
}
