// signIn against a scripted HTTP server. tests/browser tests it against the real server.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, beforeEach, test } from 'node:test';
import { signIn } from '../dist/signaling.js';

const jwt = (seconds, name) => `${name}.${Buffer.from(JSON.stringify({ iat: 1_000, exp: 1_000 + seconds })).toString('base64url')}.x`;

let server;
let url;
let requests = [];
let answers = [];

before(async () => {
  server = createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    requests.push([request.method, request.url, request.headers.authorization ?? JSON.parse(body)]);
    const [status, answer, headers = {}] = answers.shift();
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(answer));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}/calls/`;
});
after(() => server.close());
beforeEach(() => {
  requests = [];
  answers = [];
});

const account = () => signIn({ url, username: 'alice', password: 'secret' });
const LOGIN = ['POST', '/calls/auth/login', { username: 'alice', password: 'secret' }];

test('logs in once, refreshes an expiring token, and logs in again when a refresh is refused', async () => {
  const [first, second, third] = [jwt(60, 'first'), jwt(60, 'second'), jwt(60, 'third')];
  answers = [[200, { access_token: first }], [200, { access_token: second }], [401, { detail: 'x' }], [200, { access_token: third }]];
  const getToken = account();

  assert.deepEqual([await getToken(false), await getToken(false)], [first, first]);
  assert.equal(await getToken(true), second);
  assert.equal(await getToken(true), third);
  const refresh = (token) => ['POST', '/calls/auth/refresh', `Bearer ${token}`];
  assert.deepEqual(requests, [LOGIN, refresh(first), refresh(second), LOGIN]);
});

test('logs in again when the token has expired since the last call', async () => {
  answers = [[200, { access_token: jwt(3600, 'old'), expires_in: 0 }], [200, { access_token: 'new' }]];
  const getToken = account();
  await getToken(false);

  assert.equal(await getToken(false), 'new');
  assert.deepEqual(requests, [LOGIN, LOGIN]);
});

test('counts the lifetime of a token from its receipt, however wrong the clock of the device is', async () => {
  const { now } = Date;
  try {
    for (const hours of [-2, 2]) {
      requests = [];
      Date.now = () => now() + hours * 3_600_000;
      answers = [[200, { access_token: jwt(1800, 'first'), expires_in: 1800 }]];
      const getToken = account();

      for (let call = 0; call < 3; call += 1) assert.equal(await getToken(false), jwt(1800, 'first'));
      assert.deepEqual(requests, [LOGIN]);
    }
  } finally {
    Date.now = now;
  }
});

test('reports the error of the server and whether a retry can succeed', async () => {
  answers = [
    [401, { detail: 'Incorrect username or password' }], [429, { detail: 'Slow down' }, { 'Retry-After': '7' }],
    [503, 'no JSON object'], [403, { detail: 'HTTPS required' }],
  ];
  const getToken = account();

  await assert.rejects(getToken(false), { code: 'unauthorized', message: 'Incorrect username or password', fatal: true });
  await assert.rejects(getToken(false), { code: 'http_429', retryAfter: 7_000, fatal: false });
  await assert.rejects(getToken(false), { code: 'http_503', message: '/auth/login answered 503', fatal: false });
  await assert.rejects(getToken(false), { code: 'http_403', message: 'HTTPS required', fatal: true });
  await assert.rejects(signIn({ url: 'http://127.0.0.1:9', username: 'a', password: 'b' })(false), { code: 'unreachable', fatal: false });
});
