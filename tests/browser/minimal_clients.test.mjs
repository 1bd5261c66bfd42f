// A sample of tests/field/run.mjs, which runs all clients: those whose libraries are there.

import { after, before, describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blocks, CLIENTS, FIELD } from '../field/clients.mjs';
import { PROXIES } from '../field/proxies.mjs';
import { startRooms, tryClient } from '../field/try_client.mjs';
import { cleanUp, SUITE_TIMEOUT } from './harness.mjs';

const RESULTS = JSON.parse(readFileSync(join(FIELD, 'results.json'), 'utf8'));

describe('the minimal clients', { timeout: SUITE_TIMEOUT, concurrency: 2 }, () => {
  let rooms;

  before(async () => { rooms = await startRooms(); });
  after(cleanUp);

  test('each block of the page is a client', () => {
    for (const name of Object.keys(blocks())) assert.ok(CLIENTS[name], name);
  });

  test('each client and each proxy has a result', () => {
    assert.deepEqual(Object.keys(RESULTS.clients), Object.keys(CLIENTS));
    assert.deepEqual(Object.keys(RESULTS.proxies), Object.keys(PROXIES));
  });

  for (const name of ['ws', 'websockets 10']) {
    test(`${name} joins, answers, stays, and says why it ends`, async () => {
      const { kick, refusal } = await tryClient(name, rooms);

      assert.equal(kick, '4002 Removed by an administrator');
      assert.equal(refusal, 'shows 403');
    });
  }
});
