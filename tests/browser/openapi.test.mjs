// /openapi.json against what the server does: an outside validator reads the document, and every
// documented answer of every documented operation is really provoked and held to its schema.

import { Validator } from '@seriousme/openapi-schema-validator';
import addFormats from 'ajv-formats';
import Ajv from 'ajv/dist/2020.js';
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { availableParallelism } from 'node:os';
import { ask, cleanUp, Client, freePort, logIn, PASSWORDS, sleep, startServer, SUITE_TIMEOUT } from './harness.mjs';

/** Documented answers that no test can have, each with the reason. */
const NOT_PROVOKED = {
  'get /health/ready 503': 'while draining the server takes no new connection that could ask',
  ...Object.fromEntries(['ban', 'rooms/{room_id}/kick', 'rooms/{room_id}/mute', 'rooms/{room_id}/lock', 'rooms/{room_id}/close', 'rooms/{room_id}/capacity'].map((act) =>
    [`post /admin/api/${act} 409`, 'only with ten thousand active rules, which a test in src/moderation creates'])),
  ...Object.fromEntries(['ban', 'remove', 'rooms/{room_id}/mute', 'rooms/{room_id}/unmute', 'rooms/{room_id}/lock', 'rooms/{room_id}/unlock', 'rooms/{room_id}/close', 'rooms/{room_id}/capacity'].map((act) =>
    [`post /admin/api/${act} 503`, 'only where the disk takes nothing, which a test in tests/it/admin.rs sees to'])),
};

const TURN = { TURNSERVER_SECRET: 'a secret', TURNSERVER_URLS: '["turn:127.0.0.1:3478"]', STUNSERVER_URLS: '["stun:127.0.0.1:3478"]' };
const METRICS_TOKEN = 'a-token-for-figures';
const ADMIN_TOKEN = 'a-token-for-administrators-of-32-bytes-and-more';
const ELSEWHERE = { 'x-forwarded-for': '192.0.2.254' };
const WRONG = { username: 'nobody', password: 'wrong password' };

/**
 * How each answer is provoked: `open` gives everything to everybody, `strict` has no TURN and wants a
 * token for all, `busy` has had as many requests as it takes in a minute, `flooded` has more logins
 * waiting than it takes.
 */
