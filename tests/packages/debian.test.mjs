// The Debian package from its installation to its end, in a minimal Debian that systemd boots.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { ask, cleanUp, Client, folder, logIn, ROOT, eventually, SUITE_TIMEOUT } from '../browser/harness.mjs';
import { Container } from './container.mjs';
import { blocks } from './deployment.mjs';

const { DEBIAN, PACKAGES } = process.env;
const URL_INSIDE = 'http://127.0.0.1:8080';
// What nginx, Caddy and HAProxy say; our address is a proxy's that is believed.
const HTTPS = { headers: { 'x-forwarded-proto': 'https' } };
const SERVICE = 'signaling-server.service';
const ENV = '/etc/signaling-server/env';
const STATE = '/var/lib/signaling-server';

describe('the Debian package', { timeout: SUITE_TIMEOUT }, () => {
  const packages = folder();
  let filesBefore;
  let debian;
  let token;

  const inside = (path) => join(DEBIAN, path);
  const read = (path) => readFileSync(inside(path), 'utf8');
  const setting = (name) => read(ENV).match(new RegExp(`^${name}=(.*)$`, 'm'))[1];
  const set = (name, value) => writeFileSync(inside(ENV), read(ENV).replace(new RegExp(`^${name}=.*$`, 'm'), `${name}=${value}`));
  const mode = (path) => {
    const { mode: bits, uid, gid } = statSync(inside(path));
    const name = (file, id) => read(file).split('\n').map((line) => line.split(':')).find((cells) => cells[2] === `${id}`)[0];
    return `${(bits & 0o777).toString(8)} ${name('/etc/passwd', uid)}:${name('/etc/group', gid)}`;
  };
  const is = (property, unit = SERVICE) => debian.property(unit, property);
  /** The newest line of the server's log that matches; it reaches the journal some time after what it tells of. */
  const logged = (pattern) => eventually(() => `the journal has ${pattern}`,
    () => debian.run('journalctl', '--unit', SERVICE, '--output', 'cat').split('\n').findLast((line) => pattern.test(line)));
  const health = () => ask('GET', URL_INSIDE, '/health').then(({ status }) => status, () => 0);
  const files = () => debian.shell("find / -xdev -path /packages -prune -o -path /tmp -prune -o -path /var/log -prune -o -path /run -prune -o -type f -print -o -type l -print | grep -vE '^/(var/lib/(dpkg|systemd)/|etc/(passwd|group|shadow|gshadow|subuid|subgid)|etc/.pwd.lock)' | sort").split('\n');
  /** Types what the page says, where sudo is not installed and nobody sits. */
  const type = (commands) => debian.shell(`set -e\ncd /\n${commands.replaceAll('sudo -u signaling ', 'runuser -u signaling -- ').replaceAll('sudo ', '')
    .replace('apt install ./target/package/signaling-server_*.deb', 'dpkg --install /packages/ours/*.deb')
    .replace('manage_users add alice', "sh -c 'echo correct horse | manage_users add --password-stdin alice'")}`);

  /** A client at the door of a room, which has said who it is. */
  async function enter(first) {
    const client = new Client(URL_INSIDE, 'den', HTTPS.headers);
    await client.receive('auth_required');
    client.send(first);
    return client;
  }

  /** The package with another version number, as it is handed to dpkg. */
  function another(version) {
    const content = join(packages, `content-${version}`);
    execFileSync('dpkg-deb', ['--raw-extract', join(packages, 'ours', readdirSync(join(packages, 'ours'))[0]), content]);
    const control = join(content, 'DEBIAN/control');
    writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, `Version: ${version}`));
    execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', content, join(packages, `${version}.deb`)], { stdio: 'pipe' });
    return `/packages/${version}.deb`;
  }

  /** Does `act` while visitors come one after the other; each of them must be answered. */
  async function underVisits(act) {
    let [going, answered] = [true, 0];
    const visits = (async () => {
      while (going) {
        const { status } = await ask('GET', URL_INSIDE, '/health');
        assert.equal(status, 200);
        answered += 1;
      }
    })();
    try { await act(); } finally { going = false; }
    await visits;
    return answered;
  }

  before(async () => {
    mkdirSync(join(packages, 'ours'));
    for (const name of readdirSync(PACKAGES).filter((file) => file.endsWith('.deb'))) cpSync(join(PACKAGES, name), join(packages, 'ours', name));
    debian = await Container.boot(DEBIAN, { [packages]: '/packages' });
    filesBefore = files();
  });
  after(cleanUp);

  test('is installed with the commands of the page, runs at once, and tells no secret', async () => {
    const [install, ...rest] = blocks('deb');
    const said = type(install);

    assert.match(said, /manage_users add alice/);
    assert.ok(!said.includes(setting('SECRET_KEY')) && !said.includes(setting('JWT_SECRET_KEY')));
    assert.deepEqual([is('ActiveState'), is('ActiveState', 'signaling-server.socket')], ['active', 'active']);
    assert.equal(await health(), 200);
    for (const commands of rest) type(commands);
    await eventually(() => 'alice is known', () => logIn(URL_INSIDE, 'alice', 'correct horse', HTTPS).then((found) => { token = found; return token; }, () => false));
  });

  test('makes secrets of its own that only root and the server can read', () => {
    const secrets = ['SECRET_KEY', 'JWT_SECRET_KEY'].map(setting);

    for (const secret of secrets) assert.match(secret, /^[0-9a-f]{64}$/);
    assert.notEqual(secrets[0], secrets[1]);
    assert.equal(mode(ENV), '640 root:signaling');
    assert.equal(mode(STATE), '750 signaling:signaling');
    assert.equal(mode(`${STATE}/users.csv`), '600 signaling:signaling');
    assert.deepEqual(readdirSync(inside('/etc/signaling-server')), ['env']);
  });

  test('has every page of the documentation, in its folders, and the one that its unit names', () => {
    const pages = readdirSync(join(ROOT, 'docs'), { recursive: true }).filter((name) => name.endsWith('.md'));
    assert.ok(pages.length > 10);
    for (const page of pages) assert.ok(existsSync(inside(`/usr/share/doc/signaling-server/docs/${page}`)), page);
    assert.ok(existsSync(inside(is('Documentation').replace('file://', ''))), is('Documentation'));
  });

  test('has man pages, and completions where each shell looks for them', () => {
    for (const program of ['signaling-server', 'manage_users']) {
      const page = `/usr/share/man/man1/${program}.1`;
      const text = existsSync(inside(`${page}.gz`)) ? gunzipSync(readFileSync(inside(`${page}.gz`))).toString() : read(page);
      assert.match(text, /^\.TH /m);
      for (const path of [`bash-completion/completions/${program}`, `zsh/vendor-completions/_${program}`, `fish/vendor_completions.d/${program}.fish`]) {
        assert.ok(read(`/usr/share/${path}`).includes(program), path);
      }
    }
  });

  test('lets alice into a room', async () => {
    const member = await enter({ type: 'auth_token', token });
    await member.receive('users_in_room');

    await logged(/"member joined"/);
    await member.close();
  });

  test('its unit is without fault, and can do next to nothing', () => {
    const verified = debian.tries('systemd-analyze', 'verify', SERVICE, 'signaling-server.socket');
    // In tenths.
    debian.run('systemd-analyze', 'security', '--threshold=15', SERVICE);
    const status = debian.run('cat', `/proc/${is('MainPID')}/status`);

    assert.equal(verified, '');
    assert.match(status, /^CapEff:\s+0+$/m);
    assert.match(status, /^CapBnd:\s+0+$/m);
    assert.match(status, /^NoNewPrivs:\s+1$/m);
    assert.match(status, /^Seccomp:\s+2$/m);
    assert.doesNotMatch(status, /^Uid:\s+0/m);
  });

  test('takes the socket of its unit, and more file descriptors than a process has by itself', async () => {
    const open = await logged(/"listening"/);

    const { file_descriptors: descriptors, is_inherited: isInherited } = JSON.parse(open).fields;
    assert.equal(isInherited, true);
    assert.ok(descriptors > 1024, `${descriptors}`);
  });

  test('a restart refuses nobody, the token goes on, and whoever resumes has kept the seat', async () => {
    const pid = is('MainPID');
    const member = await enter({ type: 'auth_token', token, clientId: 'laptop', features: ['resume'] });
    const { resume_token: ticket } = await member.receive('auth_success');
    const { seq } = await member.receive('users_in_room');
    const answered = await underVisits(async () => {
      debian.run('systemctl', 'restart', SERVICE);
      await eventually(() => 'it is back', async () => (await health()) === 200);
    });

    assert.notEqual(is('MainPID'), pid);
    assert.ok(answered > 0);
    assert.equal((await ask('GET', URL_INSIDE, '/auth/me', { token, ...HTTPS })).status, 200);
    const back = await enter({ type: 'resume', resume_token: ticket, last_seq: seq });
    assert.equal((await back.receive('resumed')).client_id, 'laptop');
    await back.close();
  });

  test('a reload reads TURN again, in the same process', async () => {
    const pid = is('MainPID');
    set('TURNSERVER_SECRET', 'a'.repeat(64));
    set('TURNSERVER_URLS', '["turn:turn.example.com:3478"]');

    debian.run('systemctl', 'reload', SERVICE);

    const servers = () => ask('GET', URL_INSIDE, '/auth/ice-servers', { token, ...HTTPS });
    await eventually(() => 'the relay is told', async () => (await servers()).text.includes('turn:turn.example.com:3478'));
    assert.equal(is('MainPID'), pid);
  });

  test('comes back by itself when settings that kept it from starting are mended, and its socket stays', async () => {
    set('WORKERS', 'many');
    debian.tries('systemctl', 'restart', SERVICE);
    const waiting = Array.from({ length: 30 }, () => net.connect(8080, '127.0.0.1').on('error', () => {}));
    await eventually(() => 'it has tried again', () => Number(is('NRestarts')) >= 2);
    await logged(/WORKERS: "many" is not accepted/);
    assert.equal(is('ActiveState', 'signaling-server.socket'), 'active');

    set('WORKERS', '0');

    await eventually(() => 'it is back', () => is('SubState') === 'running');
    assert.equal(await health(), 200);
    for (const socket of waiting) socket.destroy();
  });

  test('a backup, as the page has it, brings back settings and accounts', async () => {
    const [save, restore] = blocks('machine', 'docs/run/backup.md');
    const manage = (command) => debian.shell(`cd ${STATE} && runuser -u signaling -- ${command}`);
    manage("sh -c 'echo battery staple | manage_users add --password-stdin bob'");
    const settings = read(ENV);

    type(save);
    manage('manage_users remove bob');
    set('SECRET_KEY', 'f'.repeat(64));
    type(restore.replace(/^.* doctor$/m, ''));

    assert.equal(mode('/signaling-backup.tar'), '600 root:root');
    assert.equal(read(ENV), settings);
    assert.deepEqual([mode(ENV), mode(`${STATE}/users.csv`)], ['640 root:signaling', '600 signaling:signaling']);
    await eventually(() => 'bob is back', () => logIn(URL_INSIDE, 'bob', 'battery staple', HTTPS).then(() => true, () => false));
    manage('manage_users remove bob');
    debian.run('rm', '/signaling-backup.tar');
  });

  test('what init writes takes the place of its settings by the commands that init prints', async () => {
    debian.shell(`mkdir /root/kept /root/new && cp -a ${ENV} ${STATE}/users.csv /root/kept`);
    const said = debian.shell('cd /root/new && signaling-server init --domain signaling.test.example --turn turn.test.example');
    const [, commands] = read('/root/new/NEXT-STEPS.md').match(/## \d+\. The server\n\n```bash\n([\s\S]*?)```/);

    debian.shell(`set -e\ncd /root/new\n${commands.replaceAll('sudo ', '')}`);

    assert.ok(!existsSync(inside('/root/new/signaling-server.service')), 'the package has the unit');
    assert.deepEqual([mode(ENV), mode(`${STATE}/users.csv`)], ['640 root:signaling', '600 signaling:signaling']);
    const [, password] = said.match(/with the password (\w+)/);
    await eventually(() => 'the account logs in', () => logIn(URL_INSIDE, 'admin', password, HTTPS).then(() => true, () => false));
    debian.shell(`cp -a /root/kept/env ${ENV} && cp -a /root/kept/users.csv ${STATE} && systemctl restart ${SERVICE}`);
    await eventually(() => 'alice is back', () => logIn(URL_INSIDE, 'alice', 'correct horse', HTTPS).then((found) => { token = found; return token; }, () => false));
    debian.run('rm', '-r', '/root/kept', '/root/new');
  });

  test('an upgrade keeps settings and users, refuses nobody, and starts the new one', async () => {
    const [env, users, pid] = [read(ENV), read(`${STATE}/users.csv`), is('MainPID')];
    const file = another('99.1');

    await underVisits(async () => {
      debian.run('dpkg', '--install', file);
      await eventually(() => 'it is back', async () => (await health()) === 200);
    });

    assert.deepEqual([read(ENV), read(`${STATE}/users.csv`)], [env, users]);
    assert.notEqual(is('MainPID'), pid);
    assert.equal((await ask('GET', URL_INSIDE, '/auth/me', { token, ...HTTPS })).status, 200);
    assert.equal(debian.run('dpkg', '--verify', 'signaling-server'), '');
  });

  test('an upgrade leaves what was stopped and disabled as it is', async () => {
    debian.run('systemctl', 'disable', '--now', SERVICE, 'signaling-server.socket');
    const file = another('99.2');

    debian.run('dpkg', '--install', file);

    assert.deepEqual([is('ActiveState'), is('UnitFileState'), is('UnitFileState', 'signaling-server.socket')], ['inactive', 'disabled', 'disabled']);
    debian.run('systemctl', 'enable', '--now', 'signaling-server.socket', SERVICE);
    assert.equal(await health(), 200);
  });

  test('removed, it leaves settings and users alone; installed again, it goes on with them', async () => {
    const [env, users] = [read(ENV), read(`${STATE}/users.csv`)];

    debian.run('dpkg', '--remove', 'signaling-server');
    assert.equal(await health(), 0);
    assert.deepEqual([read(ENV), read(`${STATE}/users.csv`)], [env, users]);

    debian.shell('dpkg --install /packages/ours/*.deb');
    await eventually(() => 'alice is known', () => logIn(URL_INSIDE, 'alice', 'correct horse', HTTPS).catch(() => false));
  });

  test('purged, it leaves nothing but its account', async () => {
    debian.run('dpkg', '--purge', 'signaling-server');

    assert.deepEqual(files().filter((file) => !filesBefore.includes(file)), []);
    assert.ok(!existsSync(inside(STATE)) && !existsSync(inside('/etc/signaling-server')));
    assert.match(read('/etc/passwd'), /^signaling:.*nologin$/m);
    assert.equal(await health(), 0);
  });
});
