// A sample of tests/field/run.mjs, which runs all foreign software: that which is there.

import { after, before, describe, test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blocks, CLIENTS, FIELD } from '../field/clients.mjs';
import { ENGINES, tryEngine } from '../field/engines.mjs';
import { PROXIES } from '../field/proxies.mjs';
import { LIBRARIES } from '../field/tokens.mjs';
import { startRooms, tryClient } from '../field/try_client.mjs';
import { TURN_SERVERS, tryTurnServer } from '../field/turn_servers.mjs';
import { cleanUp, SUITE_TIMEOUT } from './harness.mjs';

const RESULTS = JSON.parse(readFileSync(join(FIELD, 'results.json'), 'utf8'));

describe('the minimal clients', { timeout: SUITE_TIMEOUT, concurrency: 2 }, () => {
  let rooms;

  before(async () => { rooms = await startRooms(); });
  after(cleanUp);

  test('each block of the page is a client', () => {
    for (const name of Object.keys(blocks())) assert.ok(CLIENTS[name], name);
  });

  test('each row has a result', () => {
    const kinds = { clients: CLIENTS, proxies: PROXIES, tokens: LIBRARIES, engines: ENGINES, turn: TURN_SERVERS };
    for (const [kind, rows] of Object.entries(kinds)) assert.deepEqual(Object.keys(RESULTS[kind]), Object.keys(rows));
  });

  for (const name of ['ws', 'websockets 10']) {
    test(`${name} joins, answers, stays, and says why it ends`, async () => {
      const { kick, refusal } = await tryClient(name, rooms);

      assert.equal(kick, '4002 Removed by an administrator');
      assert.equal(refusal, 'shows 403');
    });
  }

  for (const [kind, name, attempt] of [['engines', 'Redis 7.0', tryEngine], ['turn', 'coturn, UDP', tryTurnServer]]) {
    test(`${name} is as it was`, async () => {
      const { version, ...found } = await attempt(name);

      const { version: versionThen, seen, ...then } = RESULTS[kind][name];
      assert.deepEqual(found, then, `${version}, and on ${seen} ${versionThen}`);
    });
  }
});