const CALLS = [
  ['get /api/rooms 503', ({ cutOff }) => cutOff.ask('GET', '/api/rooms')],
  ['get /api/rooms/{room_id}/info 503', ({ cutOff }) => cutOff.ask('GET', '/api/rooms/den/info')],
  ['post /api/rooms/{room_id}/info 503', ({ cutOff }) => cutOff.ask('POST', '/api/rooms/den/info')],
  ['get / 200', ({ open }) => open.ask('GET', '/')],
  ['get /health 200', ({ open }) => open.ask('GET', '/health')],
  ['get /health/ready 200', ({ open }) => open.ask('GET', '/health/ready')],
  ['get /metrics 200', ({ strict }) => strict.ask('GET', '/metrics', { token: METRICS_TOKEN })],
  ['get /metrics 401', ({ strict }) => strict.ask('GET', '/metrics')],
  ['get /metrics 401', ({ strict }) => strict.ask('GET', '/metrics', { token: 'another' })],
  ['get /metrics 404', ({ open }) => open.ask('GET', '/metrics', { token: METRICS_TOKEN })],
  ['get /api/rooms 200', ({ open }) => open.ask('GET', '/api/rooms')],
  ['get /api/rooms 401', ({ strict }) => strict.ask('GET', '/api/rooms')],
  ['get /api/rooms 422', ({ open }) => open.ask('GET', '/api/rooms?limit=0')],
  ...['get', 'post'].flatMap((method) => [
    [`${method} /api/rooms/{room_id}/info 200`, ({ open }) => open.ask(method.toUpperCase(), '/api/rooms/den/info')],
    [`${method} /api/rooms/{room_id}/info 401`, ({ strict }) => strict.ask(method.toUpperCase(), '/api/rooms/den/info')],
    [`${method} /api/rooms/{room_id}/info 404`, ({ open }) => open.ask(method.toUpperCase(), '/api/rooms/attic/info')],
  ]),
  ['post /auth/login 200', ({ open }) => open.ask('POST', '/auth/login', { json: { username: 'alice', password: PASSWORDS.alice } })],
  ['post /auth/login 401', ({ open }) => open.ask('POST', '/auth/login', { json: WRONG })],
  ['post /auth/login 413', ({ open }) => open.ask('POST', '/auth/login', { json: { username: 'x'.repeat(70_000), password: 'x' } })],
  ['post /auth/login 415', ({ open }) => open.ask('POST', '/auth/login', { body: 'x', headers: { 'content-type': 'text/plain' } })],
  ['post /auth/login 422', ({ open }) => open.ask('POST', '/auth/login', { json: { username: 7 } })],
  ['post /auth/login 422', ({ open }) => open.ask('POST', '/auth/login', { body: '{', headers: { 'content-type': 'application/json' } })],
  ['post /auth/login 429', ({ locked }) => locked.ask('POST', '/auth/login', { json: WRONG })],
  ['post /auth/login 503', ({ flooded }) => turnedAway(() => flooded.ask('POST', '/auth/login', { json: WRONG, headers: ELSEWHERE }))],
  ['post /auth/token 200', ({ open }) => open.ask('POST', '/auth/token', { form: { username: 'alice', password: PASSWORDS.alice, grant_type: 'password' } })],
  ['post /auth/token 400', ({ open }) => open.ask('POST', '/auth/token', { body: 'x', headers: { 'content-type': 'multipart/form-data' } })],
  ['post /auth/token 401', ({ open }) => open.ask('POST', '/auth/token', { form: WRONG })],
  ['post /auth/token 413', ({ open }) => open.ask('POST', '/auth/token', { form: { username: 'x'.repeat(70_000), password: 'x' } })],
  ['post /auth/token 415', ({ open }) => open.ask('POST', '/auth/token', { json: WRONG })],
  ['post /auth/token 422', ({ open }) => open.ask('POST', '/auth/token', { form: { username: 'alice', grant_type: 'refresh_token' } })],
  ['post /auth/token 429', ({ locked }) => locked.ask('POST', '/auth/token', { form: WRONG })],
  ['post /auth/token 503', ({ flooded }) => turnedAway(() => flooded.ask('POST', '/auth/token', { form: WRONG, headers: ELSEWHERE }))],
  ['get /auth/me 200', ({ open, token }) => open.ask('GET', '/auth/me', { token })],
  ['get /auth/me 401', ({ open }) => open.ask('GET', '/auth/me')],
  ['get /auth/me 401', ({ open }) => open.ask('GET', '/auth/me', { token: 'forged' })],
  ['post /auth/refresh 200', ({ open, token }) => open.ask('POST', '/auth/refresh', { token })],
  ['post /auth/refresh 403', async ({ administered }) => {
    const minted = await administered.ask('POST', '/admin/api/tokens', { token: ADMIN_TOKEN, json: { username: 'alice', can: ['join'] } });
    return administered.ask('POST', '/auth/refresh', { token: minted.json.access_token });
  }],
  ['post /auth/refresh 401', ({ open }) => open.ask('POST', '/auth/refresh')],
  ['post /auth/logout 200', ({ open }) => open.ask('POST', '/auth/logout')],
  ['get /auth/turn-credentials 200', ({ open, token }) => open.ask('GET', '/auth/turn-credentials', { token })],
  ['get /auth/turn-credentials 401', ({ open }) => open.ask('GET', '/auth/turn-credentials')],
  ['get /auth/turn-credentials 503', ({ strict, strictToken }) => strict.ask('GET', '/auth/turn-credentials', { token: strictToken })],
  ['get /auth/ice-servers 200', ({ open, token }) => open.ask('GET', '/auth/ice-servers', { token })],
  ['get /auth/ice-servers 200', ({ strict, strictToken }) => strict.ask('GET', '/auth/ice-servers', { token: strictToken })],
  ['get /auth/ice-servers 401', ({ open }) => open.ask('GET', '/auth/ice-servers')],
];

