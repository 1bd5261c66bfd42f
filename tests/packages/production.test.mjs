// From a fresh Debian with nothing but the package to a call through TURN. Every command comes from README.md, from the list that
// `init` writes, or from docs/run/certificates.md. Started by `production`, which lays the network.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { openBrowser } from '../browser/browser.mjs';
import { accepts, ask, certificate, cleanUp, eventually, folder, launch, ready, ROOT, SUITE_TIMEOUT } from '../browser/harness.mjs';
import { blocksOf } from '../browser/terminal.mjs';
import { Container } from './container.mjs';
import { blocks } from './deployment.mjs';

const { ADDRESS, DEBIAN, PACKAGES } = process.env;
const [DOMAIN, TURN_DOMAIN] = ['signaling.example.com', 'turn.example.com'];
const SITE = `https://${DOMAIN}`;

/** In the page: joins the room with a camera, through the TURN URLs that begin with `scheme` alone. */
async function enter({ url, username, password, room, scheme }) {
  const { connect, signIn } = await import(`${url}/client/signaling.js`);
  const relayed = ({ iceServers, ...rest }) => ({
    ...rest,
    iceTransportPolicy: 'relay',
    iceServers: iceServers.map((server) => ({ ...server, urls: [server.urls].flat().filter((it) => it.startsWith(scheme)) })).filter(({ urls }) => urls.length),
  });
  class RelayedConnection extends RTCPeerConnection {
    constructor(configuration) { super(relayed(configuration)); }
    setConfiguration(configuration) { super.setConfiguration(relayed(configuration)); }
  }
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 } });
  const call = window.call = { errors: [] };
  call.session = await connect({ url, room, getToken: signIn({ url, username, password }), RTCPeerConnection: RelayedConnection });
  call.session.on('error', ({ error }) => call.errors.push(`${error.code} ${error.message}`));
  call.session.publish(camera);
}

/** In the page: how many pictures have come, over what, and what went wrong. */
async function status() {
  const { session, errors } = window.call;
  const [peer] = session.peers.values();
  const seen = { errors, pictures: 0, over: new Set() };
  (await peer?.connection.getStats())?.forEach(({ type, framesDecoded, candidateType, relayProtocol }) => {
    if (type === 'inbound-rtp') seen.pictures += framesDecoded ?? 0;
    if (type === 'local-candidate' && candidateType === 'relay') seen.over.add(relayProtocol);
  });
  return { ...seen, over: [...seen.over].sort(), path: (await peer?.stats())?.path };
}

