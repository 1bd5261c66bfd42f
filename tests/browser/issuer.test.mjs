// Users of a real OpenID provider (oidc-provider): discovery, the code flow to a token, keys that change under traffic, an
// outage of an hour, and each fault of the provider or of a token with the log line that names it. The provider runs on the
// clock of the test, the server on one that the test moves.

import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Provider } from 'oidc-provider';
import {
  ask, cleanUp, Client, eventually, freePort, movableClocks, startServer, SUITE_TIMEOUT,
} from './harness.mjs';

const CLIENT = 'calls';
const CALLBACK = 'http://127.0.0.1:1/callback';
const HOUR = 3600;
const METRICS_TOKEN = 'figures-of-this-test-0123456789abcdef';

/** A signing key as a JWK with its private part. */
function signingKey(kid, kind = 'rsa', options = { modulusLength: 2048 }) {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: kind === 'rsa' ? 'RS256' : 'ES256' };
}

class Issuer {
  constructor(port) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.alterKeys = () => {}; // changes an answer with keys before it is sent
  }

  async start(keys) {
    this.use(keys);
    this.server = http.createServer((request, answer) => this.answer(request, answer));
    await new Promise((done) => { this.server.listen(this.port, '127.0.0.1', done); });
  }

  /** Signs with the first of these keys from now on, and publishes all of them. */
  use(keys) {
    const provider = new Provider(this.url, {
      clients: [CLIENT, 'another'].map((client_id) => ({
        client_id, token_endpoint_auth_method: 'none', redirect_uris: [CALLBACK], id_token_signed_response_alg: keys[0].alg,
      })),
      jwks: { keys },
      cookies: { keys: ['a secret of this test'] },
      ttl: { IdToken: 12 * HOUR, Interaction: 600, Session: 600, Grant: 600 },
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    });
    provider.use(async (context, next) => {
      await next();
      if (context.path === '/jwks') await this.alterKeys(context);
    });
    this.answer = provider.callback();
  }

  /** Lets the next answer with keys, as they are then, wait until it is released. */
  holdKeys() {
    let [reach, release] = [];
    const reached = new Promise((done) => { reach = done; });
    const released = new Promise((done) => { release = done; });
    this.alterKeys = () => {
      this.alterKeys = () => {};
      reach();
      return released;
    };
    return { reached, release };
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => { this.server.close(done); });
  }

  /** What a browser does: the id token at the end of the code flow with PKCE (RFC 7636). */
  async logIn(user, client = CLIENT) {
    const verifier = randomBytes(32).toString('base64url');
    const query = new URLSearchParams({
      client_id: client, response_type: 'code', scope: 'openid', redirect_uri: CALLBACK, code_challenge_method: 'S256',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    });
    const cookies = new Map();
    const visit = async (url, form) => {
      const answer = await fetch(new URL(url, this.url), {
        redirect: 'manual', method: form ? 'POST' : 'GET', body: form && new URLSearchParams(form),
        headers: { connection: 'close', cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      });
      for (const cookie of answer.headers.getSetCookie()) {
        const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/);
        if (value) cookies.set(name, value); else cookies.delete(name);
      }
      return answer;
    };
    let at = `/auth?${query}`;
    for (let step = 0; !at.startsWith(CALLBACK); step += 1) {
      assert.ok(step < 20, `the flow does not end: ${at}`);
      const answer = await visit(at);
      const next = answer.headers.get('location');
      if (next) {
        at = next;
        continue;
      }
      const prompt = (await answer.text()).match(/name="prompt" value="(\w+)"/)[1];
      at = (await visit(at, prompt === 'login' ? { prompt, login: user, password: 'any' } : { prompt })).headers.get('location');
    }
    const code = new URL(at).searchParams.get('code');
    const form = { grant_type: 'authorization_code', client_id: client, redirect_uri: CALLBACK, code, code_verifier: verifier };
    const answer = await (await visit('/token', form)).json();
    assert.ok(answer.id_token, JSON.stringify(answer));
    return answer.id_token;
  }
}