/** What administrators ask, in an order that makes sense, with the body of those who act, and what else it may answer. */
const ADMINISTRATION = [
  ['get', 'status'], ['get', 'metrics'], ['get', 'closed'], ['get', 'rules'],
  ['get', 'rooms', undefined, [422, 503]], ['get', 'rooms/{room_id}', undefined, [503]], ['get', 'rooms/{room_id}/timeline'],
  ['post', 'rooms/{room_id}/message', { data: 'hello' }, [422, 503]],
  ['post', 'rooms/{room_id}/lock'], ['post', 'rooms/{room_id}/unlock'],
  ['post', 'rooms/{room_id}/mute', { client_id: 'a' }, [422]], ['post', 'rooms/{room_id}/unmute', { client_id: 'a' }, [422]],
  ['post', 'rooms/{room_id}/capacity', { members: 5 }, [422]],
  ['post', 'ban', { username: 'mallory', seconds: 60 }, [422]],
  ['post', 'remove', { rule: 'ban', who: { username: 'mallory' } }, [422]],
  ['post', 'rooms/{room_id}/kick', { client_id: 'a' }, [422, 503]],
  ['post', 'rooms/{room_id}/close', { seconds: 0 }, [422]],
  ['post', 'tokens', { username: 'alice' }, [422]],
  ['post', 'sessions/end', { username: 'mallory' }, [422]],
  ['post', 'drain'],
];
for (const [method, path, json, also = []] of ADMINISTRATION) {
  const [operation, real] = [`${method} /admin/api/${path}`, `/admin/api/${path.replace('{room_id}', 'den')}`];
  const asked = (server, options) => server.ask(method.toUpperCase(), real, { json, ...options });
  const token = ADMIN_TOKEN;
  CALLS.push([`${operation} 401`, ({ administered }) => asked(administered)]);
  CALLS.push([`${operation} 404`, ({ open }) => asked(open, { token })]);
  if (also.includes(422) && method === 'get') CALLS.push([`${operation} 422`, ({ administered }) => administered.ask('GET', `${real}?limit=0`, { token })]);
  else if (also.includes(422)) CALLS.push([`${operation} 422`, ({ administered }) => asked(administered, { token, json: { seconds: 'x' } })]);
  if (also.includes(503)) CALLS.push([`${operation} 503`, ({ cutOff }) => asked(cutOff, { token })]);
  CALLS.push([`${operation} 200`, ({ administered }) => asked(administered, { token })]);
}

/** Every operation but those for monitors is held to RATE_LIMIT_PER_MINUTE. */
const BUSY = /^(?!get \/(health|metrics))/;
const busyCall = (operation) => {
  const [method, path] = operation.split(' ');
  const ask = ({ busy }) => busy.ask(method.toUpperCase(), path.replace('{room_id}', 'den'));
  // Where a minute has passed since the last one, the first is allowed.
  return [`${operation} 429`, async (world) => {
    const answer = await ask(world);
    return answer.status === 429 ? answer : ask(world);
  }];
};

