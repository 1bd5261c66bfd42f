// The book: every command in it is typed here, in bash, or by the test that is named below, or cannot be, for the reason that
// stands below. And every link in it leads somewhere.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { openBrowser } from './browser.mjs';
import {
  cleanUp, Client, folder, freePort, HAPROXY_FOR_ONE, launch, logIn, MANAGE_USERS, PASSWORDS, ROOT, startServer, eventually, SUITE_TIMEOUT,
} from './harness.mjs';
import { blocksOf, fits, Terminal } from './terminal.mjs';

const SERVER = join(dirname(MANAGE_USERS), 'signaling-server');
const text = (path) => readFileSync(join(ROOT, path), 'utf8');
const pagesIn = (path, options) => readdirSync(join(ROOT, path), options).filter((name) => name.endsWith('.md')).map((name) => join(path, name));
const DOCS = pagesIn('docs', { recursive: true });

const PAGES = [...pagesIn('.'), ...DOCS, ...['js', 'python', 'rust'].flatMap((client) => pagesIn(`clients/${client}`))];
const ALL = PAGES.flatMap((page) => blocksOf(text(page)).map((block) => ({ page, ...block })));
const COMMANDS = ALL.filter(({ kind }) => /^(bash|sh|shell|console)\b/.test(kind));

/**
 * Blocks that are not typed here: those of a page (and a kind, a section, with that beginning), and who types them (a file, and
 * words in it that say so) or why nobody does.
 */
const ELSEWHERE = [
  { page: 'README.md', begins: './start_dev.sh', why: 'they build, and the second one is what runs this' },
  { page: 'README.md', kind: 'bash machine', by: 'tests/packages/production.test.mjs', says: "blocks('machine', 'README.md')" },
  { page: 'docs/run/backup.md', kind: 'bash machine', by: 'tests/packages/debian.test.mjs', says: "blocks('machine', 'docs/run/backup.md')" },
  { page: 'docs/run/certificates.md', kind: 'bash machine', by: 'tests/packages/production.test.mjs', says: "blocks('machine', 'docs/run/certificates.md')" },
  { page: 'docs/run/ports-and-firewall.md', kind: 'bash machine', by: 'tests/packages/production.test.mjs', says: "blocks('machine', 'docs/run/ports-and-firewall.md')" },
  { page: 'docs/run/runbook.md', kind: 'bash machine', by: 'tests/packages/production.test.mjs', says: "blocks('machine', 'docs/run/runbook.md')" },
  { page: 'docs/run/upgrade.md', kind: 'bash machine', by: 'tests/packages/production.test.mjs', says: "blocks('machine', 'docs/run/upgrade.md')" },
  { page: 'docs/run/deployment.md', begins: 'sudo apt-get install coturn', why: 'it sets up a machine as a relay; turn.test.mjs runs coturn with that file' },
  { page: 'docs/run/deployment.md', begins: 'cp env.example .env', why: 'it sets up a machine for production; proxies.test.mjs runs nginx with that file' },
  { page: 'clients/python/README.md', begins: 'pip install', why: 'it takes websockets from PyPI' },
  { page: 'clients/python/README.md', begins: 'PYTHONPATH=.', by: 'tests/browser/bots.test.mjs', says: 'clients/python/examples/echo_bot.py' },
  { page: 'clients/rust/README.md', begins: 'cargo run -p signaling-client --example echo_bot', by: 'tests/browser/bots.test.mjs', says: 'examples/echo_bot' },
  { page: 'docs/build/your-own-users.md', kind: 'bash', by: 'tests/it/own_users.rs', says: 'run_commands' },
  { page: 'docs/start/getting-started.md', kind: 'bash build', why: 'it installs packages, and builds for minutes' },
  { page: 'docs/inside/performance.md', begins: 'cargo build --release --workspace', why: 'it takes minutes and an idle machine; test.sh runs the bench briefly' },
  { page: 'docs/run/deployment.md', kind: 'bash build', by: 'test.sh', says: 'scripts/package.sh' },
  { page: 'docs/run/deployment.md', kind: 'bash deb', by: 'tests/packages/debian.test.mjs', says: "blocks('deb')" },
  { page: 'docs/run/deployment.md', kind: 'bash haproxy', begins: HAPROXY_FOR_ONE, by: 'tests/browser/harness.mjs', says: '${HAPROXY_FOR_ONE} deploy/haproxy.cfg' },
  { page: 'docs/run/deployment.md', kind: 'bash compose', by: 'tests/browser/compose.test.mjs', says: "blocks('compose')" },
  { page: 'docs/run/deployment.md', kind: 'bash docker', why: 'there is no Docker' },
  { page: 'docs/run/deployment.md', kind: 'bash kubernetes', by: 'tests/packages/kubernetes.test.mjs', says: "blocks('kubernetes')" },
  { page: 'docs/run/deployment.md', kind: 'bash kubectl', why: 'there is no Kubernetes; kubernetes.test.mjs looks at the names in them' },
  { page: 'docs/run/proxies.md', begins: 'signaling-server doctor --url', by: 'tests/browser/proxies.test.mjs', says: "'--url', url" },
  { page: 'docs/run/three-nodes.md', kind: 'bash install', why: 'it installs packages; cluster.test.mjs compares them with those of test.sh' },
  { page: 'docs/run/three-nodes.md', kind: 'bash', section: /^([1-9]|10)\. /, by: 'tests/browser/cluster.test.mjs', says: '/^([1-9]|10)\\. /' },
  { page: 'docs/run/three-nodes.md', kind: 'bash look', section: /^([1-9]|10)\. /, by: 'tests/browser/cluster.test.mjs', says: '/^([1-9]|10)\\. /' },
  { page: 'docs/run/three-nodes.md', kind: 'bash', section: /^11\. /, by: 'tests/browser/cluster.test.mjs', says: "reader.follows('11.')" },
  { page: 'docs/run/three-nodes.md', kind: 'bash compose', by: 'tests/browser/cluster.test.mjs', says: 'compose' },
  { page: 'docs/run/three-nodes.md', kind: 'bash docker', why: 'there is no Docker' },
];

