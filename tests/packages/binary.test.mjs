// The binaries that scripts/package.sh has built, alone in an empty folder.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ask, cleanUp, Client, folder, launch, waitUntilListening, logIn, ROOT, SUITE_TIMEOUT } from '../browser/harness.mjs';

const { PACKAGES } = process.env;
const VERSION = readFileSync(join(ROOT, 'Cargo.toml'), 'utf8').match(/^version = "(.*)"$/m)[1];

describe('the static binaries, with nothing beside them', { timeout: SUITE_TIMEOUT }, () => {
  let root;

  before(() => {
    root = folder();
    for (const name of ['signaling-server', 'manage_users']) copyFileSync(join(PACKAGES, name), join(root, name));
  });
  after(cleanUp);

  const run = (program, args = [], options = {}) => execFileSync('chroot', [root, `/${program}`, ...args],
    { encoding: 'utf8', env: { PATH: process.env.PATH }, stdio: 'pipe', ...options });

  test('say which version they are, the same', () => {
    assert.equal(run('signaling-server', ['--version']), `signaling-server ${VERSION}\n`);
    assert.equal(run('manage_users', ['--version']), `manage_users ${VERSION}\n`);
    assert.deepEqual(readdirSync(PACKAGES).filter((name) => name.endsWith('.deb')).map((name) => name.split('_')[1]), [VERSION]);
  });

  test('add a user, serve what is inside them, and let the user into a room', async () => {
    run('manage_users', ['add', '--password-stdin', 'alice'], { input: 'correct horse\n' });
    const settings = { DEBUG: 'true', REQUIRE_HTTPS: 'false', HOST: '127.0.0.1', PORT: '0', LOG_FORMAT: 'json', RATE_LIMIT_PER_MINUTE: '0', JOINS_PER_MINUTE: '0' };
    const child = launch('chroot', [root, '/signaling-server'], { env: { PATH: process.env.PATH, ...settings } });
    const address = await waitUntilListening(child);
    const url = `http://${address}`;

    for (const path of ['/client/signaling.js', '/docs', '/redoc', '/openapi.json', '/examples/secure_client.html']) {
      const { status, text } = await ask('GET', url, path);
      assert.deepEqual([status, text.length > 100], [200, true], path);
    }
    const member = await Client.join(url, 'den', await logIn(url, 'alice'));
    await member.close();
    run('signaling-server', ['healthcheck'], { env: { PATH: process.env.PATH, ...settings, PORT: address.split(':')[1] } });
  });
});
