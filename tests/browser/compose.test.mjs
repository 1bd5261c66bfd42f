// compose.yaml, as far as it goes without Docker, and the digests of the images that it names.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { blocks } from '../packages/deployment.mjs';
import { assertFiles, assertNoDefaults, assertPrepared, compose, shown } from './compose.mjs';
import { accepts, cleanUp, folder, freePort, launch, ready, ROOT, SUITE_TIMEOUT } from './harness.mjs';

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

describe('scripts/pin_images.sh', { timeout: SUITE_TIMEOUT }, () => {
  const FILES = ['Dockerfile', 'compose.yaml', 'compose.cluster.yaml'];
  const IMAGES = ['rust:1.95-alpine', 'nginx:1.28', 'coturn/coturn:4.6', 'redis:7.2', 'haproxy:3.0'];
  let checkout;
  let home; // of a user whose docker.io is the registry here (containers-registries.conf(5))
  let port;

  before(async () => {
    checkout = folder();
    for (const path of [...FILES, 'scripts', 'deploy']) cpSync(join(ROOT, path), join(checkout, path), { recursive: true });
    port = await freePort();
    home = folder();
    mkdirSync(join(home, '.config/containers'), { recursive: true });
    writeFileSync(join(home, '.config/containers/registries.conf'), `[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:${port}"\ninsecure = true\n`);
    writeFileSync(join(home, 'registry.yml'), `version: 0.1\nstorage: {filesystem: {rootdirectory: ${home}}}\nhttp: {addr: "127.0.0.1:${port}"}\n`);
    const registry = launch('docker-registry', ['serve', join(home, 'registry.yml')], { env: { PATH: process.env.PATH } });
    await ready(registry, 'the registry', () => accepts(port));
  });
  after(cleanUp);

  const read = (path) => readFileSync(join(checkout, path), 'utf8');
  // Meanwhile the registry's output must be read: it stops when the pipe is full.
  const run = promisify(execFile);
  const pin = () => run(join(checkout, 'scripts/pin_images.sh'), { env: { PATH: process.env.PATH, HOME: home } });

  /** Puts an image without content into the registry under that name, for two architectures; its digest. */
  async function publish(image, created) {
    const layout = folder();
    mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
    const blob = (mediaType, content) => {
      const bytes = JSON.stringify(content);
      const hash = createHash('sha256').update(bytes).digest('hex');
      writeFileSync(join(layout, 'blobs/sha256', hash), bytes);
      return { mediaType: `application/vnd.oci.image.${mediaType}+json`, digest: `sha256:${hash}`, size: bytes.length };
    };
    const manifests = ['amd64', 'arm64'].map((architecture) => {
      const config = blob('config.v1', { architecture, os: 'linux', created, rootfs: { type: 'layers', diff_ids: [] } });
      return { ...blob('manifest.v1', { schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: [] }), platform: { architecture, os: 'linux' } };
    });
    const list = blob('index.v1', { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests });
    writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [list] }));
    const name = image.includes('/') ? image : `library/${image}`;
    await run('skopeo', ['copy', '--all', '--insecure-policy', '--dest-tls-verify=false', `oci:${layout}`, `docker://127.0.0.1:${port}/${name}`]);
    return list.digest;
  }

  /** The files with each image pinned to its digest. */
  const pinnedFiles = (digests) => FILES.map((path) => IMAGES.reduce((text, image) => text.replaceAll(image, `${image}@${digests[image]}`), readFileSync(join(ROOT, path), 'utf8').replaceAll(/@sha256:\w+/g, '')));

  test('changes nothing where one image has no digest', async () => {
    for (const image of IMAGES.slice(1)) await publish(image, '2026-01-01T00:00:00Z');
    const unchanged = FILES.map(read);

    await assert.rejects(pin(), /rust:1\.95-alpine: its registry does not answer with a digest, so nothing is pinned/);

    assert.deepEqual(FILES.map(read), unchanged);
  });

  test('pins every image for all architectures, and later to its newer digest', async () => {
    for (const created of ['2026-01-01T00:00:00Z', '2026-02-01T00:00:00Z']) {
      const digests = Object.fromEntries(await Promise.all(IMAGES.map(async (image) => [image, await publish(image, created)])));

      await pin();

      assert.deepEqual(FILES.map(read), pinnedFiles(digests));
    }
    writeFileSync(join(checkout, '.env'), `DOMAIN=signaling.example.com\n${['SECRET_KEY', 'JWT_SECRET_KEY', 'TURNSERVER_SECRET'].map((name) => `${name}=${'0'.repeat(64)}\n`).join('')}`);
    assert.match(compose(checkout).services.nginx.image, /^nginx:1\.28@sha256:/);
  });
});