const isOf = (entry, block) => entry.page === block.page && (entry.kind ?? block.kind) === block.kind
  && (entry.section?.test(block.section) ?? true) && block.commands.startsWith(entry.begins ?? '');

/** The blocks of a page that are typed here. */
const ours = (page) => COMMANDS.filter((block) => block.page === page && !ELSEWHERE.some((entry) => isOf(entry, block)));

/** The commands in the sentences of a page that begin so. */
const inSentences = (page, begins) => [...text(page).matchAll(/`([^`\n]+)`/g)].map(([, code]) => code).filter((code) => code.startsWith(begins));

/** What is typed in place of a question that a terminal would be asked. */
const ANSWERED = [
  [/manage_users (add|passwd) (\w+)(?=\s)/g, "manage_users $1 --password-stdin $2 <<< 'correct horse'"],
];

const terminals = [];

/** A terminal with our binaries, in a home. */
function opens(home, options) {
  const env = { PATH: `${dirname(MANAGE_USERS)}:${process.env.PATH}`, HOME: home, LANG: 'C.UTF-8', NO_PROXY: '*' };
  const terminal = new Terminal({ cwd: home, env, ...options });
  terminals.push(terminal);
  return { env, terminal };
}

/** Somebody at a page, who has a home, and types its commands in order. */
class Reader {
  /** `others` are pairs of what stands in the page, which must be there, and what is typed instead. */
  constructor(page, others = []) {
    this.blocks = ours(page);
    this.page = page;
    this.others = others;
    this.home = folder();
    // An answer that is an error is an error.
    writeFileSync(join(this.home, '.curlrc'), 'fail\nshow-error\n');
    const all = this.blocks.map(({ commands }) => commands).join('');
    for (const [written] of others) assert.ok(all.includes(written), `${page} has no ${written}`);
    Object.assign(this, opens(this.home, { translate: (commands) => this.translate(commands) }));
  }

  /** From now on only the programs of this folder and the system's are found, in every terminal. */
  hasPrograms(folderOfPrograms) {
    const env = { ...this.env, PATH: `${folderOfPrograms}:/usr/local/bin:/usr/bin:/bin` };
    const terminal = new Terminal({ cwd: this.home, env, translate: (commands) => this.translate(commands) });
    terminals.push(terminal);
    Object.assign(this, { env, terminal });
  }

  translate(commands) {
    const moved = this.others.reduce((done, [written, typed]) => done.replaceAll(written, typed), commands);
    return ANSWERED.reduce((done, [asked, answered]) => done.replaceAll(asked, answered), moved);
  }

  /** Types the next block: what it prints. It must not fail, and show what stands below it. */
  async types(begins) {
    const block = this.blocks.shift();
    assert.ok(block?.commands.startsWith(begins), `the next block of ${this.page} does not begin with "${begins}" but:\n${block?.commands}`);
    const place = `${this.page}:${block.line}`;
    const { output, failed } = await this.terminal.type(`set -o pipefail\n${block.commands}`);
    assert.equal(failed, 0, `${place}: a command fails with ${failed}:\n${output}${this.terminal.complaints}`);
    if (block.shows) assert.ok(fits(output, block.shows), `${place} shows\n${output}and not\n${block.shows}`);
    return output;
  }

  /** Starts what the next block, of kind "bash server", starts in a terminal of its own, and waits until it answers. */
  async starts(begins, url, cwd) {
    const block = this.blocks.shift();
    assert.ok(block?.kind === 'bash server' && block.commands.startsWith(begins), `${this.page}: ${block?.commands}`);
    return this.serve(block.commands, url, cwd);
  }

  async serve(commands, url, cwd) {
    // So that it is the process that ends when we end it.
    const typed = this.translate(commands).replace(/^(.*)(signaling-server|python3)/m, '$1exec $2');
    const child = launch('bash', ['-c', typed], { cwd, env: this.env });
    await eventually(() => `${url} answers; it said ${child.output}`, () => fetch(url).then(() => true, () => {
      if (child.gone) throw new Error(`it has ended: ${child.output}`);
      return false;
    }));
    return child;
  }

  /** Nothing of the page is left to type. */
  ends() {
    assert.deepEqual(this.blocks.map(({ line }) => line), [], `blocks of ${this.page} that nobody has typed`);
  }
}

const secret = () => randomBytes(32).toString('hex');
const env = (settings) => Object.entries(settings).map(([name, value]) => `${name}=${value}\n`).join('');

describe('the book', { timeout: SUITE_TIMEOUT, concurrency: 3 }, () => {
  let browser;

  before(async () => { browser = await openBrowser(); });
  after(async () => {
    for (const terminal of terminals) terminal.end('SIGTERM');
    await browser?.close();
    await cleanUp();
  });

  test('has all its commands typed, here or elsewhere, or says why not', () => {
    const typedHere = new Set(STORIES.map(({ page }) => page));
    for (const block of COMMANDS) {
      const place = `${block.page}:${block.line}`;
      const entries = ELSEWHERE.filter((entry) => isOf(entry, block));
      assert.ok(entries.length < 2, `${place} is named twice`);
      assert.ok(entries.length === 1 || typedHere.has(block.page), `${place} is neither typed nor named:\n${block.commands}`);
    }
    for (const entry of ELSEWHERE) {
      assert.ok(COMMANDS.some((block) => isOf(entry, block)), `no such block any more: ${JSON.stringify(entry)}`);
      assert.ok(entry.by ? text(entry.by).includes(entry.says) : entry.why, `${entry.by} does not say ${entry.says}`);
    }
  });

  test('has no commands in blocks that do not say so', () => {
    const known = /^(bash( (look|server|call|build|deb|haproxy|compose|docker|kubernetes|kubectl|install|machine))?|text|ini|js|ts|html|rust|python|php|go|ruby|java|yaml|json( \w+)?|(python|javascript|go|java|csharp|c|ruby|perl) [\w-]+|)$/;
    const looksTyped = /^\s*(\$ |sudo |curl |cargo |npm |docker |signaling-server |manage_users )/m;

    for (const { page, line, kind, commands } of ALL) {
      assert.match(kind, known, `${page}:${line}`);
      if (!kind.startsWith('bash')) assert.doesNotMatch(commands, looksTyped, `${page}:${line}`);
    }
  });

  test('names no command in its sentences that there is not', () => {
    const helpOf = (...words) => execFileSync(words[0] === 'manage_users' ? MANAGE_USERS : SERVER, [...words.slice(1), '--help'], { cwd: folder(), encoding: 'utf8' });
    const listed = (help) => [...help.matchAll(/^ {2}([\w-]+) {2}/gm)].map(([, word]) => word);
    const options = (help) => [...help.matchAll(/^ {2,6}(?:-\w, )?(--[\w-]+)/gm)].map(([, option]) => option);
    const help = helpOf('signaling-server');
    const known = {
      'signaling-server': [...listed(help), ...options(help)],
      'signaling-server admin': listed(helpOf('signaling-server', 'admin')),
      manage_users: listed(helpOf('manage_users')),
    };
    let seen = 0;

    for (const page of PAGES) {
      for (const [span, program, word] of text(page).matchAll(/`(signaling-server admin|signaling-server|manage_users) ([\w-]+)[^`]*`/g)) {
        assert.ok(known[program].includes(word) || `${program} ${word}` in known, `${page}: ${span}`);
        seen += 1;
      }
    }
    assert.ok(seen > 20, `${seen}`);
  });

  test('has a table of contents with every page of it', () => {
    const contents = links('docs/README.md').map(({ path }) => path);

    for (const page of DOCS.filter((path) => path !== 'docs/README.md')) assert.ok(contents.includes(page), page);
    assert.ok(contents.includes('SECURITY.md') && links('README.md').some(({ path }) => path === 'docs/README.md'));
  });

  test('has no link to a file or a heading that is not there', () => {
    const dead = PAGES.flatMap((page) => links(page).filter(({ path, heading }) => (
      !existsSync(join(ROOT, path)) || (heading && !headings(path).includes(heading))))
      .map(({ target }) => `${page}: ${target}`));

    assert.deepEqual(dead, []);
  });

  test('names settings that there are where it shows pieces of .env, and they are accepted', async () => {
    const known = new Set([...text('env.example').matchAll(/^(\w+)=/gm)].map(([, name]) => name));
    const pieces = ALL.filter(({ kind }) => kind === 'ini');

    for (const { page, line, commands } of pieces) {
      const home = folder();
      for (const [, name] of commands.matchAll(/^(\w+)=/gm)) assert.ok(known.has(name), `${page}:${line}: ${name}`);
      const settings = commands.replaceAll(/<[^>]*>/g, secret());
      writeFileSync(join(home, '.env'), env({ SECRET_KEY: secret(), JWT_SECRET_KEY: secret() }) + settings, { mode: 0o600 });
      const { terminal } = opens(home);
      const { failed } = await terminal.type('manage_users add alice:correct-horse 2>&1 && signaling-server --check-config');
      assert.equal(failed, 0, `${page}:${line}: ${terminal.complaints}`);
    }
    assert.ok(pieces.length > 1);
  });

  const STORIES = [
    { page: 'docs/build/rest.md', async run() {
      const server = await startServer({ DEBUG: 'true', USERS_CSV: 'demo.csv' });
      const reader = new Reader('docs/build/rest.md', [['localhost:8080', `localhost:${server.port}`]]);

      const answers = await reader.types('TOKEN=');

      for (const word of ['"username":"user1"', '"iceServers"', '"rooms"', '"healthy"']) assert.ok(answers.includes(word), answers);
      const [upgrade] = inSentences('docs/run/operations.md', 'curl -i');
      const { output } = await reader.terminal.type(upgrade.replace('https://…/ws/room', `${server.url}/ws/room`));
      assert.match(output, /^HTTP\/1.1 101 /);
      assert.match(await reader.types('curl -si'), /^x-total-count: 0/i);
      reader.ends();
    } },
    { page: 'docs/reference/command-line.md', async run() {
      const reader = new Reader('docs/reference/command-line.md');

      await reader.types('manage_users add alice');

      assert.match(readFileSync(join(reader.home, 'users.csv'), 'utf8'), /^alice,.*,True$/m);
      assert.doesNotMatch(readFileSync(join(reader.home, 'users.csv'), 'utf8'), /bob/);
      reader.ends();
    } },
    { page: 'docs/start/getting-started.md', async run() {
      const [port, pagePort] = [await freePort(), await freePort()];
      const reader = new Reader('docs/start/getting-started.md', [['8080', port], ['8090', pagePort]]);
      // Each terminal has what a person's has: the system's programs, and those that the page has installed.
      const install = COMMANDS.find(({ page, kind }) => page === 'docs/start/getting-started.md' && kind === 'bash build').commands.match(/^sudo (install .*)$/m)[1];
      const installed = join(folder(), 'bin');
      mkdirSync(installed);
      execFileSync('sh', ['-c', install.replaceAll('target/release/', `${dirname(MANAGE_USERS)}/`).replace('/usr/local/bin/', `${installed}/`)]);
      reader.hasPrograms(installed);
      await reader.types('signaling-server --version');
      await reader.types('mkdir signaling');
      await reader.starts('cd signaling\nsignaling-server\n', `http://127.0.0.1:${port}/health`, reader.home);
      await reader.types('signaling-server healthcheck');
      await reader.types('TOKEN=');
      await reader.types('mkdir page');
      await reader.starts('cd signaling\npython3', `http://127.0.0.1:${pagePort}`, reader.home);
      for (const [name, password] of Object.entries(PASSWORDS)) await joinsOnPage(await browser.page(`http://localhost:${pagePort}`), name, password);
      for (const page of browserPages) await eventually(() => 'both pictures move', () => page.evaluate(() => (
        [...document.querySelectorAll('video')].filter((video) => video.videoWidth > 0 && video.currentTime > 0.2).length === 2)));
      await reader.types('signaling-server admin room standup');
      await reader.types('signaling-server --check-config');

      browser.assertQuiet();
      reader.ends();
    } },
    { page: 'docs/start/moving-over.md', async run() {
      const port = await freePort();
      const reader = new Reader('docs/start/moving-over.md', [['8001', port]]);
      const old = join(reader.home, 'webrtc-server');
      mkdirSync(old);
      copyFileSync(join(ROOT, 'tests/fixtures/fastapi_users.csv'), join(old, 'users.csv'));
      // As its README has it.
      writeFileSync(join(old, '.env'), `HOST=0.0.0.0
PORT=8000
DEBUG=false
REQUIRE_HTTPS=true

# Allow all origins for flexible client access
CORS_ORIGINS=["*"]
CORS_ALLOW_CREDENTIALS=true

SECRET_KEY=${secret()}
JWT_SECRET_KEY=${secret()}
LOG_LEVEL=INFO
RATE_LIMIT_PER_MINUTE=60

# TURN Server Configuration
TURNSERVER_SECRET=your-shared-secret-here
TURNSERVER_URLS=["turn:127.0.0.1:9", "turns:127.0.0.1:9"]
TURNSERVER_TTL=86400
`);
      // Who has used it has passwords of his own, but for the administrator.
      const before = await reader.terminal.type(`for user in user1 user2; do manage_users passwd --password-stdin $user <<< 'as before'; done`.replaceAll('manage_users', `USERS_CSV="${old}/users.csv" manage_users`));
      assert.equal(before.failed, 0, reader.terminal.complaints);
      const untouched = readFileSync(join(old, 'users.csv'), 'utf8');

      await reader.types('OLD=');
      await reader.types('signaling-server --check-config || ');
      assert.match(reader.terminal.complaints, /user "admin" still has the published default password/);
      await reader.types('manage_users passwd admin');
      await reader.starts('cd ~/signaling', `http://127.0.0.1:${port}/health`, reader.home);
      await reader.types('curl');

      assert.equal(readFileSync(join(old, 'users.csv'), 'utf8'), untouched);
      reader.ends();
    } },
    { page: 'docs/run/operations.md', async run() {
      const port = await freePort();
      const clock = await startServer();
      const reader = new Reader('docs/run/operations.md', [['localhost:8080', `localhost:${port}`], ['https://example.com', clock.url]]);
      const url = `http://127.0.0.1:${port}`;
      const settings = { HOST: '127.0.0.1', PORT: port, SECRET_KEY: secret(), JWT_SECRET_KEY: secret(), ADMIN_TOKEN: secret(), REQUIRE_HTTPS: 'false' };
      writeFileSync(join(reader.home, '.env'), env(settings), { mode: 0o600 });
      await reader.terminal.type('for user in alice bob carol; do manage_users add $user:correct-horse > /dev/null 2>&1; done');
      const server = await reader.serve('signaling-server > server.log', `${url}/health`, reader.home);
      const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map(async (name) => (
        Client.join(url, 'standup', await logIn(url, name, 'correct-horse'), name))));

      writeFileSync(join(reader.home, 'token.txt'), await logIn(url, 'alice', 'correct-horse'), { mode: 0o600 });

      const shown = await reader.types('signaling-server admin status');
      assert.equal((await alice.receive('server_message')).data, 'We close in a minute');
      for (const client of [alice, bob, carol]) assert.equal((await client.closed).code, 4002);
      for (const word of ['mallory', 'type=joined', 'capacity']) assert.ok(shown.includes(word), shown);
      const answers = await reader.types('ADMIN_TOKEN=');
      assert.match(answers, /^\{"rules":\[.*\{"rule":"ban","who":\{"username":"mallory"\}.*\{"done":"remove ban"\}$/s);
      await reader.types('signaling-server admin drain');
      await eventually(() => 'the server has ended', () => server.gone);
      assert.equal(statSync(join(reader.home, 'users.csv.orders')).mode & 0o777, 0o600);
      const acts = (await reader.types('jq')).trim().split('\n').map((line) => JSON.parse(line)[1]);
      assert.deepEqual(acts, ['message', 'capacity', 'lock', 'unlock', 'mute', 'unmute', 'kick', 'kick', 'ban', 'remove ban', 'close', 'remove ban', 'ban', 'remove ban', 'drain']);
      const searches = inSentences('docs/run/operations.md', 'jq -c');
      assert.equal(searches.length, 2);
      for (const search of searches) {
        const { output } = await reader.terminal.type(`${search.replace('"den"', '"standup"')} server.log`);
        assert.match(output, /"message":"member joined"/, search);
      }
      const found = await reader.types('signaling-server doctor');
      assert.match(found, /users: 3 can log in/);
      assert.ok(found.includes(`that of ${clock.url}`), found);

      reader.ends();
    } },
    { page: 'docs/build/webhooks.md', async run() {
      const reader = new Reader('docs/build/webhooks.md');
      writeFileSync(join(reader.home, '.env'), env({ SECRET_KEY: secret(), JWT_SECRET_KEY: secret() }), { mode: 0o600 });
      await reader.terminal.type('manage_users add alice:correct-horse > /dev/null 2>&1');

      assert.match(await reader.types('signaling-server webhook-secret'), /^whsec_[A-Za-z0-9+/=]{40,}\n$/);

      reader.ends();
    } },
  ];

  for (const { page, run } of STORIES) test(`${page}: its commands do what stands there`, run);
});

