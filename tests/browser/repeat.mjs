// Runs the tests of one file many times, for what fails only now and then.
//
//   node repeat.mjs COUNT FILE [NAME]
//
// runs those whose name matches NAME; `node repeat.mjs 50 firefox.test.mjs 'outlives two lives'` is 50 times two relayed calls between
// Firefox and Chromium. LOAD=2 keeps so many processes busy beside them, until the last run has ended. Prints a line for each run, and
// all that a run said which failed.

import { spawn, spawnSync } from 'node:child_process';
import { loadavg } from 'node:os';

const [count, file, name = '.'] = process.argv.slice(2);
if (!(count > 0) || !file) {
  console.error('usage: node repeat.mjs COUNT FILE [NAME]');
  process.exit(2);
}

const busy = Array.from({ length: Number(process.env.LOAD ?? 0) }, () => spawn(process.execPath, ['-e', 'for (;;) process.ppid === 1 && process.exit()']));
let failures = 0;
for (let run = 1; run <= count; run += 1) {
  const began = Date.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--test', '--test-reporter=tap', `--test-name-pattern=${name}`, file], { encoding: 'utf8', maxBuffer: Infinity });
  const passed = Number(/^# pass (\d+)$/m.exec(stdout)?.[1] ?? 0);
  const hasPassed = status === 0 && passed > 0; // where no name matches nothing fails
  if (!hasPassed) failures += 1;
  console.log(JSON.stringify({ run, passed, hasPassed, seconds: Math.round((Date.now() - began) / 1000), load: loadavg()[0] }));
  if (!hasPassed) console.log(stdout + stderr);
}
for (const child of busy) child.kill();
console.log(`${count - failures} passed, ${failures} failed`);
process.exit(failures ? 1 : 0);
