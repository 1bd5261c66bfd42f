// A reader of docs/run/three-nodes.md, who types its commands into one bash and looks whether they show what stands below
// them. Other ports are all that is different, and a checkout in which deploy/ has them, too.

import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { dirname, join } from 'node:path';
import { certificate, folder, MANAGE_USERS, ROOT, sleep, TEST_TIMEOUT } from './harness.mjs';
import { blocksOf, fits, Terminal } from './terminal.mjs';

const PAGE = readFileSync(join(ROOT, 'docs/run/three-nodes.md'), 'utf8');

/** What stands in the page, by its heading: blocks of commands, each with what it shows, if that stands there. */
export const SECTIONS = [...PAGE.matchAll(/^## (.*)/gm)].map(([, heading]) => (
  { heading, blocks: blocksOf(PAGE).filter(({ section }) => section === heading) }));

/** The section whose heading begins so. */
export function section(start) {
  const found = SECTIONS.find(({ heading }) => heading.startsWith(start));
  assert.ok(found, `docs/run/three-nodes.md has no section "${start}…"`);
  return found;
}

/** Eight ports in a row that nobody listens on; below those that the system gives away by itself. */
async function freeDecade() {
  const isFree = (port) => new Promise((done) => {
    const probe = net.createServer().once('error', () => done(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => done(true)));
  });
  for (;;) {
    const decade = 1_100 + Math.floor(Math.random() * 2_000);
    const taken = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((digit) => isFree(decade * 10 + digit)));
    if (!taken.includes(false)) return decade;
  }
}

export class Reader {
  static async begins() {
    const reader = new Reader();
    const decade = await freeDecade();
    reader.ports = {
      nodes: [1, 2, 3].map((node) => decade * 10 + node),
      redis: decade * 10 + 4,
      nginxPlain: decade * 10 + 5,
      nginx: decade * 10 + 6,
      haproxyPlain: decade * 10 + 7,
      haproxy: decade * 10 + 8,
    };
    const { redis, nginxPlain, nginx, haproxyPlain, haproxy } = reader.ports;
    reader.others = [[/\b808(?=[123$])/g, decade], [/\b6380\b/g, redis], [/\b8088\b/g, nginxPlain],
      [/\b8443\b/g, nginx], [/\b9088\b/g, haproxyPlain], [/\b9443\b/g, haproxy]];
    reader.home = folder();
    reader.folder = join(reader.home, 'three');
    const checkout = join(reader.home, 'checkout');
    mkdirSync(join(checkout, 'target'), { recursive: true });
    symlinkSync(dirname(MANAGE_USERS), join(checkout, 'target/release'));
    symlinkSync(join(ROOT, 'clients'), join(checkout, 'clients'));
    cpSync(join(ROOT, 'deploy'), join(checkout, 'deploy'), { recursive: true });
    for (const name of ['nginx-cluster.conf', 'haproxy.cfg']) {
      const file = join(checkout, 'deploy', name);
      writeFileSync(file, reader.translate(readFileSync(file, 'utf8')));
    }
    // The log says at DEBUG which server has answered what. The tests join more often than the two members of the page do.
    const env = { PATH: process.env.PATH, HOME: reader.home, LANG: 'C.UTF-8', LOG_LEVEL: 'DEBUG', JOINS_PER_MINUTE: '0' };
    reader.terminal = new Terminal({ cwd: checkout, env, translate: (commands) => reader.translate(commands) });
    reader.started = new Set();
    process.on('exit', () => reader.kill('SIGKILL')); // for a run that is interrupted
    return reader;
  }

  translate(commands) {
    return this.others.reduce((text, [ours, theirs]) => text.replaceAll(ours, theirs), commands);
  }

  /** Types commands; what they print, and their exit status. */
  async type(commands) {
    const typed = await this.terminal.type(commands);
    this.notePids();
    return typed;
  }

  /** Types the first `count` blocks of a section, or all. */
  async follows(start, count = Infinity) {
    for (const { kind, commands, shows } of section(start).blocks.slice(0, count)) {
      if (kind === 'bash install') continue;
      assert.ok(kind === 'bash' || kind === 'bash look', `${start}: a block of ${kind}`);
      const deadline = Date.now() + (kind === 'bash look' ? TEST_TIMEOUT : 0);
      for (;;) {
        const { output, status } = await this.type(commands);
        const isRight = shows ? fits(output, shows) : status === 0 && output === '';
        if (isRight) break;
        if (Date.now() > deadline) {
          throw new Error(`${start}:\n${commands}ends with ${status} and shows\n${output}and not\n${shows ?? ''}${this.terminal.complaints}`);
        }
        await sleep(200);
      }
    }
    if (readdirSync(this.folder).includes('fullchain.pem')) {
      // For `ask` and `Client`: what the reader has signed is to be trusted.
      certificate().ca = readFileSync(join(this.folder, 'fullchain.pem'));
    }
  }

  log(node) { return readFileSync(join(this.folder, `node${node}.log`), 'utf8'); }

  /** The last number that each member has heard the other say. */
  heard() {
    const said = (name) => [...readFileSync(join(this.folder, `${name}.log`), 'utf8').matchAll(/ says (\d+)$/gm)];
    return ['alice', 'bob'].map((name) => Number(said(name).at(-1)?.[1] ?? 0));
  }

  /** What a node says of itself; nothing where it is not there. */
  async health(node) {
    return fetch(`http://127.0.0.1:${this.ports.nodes[node - 1]}/health`).then((answer) => answer.json(), () => undefined);
  }

  /** How many members each node has. */
  async members() {
    return (await Promise.all([1, 2, 3].map((node) => this.health(node)))).map(({ active_connections: members }) => members);
  }

  notePids() {
    for (const name of readdirSync(this.home).includes('three') ? readdirSync(this.folder) : []) {
      if (!name.endsWith('.pid')) continue;
      try {
        this.started.add(Number(readFileSync(join(this.folder, name), 'utf8')));
      } catch (error) {
        if (error.code !== 'ENOENT') throw error; // Redis and nginx remove theirs when they end
      }
    }
  }

  /** Whether a process id is still one of ours: it may have ended, and another process may have its number since. */
  isOurs(pid) {
    try {
      // A process that has ended and that bash has not waited for yet is a zombie.
      if (/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return false;
      // nginx writes its title over its environment, but not over its arguments.
      const said = ['environ', 'cmdline'].map((file) => readFileSync(`/proc/${pid}/${file}`, 'utf8'));
      return [...said, readlinkSync(`/proc/${pid}/cwd`)].some((text) => text.includes(this.home));
    } catch {
      return false;
    }
  }

  alive() { return [...this.started].filter((pid) => this.isOurs(pid)); }

  kill(signal) {
    for (const pid of this.alive()) try { process.kill(pid, signal); } catch { /* it has just ended */ }
    this.terminal.end(signal);
  }

  /** Ends whatever is left. */
  async ends() {
    this.kill('SIGTERM');
    for (let tries = 0; tries < 100 && this.alive().length > 0; tries += 1) await sleep(50);
    this.kill('SIGKILL');
  }
}