// What the suite may take is what the whole way may take: ten minutes.
describe('from a fresh Debian to production', { timeout: SUITE_TIMEOUT }, () => {
  let authority;
  let browser;
  let debian;
  let password;
  const call = [];

  const inside = (path) => join(DEBIAN, path);

  /** Types commands as a person does who is root: they go on where those before have left off. */
  function type(commands) {
    try {
      return debian.shell(`exec 2>&1\nset -e\nexport HOME=/root\ncd "$(cat /run/folder)"\n${commands}\npwd > /run/folder`);
    } catch (error) {
      throw new Error(`${error.stdout}\nfailed among:\n${commands}`);
    }
  }

  /** A public authority: one that the new machine can reach and, as everybody, trusts. */
  async function startAuthority() {
    const { folder: pem } = certificate();
    const home = folder();
    const listener = { listenAddress: '127.0.0.1:14000', managementListenAddress: '127.0.0.1:15000' };
    writeFileSync(join(home, 'pebble.json'), JSON.stringify({
      pebble: { ...listener, certificate: join(pem, 'fullchain.pem'), privateKey: join(pem, 'privkey.pem'), httpPort: 80, tlsPort: 443 },
    }));
    const pebble = launch('sh', ['-c', 'exec pebble -config "$1/pebble.json" > "$1/log" 2>&1', 'sh', home], { env: { PATH: process.env.PATH, PEBBLE_VA_NOSLEEP: '1' } });
    await ready(pebble, 'pebble', async () => (await accepts(14000)) && (await accepts(15000)));
    const [root, issuer] = await Promise.all(['roots', 'intermediates'].map(async (kind) => (await ask('GET', 'https://localhost:15000', `/${kind}/0`)).text));
    const key = new X509Certificate(issuer).publicKey.export({ type: 'spki', format: 'der' });
    return { root, hash: createHash('sha256').update(key).digest('base64'), log: () => readFileSync(join(home, 'log'), 'utf8') };
  }

  /** The serial number of the certificate on a port; an error if it is not the authority's for that name. */
  const serial = (name, port) => new Promise((done, fail) => {
    const socket = tls.connect({ host: ADDRESS, port, servername: name, ca: authority.root }, () => {
      done(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    }).once('error', fail);
  });
  const serials = () => Promise.all([serial(DOMAIN, 443), serial(TURN_DOMAIN, 5349)]);
  const processes = () => ['nginx.service', 'coturn.service'].map((unit) => debian.property(unit, 'MainPID'));

  /** A call of two, through the TURN URLs with that scheme. */
  async function startCall(room, scheme) {
    return Promise.all([1, 2].map(async () => {
      const page = await browser.page();
      await page.route(`${SITE}/call`, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>Call</title>' }));
      await page.goto(`${SITE}/call`);
      await page.evaluate(enter, { url: SITE, username: 'admin', password, room, scheme });
      return page;
    }));
  }

  /** Waits for more pictures than `least` of the other, while the page has relayed addresses over all these transports. */
  async function seesOther(page, least, over) {
    let last;
    await eventually(() => `pictures come through TURN over ${over}: ${JSON.stringify(last)}`, async () => {
      last = await page.evaluate(status);
      return last.path === 'relay' && last.pictures > least && `${last.over}` === `${over}`;
    });
    assert.deepEqual(last.errors, []);
  }

  before(async () => {
    authority = await startAuthority();
    const trusted = inside('usr/local/share/ca-certificates');
    writeFileSync(join(trusted, 'authority.crt'), authority.root);
    writeFileSync(join(trusted, 'authority-site.crt'), certificate().ca);
    copyFileSync('/etc/hosts', inside('etc/hosts'));
    // What a person answers to apt and to certbot, which at a terminal does not sleep before it renews.
    writeFileSync(inside('etc/apt/apt.conf.d/answers'), 'APT::Get::Assume-Yes "true";\n');
    mkdirSync(inside('root/.config/letsencrypt'), { recursive: true });
    writeFileSync(inside('root/.config/letsencrypt/cli.ini'), 'server = https://localhost:14000/dir\nagree-tos = true\nregister-unsafely-without-email = true\nnon-interactive = true\nno-random-sleep-on-renew = true\n');
    const [package_] = readdirSync(PACKAGES).filter((file) => file.endsWith('.deb'));
    copyFileSync(join(PACKAGES, package_), inside(`root/${package_}`));
    debian = await Container.boot(DEBIAN);
    debian.shell('update-ca-certificates 2>&1 && echo /root > /run/folder');
    browser = await openBrowser({ trusted: [authority.hash], hosts: { [DOMAIN]: ADDRESS, [TURN_DOMAIN]: ADDRESS } });
  });
  after(async () => {
    await browser?.close();
    await cleanUp();
  });

  test('README installs the package, and init writes the files and an account', () => {
    const said = type(blocks('machine', 'README.md').join(''));

    [, password] = said.match(/account admin with the password (\w+)/);
    assert.match(said, /## 1\. DNS/);
  });

  test('every command that init lists works, in that order, and the last ones find no fault', () => {
    const steps = blocksOf(readFileSync(inside('root/signaling/NEXT-STEPS.md'), 'utf8'));
    assert.ok(steps.length >= 5);

    const said = steps.map(({ commands }) => type(commands));

    assert.match(said.at(-1), /"status":"healthy"/, said.at(-1));
    assert.doesNotMatch(said.at(-1), /^FAULT/m);
  });

  test('the page about certificates has the commands of init', () => {
    const steps = readFileSync(inside('root/signaling/NEXT-STEPS.md'), 'utf8').split('\n');
    const commands = blocks('machine', 'docs/run/certificates.md').slice(0, 4).join('').trim().split('\n');

    assert.deepEqual(commands.filter((command) => !steps.includes(command)), []);
  });

  test('the page about ports has the commands of init', () => {
    const steps = readFileSync(inside('root/signaling/NEXT-STEPS.md'), 'utf8').split('\n');
    const commands = blocks('machine', 'docs/run/ports-and-firewall.md').join('').trim().split('\n');

    assert.deepEqual(commands.filter((command) => !steps.includes(command)), []);
  });

  test('the commands of the runbook for a bad night find no fault', () => {
    const said = type(blocks('machine', 'docs/run/runbook.md').join(''));

    assert.doesNotMatch(said, /^FAULT/m);
    assert.match(said, /"listening"/);
  });

  test('the commands of an upgrade accept the settings of init without a warning', () => {
    const [install, check] = blocks('machine', 'docs/run/upgrade.md');

    type(`cd /root\n${install}`);

    assert.equal(type(check), '');
  });

  test('two browsers call each other through TURN', async () => {
    call.push(...await startCall('first', 'turn:'));

    for (const page of call) await seesOther(page, 5, ['tcp', 'udp']);
  });

  test('a dry run changes nothing, and a renewal reaches nginx and coturn without a restart and without an end of the call', async () => {
    const [dryRun, renewal] = blocks('machine', 'docs/run/certificates.md').slice(4);
    const [before, running] = [await serials(), processes()];

    type(dryRun);
    assert.deepEqual(await serials(), before);
    type(renewal);

    let now;
    await eventually(() => `both serve a new certificate, not ${before} and ${now}`, async () => {
      now = await serials();
      return now.every((it, index) => it !== before[index]);
    });
    assert.deepEqual(processes(), running);
    for (const page of call) {
      const { pictures } = await page.evaluate(status);
      await seesOther(page, pictures + 5, ['tcp', 'udp']);
    }
  });

  test('the renewed certificate of coturn carries a call through TLS', async () => {
    for (const page of await startCall('second', 'turns:')) await seesOther(page, 5, ['tls']);
    browser.assertQuiet();
  });

  test('with the settings of init the server warns of nothing but TURN servers, before coturn runs', () => {
    const lines = debian.run('journalctl', `_SYSTEMD_INVOCATION_ID=${debian.property('signaling-server.service', 'InvocationID')}`, '--output', 'cat').trim().split('\n');
    const warnings = lines.map((line) => JSON.parse(line)).filter(({ level }) => level !== 'INFO').map(({ fields }) => fields.message);

    assert.ok(lines.length > 5, `${lines}`);
    assert.deepEqual(warnings.filter((message) => !message.startsWith('TURN server does not work')), []);
  });
});