describe('an OpenID provider', { timeout: SUITE_TIMEOUT }, () => {
  let issuer;
  let server;
  let clocks;
  const [first, second, third] = [signingKey('1'), signingKey('2', 'ec', { namedCurve: 'P-256' }), signingKey('3')];

  before(async () => {
    issuer = new Issuer(await freePort());
    await issuer.start([first]);
    clocks = movableClocks();
    server = await startServer({
      JWT_ISSUER: issuer.url, JWT_AUDIENCE: CLIENT, JWT_ALGORITHMS: 'HS256,RS256,ES256', JWT_JWKS_ALLOW_PRIVATE: 'true',
      USERS_REQUIRED: 'false', METRICS_TOKEN, ...clocks.settings,
    });
  });
  after(async () => {
    await issuer.stop().catch(() => {});
    await cleanUp();
  });

  const me = (token) => ask('GET', server.url, '/auth/me', { token });
  const status = async (token) => (await me(token)).status;
  const logged = (text) => eventually(() => `the log has ${text}`, () => server.child.output.includes(text));

  /** A token that names a key that does not exist. */
  function withUnknownKey() {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    return `${part({ alg: 'RS256', kid: randomBytes(4).toString('hex') })}.${part({ sub: 'eve', exp: 4e9 })}.AAAA`;
  }

  /** Lets time pass for the server, while its `members` talk and a user shows `token` again and again. */
  async function pass(seconds, members, token) {
    for (let step = 0; step < seconds; step += 10) {
      clocks.pass(10);
      for (const member of members) member.send({ type: 'ping' });
      await Promise.all(members.map((member) => member.receive('pong')));
      assert.equal(await status(token), 200);
    }
  }

  async function keysAge() {
    const { text } = await ask('GET', server.url, '/metrics', { token: METRICS_TOKEN });
    return Number(text.match(/^signaling_issuer_keys_age_seconds (\S+)/m)[1]);
  }

  test('signs tokens with which its users join and talk', async () => {
    const [anna, ben] = [await issuer.logIn('anna'), await issuer.logIn('ben')];
    const members = [await Client.join(server.url, 'den', anna, 'a'), await Client.join(server.url, 'den', ben, 'b')];

    assert.equal((await me(anna)).json.username, 'anna');
    for (const member of members) await member.close();
  });

  test('changes its keys under traffic, also while the server reads the ones of before', async () => {
    let known = await issuer.logIn('anna');
    const member = await Client.join(server.url, 'den', known, 'a');
    for (const keys of [[second, first], [third, second]]) {
      const fetch = issuer.holdKeys();
      await pass(600, [member], known);
      await fetch.reached;
      issuer.use(keys);
      const fresh = await issuer.logIn('anna');
      const answers = [1, 2, 3].map(() => status(fresh));
      member.send({ type: 'auth_token', token: fresh });
      assert.equal(await status(known), 200, 'a known key waits for nothing');
      fetch.release();

      assert.deepEqual(await Promise.all(answers), [200, 200, 200]);
      await member.receive('token_refreshed');
      assert.deepEqual([await status(known), await status(fresh)], [200, 200]);
      known = fresh;
    }
    await member.close();
  });

  test('is away for an hour: the last keys count, their age is known, and the new ones follow', async () => {
    const known = await issuer.logIn('anna');
    const member = await Client.join(server.url, 'den', known, 'a');
    await issuer.stop();
    const before = server.child.output.length;

    for (let minute = 0; minute < 60; minute += 1) {
      await pass(60, [member], known);
      assert.equal(await status(withUnknownKey()), 401);
    }

    assert.ok(await keysAge() >= HOUR);
    const failures = server.child.output.slice(before).split('\n').filter((line) => line.includes('issuer keys not fetched'));
    assert.ok(failures.length >= 30 && failures.length <= 80, `about one a minute, for the unknown keys: ${failures.length}`);
    for (const line of failures) assert.match(line, /openid-configuration: .*refused/i);
    await logged('the issuer has no key of its `kid` and `alg`');
    const newcomer = await Client.join(server.url, 'den', known, 'b');

    await issuer.start([first]);
    const fresh = await issuer.logIn('ben');
    clocks.pass(61);
    assert.deepEqual([await status(fresh), await status(known)], [200, 401], 'the new key, and one that was taken back');
    assert.ok(await keysAge() < HOUR);
    for (const client of [member, newcomer]) await client.close();
  });

  test('has its faults, and tokens have theirs: the log names each', async () => {
    const good = await issuer.logIn('anna');
    for (const [token, reason] of [
      [await issuer.logIn('anna', 'another'), '`aud` is \\"another\\"'],
      [`${good.slice(0, -8)}AAAAAAAA`, 'it is signed with another key'],
    ]) {
      assert.equal(await status(token), 401, reason);
      await logged(reason);
    }
    for (const [alterKeys, reason] of [
      [(context) => { context.body = { ...context.body, padding: ' '.repeat(600_000) }; }, 'its answer has more than 512 KiB'],
      [(context) => { context.redirect('/elsewhere'); }, 'it answered 302 Found'],
      [(context) => { context.body = '<html>'; }, 'it is neither PEM nor a JWK set'],
    ]) {
      issuer.alterKeys = alterKeys;
      clocks.pass(61);
      assert.deepEqual([await status(withUnknownKey()), await status(good)], [401, 200], reason);
      await logged(reason);
    }
    issuer.alterKeys = () => {};

    clocks.pass(12 * HOUR);
    assert.equal(await status(good), 401);
    await logged('it expired');
  });
});
