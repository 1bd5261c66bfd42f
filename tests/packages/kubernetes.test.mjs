// deploy/kubernetes.yaml, as far as it goes without a cluster.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ask, cleanUp, folder, launch, waitUntilListening, ROOT, SUITE_TIMEOUT } from '../browser/harness.mjs';
import { blocks } from './deployment.mjs';

const { PACKAGES } = process.env;
const MANIFEST = join(ROOT, 'deploy/kubernetes.yaml');
const python = (script, input) => execFileSync('/usr/bin/python3', ['-c', script], { input, encoding: 'utf8', stdio: 'pipe' });

describe('the manifest', { timeout: SUITE_TIMEOUT }, () => {
  const resources = JSON.parse(python('import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))', readFileSync(MANIFEST)));
  const kind = (name) => resources.find((resource) => resource.kind === name);
  const pod = kind('Deployment').spec.template.spec;
  const [container] = pod.containers;
  let home; // where the page's commands were typed

  before(() => {
    home = folder();
    mkdirSync(join(home, 'target'));
    cpSync(PACKAGES, join(home, 'target/package'), { recursive: true });
    const typed = blocks('kubernetes').join('').replace('add alice', 'add --password-stdin alice <<< "correct horse"');
    execFileSync('bash', ['-e'], { input: typed, cwd: home, stdio: 'pipe' });
  });
  after(cleanUp);

  for (const version of ['1.30', '1.37']) {
    test(`fits the schemas of Kubernetes ${version}, and one that is wrong does not`, () => {
      const validate = (text) => python(`import sys, yaml, kubernetes_validate as k
for resource in yaml.safe_load_all(sys.stdin): k.validate(resource, "${version}", strict=True)`, text);
      const manifest = readFileSync(MANIFEST, 'utf8');

      validate(manifest);
      assert.throws(() => validate(manifest.replace('sleep: {', 'slumber: {')), /slumber/);
    });
  }

  test('has no secret in it, and names what the page makes', () => {
    assert.equal(kind('Secret'), undefined);
    const page = blocks('kubectl').join('');
    for (const name of [container.envFrom[1].secretRef.name, pod.volumes[1].secret.secretName]) assert.ok(page.includes(` ${name} `), name);
  });

  test('selects its own pods, by a port that they have', () => {
    const labels = kind('Deployment').spec.template.metadata.labels;

    assert.deepEqual(kind('Service').spec.selector, labels);
    assert.deepEqual(kind('Deployment').spec.selector.matchLabels, labels);
    assert.deepEqual(kind('PodDisruptionBudget').spec.selector.matchLabels, labels);
    assert.equal(kind('Service').spec.ports[0].targetPort, container.ports[0].name);
    assert.equal(kind('Ingress').spec.rules[0].http.paths[0].backend.service.name, kind('Service').metadata.name);
    assert.equal(`${container.ports[0].containerPort}`, kind('ConfigMap').data.PORT);
  });

  test('gives the server longer to end than it takes', () => {
    const grace = Number(readFileSync(join(ROOT, 'env.example'), 'utf8').match(/^SHUTDOWN_GRACE_SECONDS=(\d+)$/m)[1]);

    assert.ok(pod.terminationGracePeriodSeconds > container.lifecycle.preStop.sleep.seconds + grace);
  });

  test('has settings with which the server starts, as another user than root, and answers its probes', async () => {
    const secrets = Object.fromEntries(readFileSync(join(home, 'settings.env'), 'utf8').trim().split('\n').map((line) => line.split(/=(.*)/s, 2)));
    const root = folder();
    mkdirSync(join(root, 'data'));
    cpSync(join(PACKAGES, 'signaling-server'), join(root, 'signaling-server'));
    cpSync(join(home, 'users.csv'), join(root, 'data/users.csv'));
    const { runAsUser, fsGroup } = pod.securityContext;
    execFileSync('chown', ['-R', `${runAsUser}:${fsGroup}`, join(root, 'data')]);
    execFileSync('chmod', ['755', root]);
    // No Redis here, and so it says that it takes no newcomers.
    const env = { PATH: process.env.PATH, ...kind('ConfigMap').data, ...secrets, REDIS_URL: 'redis://127.0.0.1:1', NODE_ID: 'signaling-5d9c7b9c4-x2x7q' };

    const child = launch('chroot', [`--userspec=${runAsUser}:${fsGroup}`, root, '/signaling-server'], { env });
    const url = `http://${await waitUntilListening(child)}`.replace('0.0.0.0', '127.0.0.1');

    assert.equal(url, `http://127.0.0.1:${container.ports[0].containerPort}`);
    assert.equal((await ask('GET', url, container.livenessProbe.httpGet.path)).status, 200);
    assert.equal((await ask('GET', url, container.startupProbe.httpGet.path)).status, 200);
    assert.equal((await ask('GET', url, container.readinessProbe.httpGet.path)).status, 503);
  });
});
