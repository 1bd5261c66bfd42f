// The client in other runtimes: `node run.mjs NAME=COMMAND...`, such as `node18=/opt/node18/bin/node`; a name that ends with
// `+ws` uses the package ws in place of the runtime's own class, and `webkit` alone is a page in WebKitGTK. Each joins, survives a
// restart and a crash of the server, and exchanges messages after each. It needs the packages of tests/browser and a built server.
// Outside CI.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cleanUp, eventually, freePort, logIn, startServer } from '../../../../tests/browser/harness.mjs';

const WS = new URL('../../../../tests/browser/node_modules/ws/wrapper.mjs', import.meta.url).href;
const KEYS = { SECRET_KEY: 'k'.repeat(40), JWT_SECRET_KEY: 'j'.repeat(40) };
const member = new URL('member.mjs', import.meta.url).pathname;
const webkit = new URL('webkit_member.mjs', import.meta.url).pathname;

async function run(name, command) {
  const settings = { PORT: `${await freePort()}`, ...KEYS };
  let server = await startServer(settings);
  const token = await logIn(server.url, 'alice');
  const [program, ...flags] = command ? [...command.split(' '), member] : [process.execPath, webkit];
  const child = spawn(program, [...flags, server.url, 'runtime', token, ...(name.endsWith('+ws') ? [WS] : [])], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let output = '';
  let errors = '';
  child.stdout.on('data', (text) => { output += text; });
  child.stderr.on('data', (text) => { errors += text; });
  const seen = () => output.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const reaches = (what, condition) => eventually(() => `${name} ${what}: ${output.slice(-500)} ${errors}`, () => {
    assert.equal(child.exitCode, null, `${name} has ended: ${errors}`);
    return condition(seen());
  });
  const talks = (after) => reaches('hears messages', (events) => events.slice(after).some(([kind]) => kind === 'message'));
  try {
    await reaches('joins', (events) => events.some(([state]) => state === 'connected'));
    await talks(0);
    assert.deepEqual(seen().find(([kind]) => kind === 'refused'), ['refused', 'message_too_big']);
    for (const signal of ['SIGTERM', 'SIGKILL']) {
      const before = seen().length;
      server.child.process.kill(signal);
      await reaches('notices', (events) => events.slice(before).some(([state]) => state === 'reconnecting'));
      await server.end();
      server = await startServer(settings, server.home);
      await reaches('is back', (events) => events.at(-1)[0] !== 'reconnecting' && events.slice(before).some(([state]) => state === 'connected'));
      await talks(seen().length);
    }
    assert.deepEqual(seen().filter(([kind]) => kind === 'error' || kind === 'closed'), []);
    console.log(`${name}: joins, talks, survives a restart and a crash`);
  } finally {
    child.kill('SIGTERM');
    await ended;
    await server.end();
  }
}

let failed = 0;
for (const argument of process.argv.slice(2)) {
  const [name, ...command] = argument.split('=');
  await run(name, command.join('=')).catch((error) => { failed += 1; console.log(`${name}: FAILED: ${error.message}`); });
}
await cleanUp();
process.exit(failed ? 1 : 0);
