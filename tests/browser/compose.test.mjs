// compose.yaml, as far as it goes without Docker.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { blocks } from '../packages/deployment.mjs';
import { assertFiles, assertNoDefaults, assertPrepared, compose, shown } from './compose.mjs';
import { cleanUp, folder, ROOT, SUITE_TIMEOUT } from './harness.mjs';

const text = (path) => readFileSync(join(ROOT, path), 'utf8');

describe('compose.yaml', { timeout: SUITE_TIMEOUT }, () => {
  let home; // a checkout, as far as compose looks at it
  let secrets; // what the page's command has made
  let services;

  before(() => {
    home = folder();
    for (const path of ['compose.yaml', 'Dockerfile', 'deploy']) cpSync(join(ROOT, path), join(home, path), { recursive: true });
    execFileSync('bash', ['-e'], { input: blocks('compose').join(''), cwd: home });
    secrets = Object.fromEntries(readFileSync(join(home, '.env'), 'utf8').trim().split('\n').map((line) => line.split('=')));
    ({ services } = compose(home));
  });
  after(cleanUp);

  test('is not understood without what the page makes', () => {
    const bare = folder();
    for (const path of ['compose.yaml', 'Dockerfile']) cpSync(join(home, path), join(bare, path));

    assert.throws(() => compose(bare), /see docs\/run\/deployment.md/);
  });

  test('names no variable that the page does not make, and gives no secret a default', () => {
    assertNoDefaults(text('compose.yaml'), secrets);
  });

  test('names settings that there are, and files', () => {
    const known = new Set([...text('env.example').matchAll(/^(\w+)=/gm)].map(([, name]) => name));

    for (const name of Object.keys(services.server.environment)) assert.ok(known.has(name), name);
    assertFiles(services, home);
  });

  test('trusts nginx alone, and shows the outside nothing but that and coturn', () => {
    assert.deepEqual(JSON.parse(services.server.environment.TRUSTED_PROXIES), [services.nginx.networks.inside.ipv4_address]);
    assert.deepEqual(shown(services), ['coturn', 'nginx']);
  });

  test('runs the server without a root that it could write to', () => {
    const { read_only: readOnly, cap_drop: dropped, volumes } = services.server;

    assert.deepEqual([readOnly, dropped], [true, ['ALL']]);
    assert.match(volumes[0], /:\/data/);
  });

  test('leaves no placeholder in the settings that it prepares', () => {
    assertPrepared(services.nginx, ['etc/nginx/conf.d/default.conf'], secrets);
    assertPrepared(services.coturn, ['run/signaling/turnserver.conf'], secrets);
  });
});