describe('the OpenAPI document', { timeout: SUITE_TIMEOUT }, () => {
  const world = {};
  let spec;

  before(async () => {
    const start = async (settings) => {
      const { url } = await startServer({ API_DOCS: 'true', ...settings });
      return { url, ask: (method, path, options) => ask(method, url, path, options) };
    };
    world.open = await start(TURN);
    world.strict = await start({ ROOMS_API_REQUIRE_AUTH: 'true', METRICS_TOKEN });
    world.locked = await start({ AUTH_MAX_FAILURES: '1' });
    await world.locked.ask('POST', '/auth/login', { json: WRONG });
    world.busy = await start({ RATE_LIMIT_PER_MINUTE: '1' });
    await world.busy.ask('GET', '/');
    world.cutOff = await start({ ADMIN_TOKEN, REDIS_URL: `redis://127.0.0.1:${await freePort()}` });
    world.administered = await start({ ADMIN_TOKEN });
    world.inside = await Client.join(world.administered.url, 'den', await logIn(world.administered.url, 'alice'), 'a');
    world.token = await logIn(world.open.url, 'alice');
    world.flooded = await start({ AUTH_MAX_FAILURES: '1000' });
    world.flood = flood(world.flooded);
    world.strictToken = await logIn(world.strict.url, 'alice');
    world.member = await Client.join(world.open.url, 'den', world.token);
    spec = await world.open.ask('GET', '/openapi.json');
  });
  after(async () => {
    world.flood.over = true;
    await world.member?.close();
    await cleanUp();
  });

  const documented = () => Object.entries(spec.json.paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, { responses }]) =>
      Object.keys(responses).map((status) => `${method} ${path} ${status}`)));

  test('is OpenAPI 3.1 to an outside validator', async () => {
    const { valid, errors } = await new Validator().validate(spec.json);

    assert.equal(valid, true, JSON.stringify(errors, null, 2));
    assert.match(spec.json.openapi, /^3\.1\./);
    assert.match(spec.headers['content-type'], /^application\/json/);
  });

  test('describes every REST route that clients of the first server know', () => {
    const operations = documented().map(operationOf);

    for (const known of ['get /', 'get /health', 'get /api/rooms', 'post /api/rooms/{room_id}/info', 'post /auth/login',
      'post /auth/token', 'get /auth/me', 'post /auth/refresh', 'post /auth/logout', 'get /auth/turn-credentials']) {
      assert.ok(operations.includes(known), known);
    }
  });

  test('tells the truth about every answer of every operation', async (t) => {
    const promised = documented();
    const operations = [...new Set(promised.map(operationOf))];
    const calls = [...CALLS.filter(([key]) => operations.includes(operationOf(key))),
      ...operations.filter((operation) => BUSY.test(operation)).map(busyCall)];
    const accepts = schemasOf(spec.json);
    const provoked = new Set();

    for (const [key, call] of calls) {
      await t.test(key, async () => {
        const answer = await call(world);

        provoked.add(`${operationOf(key)} ${answer.status}`);
        assert.equal(`${answer.status}`, key.split(' ')[2], answer.text);
        assert.ok(promised.includes(key), `the server answers ${answer.status}, which is not documented`);
        accepts(key, answer);
        if ([429, 503].includes(answer.status)) assert.match(answer.headers['retry-after'] ?? '', /^\d+$/);
      });
    }
    await t.test('and nothing that it documents was left out', () => {
      const missing = promised.filter((key) => !provoked.has(key) && !(key in NOT_PROVOKED));
      assert.deepEqual(missing, [], 'add how to provoke them to CALLS, or why that cannot be to NOT_PROVOKED');
    });
  });
});

/** Keeps the queue of logins full until it is ended: whoever is turned away asks again. */
function flood({ ask }) {
  const flood = { over: false };
  const insist = async (from) => {
    while (!flood.over) {
      await ask('POST', '/auth/login', { json: WRONG, headers: { 'x-forwarded-for': from } }).catch(() => sleep(10));
    }
  };
  for (let number = 0; number < 40 * availableParallelism(); number += 1) insist(`192.0.2.${number % 250}`);
  return flood;
}

/** Asks until there was no place, should one have come free just before. */
async function turnedAway(ask) {
  let answer;
  do answer = await ask(); while (answer.status === 401);
  return answer;
}

const operationOf = (key) => key.replace(/ \d+$/, '');

/** Holds an answer to the media type and the schema that the document gives for it. */
function schemasOf(document) {
  const ajv = addFormats(new Ajv({ strict: false, allErrors: true }));
  ajv.addSchema(document, 'openapi');
  return (key, answer) => {
    const [method, path, status] = key.split(' ');
    const { content } = document.paths[path][method].responses[status];
    if (!content) return assert.equal(answer.text, '');

    const [type] = (answer.headers['content-type'] ?? '').split(';');
    assert.ok(type in content, `${type} is not documented, only ${Object.keys(content)}`);
    if (type !== 'application/json') return undefined;
    const steps = ['paths', path, method, 'responses', status, 'content', type, 'schema'];
    const pointer = steps.map((step) => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/');
    const validate = ajv.compile({ $ref: `openapi#/${pointer}` });
    return assert.ok(validate(answer.json), `${answer.text}: ${ajv.errorsText(validate.errors)}`);
  };
}
