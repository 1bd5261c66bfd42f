// The minimal clients of the documentation whose libraries are there; tests/field/run.mjs runs all of them.

import { after, before, describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { blocks, CLIENTS, startRooms, tryClient } from '../field/clients.mjs';
import { cleanUp, SUITE_TIMEOUT } from './harness.mjs';

describe('the minimal clients', { timeout: SUITE_TIMEOUT, concurrency: 2 }, () => {
  let rooms;

  before(async () => { rooms = await startRooms(); });
  after(cleanUp);

  test('each block of the page is a client, and each client has its block', () => {
    assert.deepEqual(Object.keys(blocks()).sort(), Object.keys(CLIENTS).sort());
  });

  for (const name of ['ws', 'websockets']) {
    test(`${name} joins, answers, stays, and says why it ends`, async () => {
      const { kick, refusal } = await tryClient(name, rooms);

      assert.equal(kick, '4002 Removed by an administrator');
      assert.equal(refusal, 'shows 403');
    });
  }
});
