// A bash in which a reader types the commands of a page, and looks whether they show what stands below them.

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { folder, sleep, TEST_TIMEOUT } from './harness.mjs';

/**
 * The fenced blocks of a page, in order. Where a block of `text` follows one of commands, that is what they show: `shows`.
 * `section` is the last heading of the second level, `line` where the block opens.
 */
export function blocksOf(text) {
  const blocks = [];
  let section = '';
  let open;
  for (const [number, line] of text.split('\n').entries()) {
    const fence = line.match(/^\s*```\s*(.*)$/);
    if (!open && !fence && line.startsWith('## ')) section = line.slice(3);
    if (!fence) {
      open?.lines.push(line);
    } else if (!open) {
      open = { kind: fence[1], section, line: number + 1, lines: [] };
    } else {
      const { lines, ...block } = open;
      open = undefined;
      if (block.kind === 'text' && blocks.length > 0) blocks.at(-1).shows = lines.join('\n');
      else blocks.push({ ...block, commands: `${lines.join('\n')}\n` });
    }
  }
  if (open) throw new Error(`the block of line ${open.line} does not end`);
  return blocks;
}

/** Whether a command has shown that, where "…" stands for anything in a line, and alone in a line for any lines. */
export function fits(output, shows) {
  const lines = (text) => text.split('\n').filter((line) => line !== '');
  const exact = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const pattern = lines(shows).map((line) => (line === '…' ? '(?:.*\n)*?' : `${line.split('…').map(exact).join('.*')}\n`));
  return new RegExp(`^${pattern.join('')}$`).test(lines(output).map((line) => `${line}\n`).join(''));
}

export class Terminal {
  constructor({ cwd, env, translate = (commands) => commands }) {
    Object.assign(this, { translate, said: '', complaints: '', file: join(folder(), 'typed.sh') });
    this.shell = spawn('bash', ['--norc'], { cwd, env, stdio: 'pipe' });
    for (const stream of [this.shell.stdout, this.shell.stderr]) stream.setEncoding('utf8');
    this.shell.stdout.on('data', (text) => { this.said += text; });
    this.shell.stderr.on('data', (text) => { this.complaints += text; });
    process.on('exit', () => this.end('SIGKILL')); // for a run that is interrupted
  }

  /**
   * Types commands: what they print, the exit status of the last one, and of the last one that failed, 0 where none has.
   */
  async type(commands) {
    writeFileSync(this.file, this.translate(commands));
    const from = this.said.length;
    // Nothing that is started may read what is typed after it.
    this.shell.stdin.write(`failed=0; trap 'failed=$?' ERR; . "${this.file}" < /dev/null; echo "typed: $? $failed"\n`);
    const deadline = Date.now() + TEST_TIMEOUT;
    for (;;) {
      const ended = this.said.slice(from).match(/^([\s\S]*?)typed: (\d+) (\d+)\n$/);
      if (ended) return { output: ended[1], status: Number(ended[2]), failed: Number(ended[3]) };
      if (Date.now() > deadline) throw new Error(`does not end:\n${commands}\n${this.said.slice(from)}${this.complaints}`);
      await sleep(10);
    }
  }

  end(signal) { this.shell.kill(signal); }
}