const browserPages = [];

/** Joins with the form of the page of GETTING_STARTED. */
async function joinsOnPage(page, name, password) {
  browserPages.push(page);
  await page.locator('[name=username]').fill(name);
  await page.locator('[name=password]').fill(password);
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#me').waitFor();
}

/** What a page links to in this checkout: `path` from its top, `heading` where it names one. */
function links(page) {
  const prose = text(page).replaceAll(/^\s*```[\s\S]*?^\s*```$/gm, '').replaceAll(/`[^`\n]*`/g, 'code');
  const targets = [...prose.matchAll(/\]\(([^()\s]+)\)/g)].map(([, target]) => target);
  return targets.filter((target) => !/^[a-z]+:/.test(target)).map((target) => {
    const [path, heading] = target.split('#');
    return { target, heading, path: path === '' ? page : normalize(join(dirname(page), path)) };
  });
}

/** The names of a page's headings in links, as GitHub makes them. */
function headings(page) {
  const seen = new Map();
  const prose = text(page).replaceAll(/^\s*```[\s\S]*?^\s*```$/gm, '');
  return [...prose.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => {
    const name = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-');
    const times = seen.get(name) ?? 0;
    seen.set(name, times + 1);
    return times === 0 ? name : `${name}-${times}`;
  });
}
