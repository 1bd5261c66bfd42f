// A few short random programs of two members, between two Chromium and between Chromium and Firefox. `programs_run.mjs` runs many
// long ones.

import { after, afterEach, before, describe, test } from 'node:test';
import { cleanUp, SUITE_TIMEOUT } from './harness.mjs';
import { openBrowsers, runProgram } from './programs.mjs';

const STEPS = 20;
const SEEDS = { chromium: [0, 1, 2], firefox: [0, 1] };

describe('random programs end with what each side publishes', { timeout: SUITE_TIMEOUT }, () => {
  let browsers;

  before(async () => { browsers = await openBrowsers('firefox'); });
  after(async () => {
    await browsers?.end();
    await cleanUp();
  });
  afterEach(() => { for (const browser of [browsers.chromium, browsers.firefox]) browser.assertQuiet(); });

  for (const [pair, seeds] of Object.entries(SEEDS)) {
    for (const seed of seeds) {
      test(`between Chromium and ${pair}, seed ${seed}`, () => runProgram(pair === 'firefox' ? browsers : { ...browsers, firefox: undefined }, seed, STEPS));
    }
  }
});
