// Runs many random programs of two members (programs.mjs) and adds the results up in a file.
//
//   node programs_run.mjs chromium|firefox FIRST COUNT [STEPS]
//
// tries the seeds from FIRST on between two Chromium, or between Chromium and Firefox, 200 steps each, and writes each result to
// programs.results.json at once. Of another build of the client a summary is kept, in `earlier`.

import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cleanUp, startServer } from './harness.mjs';
import { openBrowsers, runProgram } from './programs.mjs';

const FILE = process.env.RESULTS ?? new URL('programs.results.json', import.meta.url);
/** Browsers are started anew after so many seeds, so that none ends for the memory of closed pages. */
const SEEDS_PER_BROWSER = 10;

const [pair, ...numbers] = process.argv.slice(2);
const [first, count, steps = 200] = numbers.map(Number);
if (!['chromium', 'firefox'].includes(pair) || !(count > 0)) {
  console.error('usage: node programs_run.mjs chromium|firefox FIRST COUNT [STEPS]');
  process.exit(2);
}

/** A digest of the client that the server serves. */
async function clientDigest() {
  const server = await startServer();
  const text = await (await fetch(`${server.url}/client/signaling.js`)).text();
  await server.end();
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** What is kept of the results of other builds. */
function earlier({ client, pairs, earlier = [] }) {
  if (!client) return earlier;
  const summaries = Object.entries(pairs).map(([name, { seeds, failed, steps }]) => [name, { seeds, failed, steps }]);
  return [{ client, pairs: Object.fromEntries(summaries) }, ...earlier];
}

function record(client, seed, result) {
  const known = existsSync(FILE) ? JSON.parse(readFileSync(FILE, 'utf8')) : {};
  const results = known.client === client ? known : { client, pairs: {}, earlier: earlier(known) };
  const { results: seeds = {} } = results.pairs[pair] ?? {};
  seeds[seed] = result;
  const failed = Object.keys(seeds).filter((one) => seeds[one].failure).map(Number);
  const all = Object.values(seeds);
  results.pairs[pair] = { seeds: all.length, failed, steps: all.reduce((sum, one) => sum + one.steps, 0), results: seeds };
  writeFileSync(FILE, `${JSON.stringify(results, null, 1)}\n`);
}

const client = await clientDigest();
let browsers;
let failures = 0;
for (let seed = first; seed < first + count; seed += 1) {
  if ((seed - first) % SEEDS_PER_BROWSER === 0) {
    await browsers?.end();
    browsers = await openBrowsers(pair);
  }
  const began = Date.now();
  const failure = await runProgram(browsers, seed, steps).then(() => undefined, (error) => error.message);
  if (failure) failures += 1;
  const result = { steps, seconds: Math.round((Date.now() - began) / 1000), failure };
  record(client, seed, result);
  console.log(JSON.stringify({ pair, seed, ...result }));
}
await browsers.end();
await cleanUp();
console.log(`${count - failures} passed, ${failures} failed`);
process.exit(failures ? 1 : 0);
