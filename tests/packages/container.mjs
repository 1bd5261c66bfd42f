// A Debian that is booted for a test, with systemd as its first process. It shares our network, which has only loopback.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { launch, eventually } from '../browser/harness.mjs';

export class Container {
  /** Boots what is in `root`; `binds` are folders that it sees under other names. */
  static async boot(root, binds = {}) {
    const container = new Container();
    const shares = Object.entries(binds).map(([from, to]) => `--bind-ro=${from}:${to}`);
    container.child = launch('systemd-nspawn', ['--quiet', `--directory=${root}`, '--register=no', '--keep-unit', '--link-journal=no',
      '--resolv-conf=off', '--timezone=off', ...shares, '--boot'], { env: { PATH: process.env.PATH } });
    await eventually(() => `the container boots: ${container.child.output}`, () => {
      if (container.child.gone) throw new Error(container.child.output);
      // At first it is one that only makes the other.
      container.leader = firstChild(container.child.process.pid);
      return container.leader && ['running', 'degraded'].includes(container.tries('systemctl', 'is-system-running'));
    });
    return container;
  }

  /** What a command in there prints, on either stream; throws if it fails. */
  run(command, ...args) { return this.shell('exec "$@" 2>&1', command, ...args); }

  /** What a script prints. */
  shell(script, ...args) {
    return execFileSync('nsenter', ['--target', this.leader, '--all', '--root', '--wd', 'sh', '-c', script, 'sh', ...args],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive' } });
  }

  /** The same, whether it fails or not. */
  tries(command, ...args) {
    try { return this.run(command, ...args).trim(); } catch (error) { return `${error.stdout}`.trim(); }
  }

  /** A property of a unit. */
  property(unit, name) { return this.run('systemctl', 'show', '--value', '--property', name, unit).trim(); }
}

function firstChild(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0] || undefined;
}
