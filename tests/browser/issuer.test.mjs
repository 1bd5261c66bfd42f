// Users of a real OpenID provider (oidc-provider): discovery, the code flow to a token, other keys under traffic, an outage.

import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Provider } from 'oidc-provider';
import { ask, cleanUp, Client, eventually, freePort, startServer, SUITE_TIMEOUT } from './harness.mjs';

const CLIENT = 'calls';
const CALLBACK = 'http://127.0.0.1:1/callback';

/** A signing key as a JWK with its private part. */
function signingKey(kid, kind = 'rsa', options = { modulusLength: 2048 }) {
  const { privateKey } = generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: kind === 'rsa' ? 'RS256' : 'ES256' };
}

class Issuer {
  constructor(port) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  async start(keys) {
    const provider = new Provider(this.url, {
      clients: [{
        client_id: CLIENT, token_endpoint_auth_method: 'none', redirect_uris: [CALLBACK], id_token_signed_response_alg: keys[0].alg,
      }],
      jwks: { keys },
      cookies: { keys: ['a secret of this test'] },
      ttl: { IdToken: 600, Interaction: 600, Session: 600, Grant: 600 },
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    });
    await new Promise((done) => { this.server = provider.listen(this.port, '127.0.0.1', done); });
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => { this.server.close(done); });
  }

  /** What a browser does: the id token at the end of the code flow with PKCE (RFC 7636). */
  async logIn(user) {
    const verifier = randomBytes(32).toString('base64url');
    const query = new URLSearchParams({
      client_id: CLIENT, response_type: 'code', scope: 'openid', redirect_uri: CALLBACK, code_challenge_method: 'S256',
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
    const form = { grant_type: 'authorization_code', client_id: CLIENT, redirect_uri: CALLBACK, code, code_verifier: verifier };
    const answer = await (await visit('/token', form)).json();
    assert.ok(answer.id_token, JSON.stringify(answer));
    return answer.id_token;
  }
}

describe('an OpenID provider', { timeout: SUITE_TIMEOUT }, () => {
  let issuer;
  let server;
  const old = signingKey('old');
  const next = signingKey('next', 'ec', { namedCurve: 'P-256' });

  before(async () => {
    issuer = new Issuer(await freePort());
    await issuer.start([old]);
    server = await startServer({
      JWT_ISSUER: issuer.url, JWT_AUDIENCE: CLIENT, JWT_ALGORITHMS: 'HS256,RS256,ES256', JWT_JWKS_ALLOW_PRIVATE: 'true',
      USERS_REQUIRED: 'false', SIGNALING_TEST_INTERVALS: 'issuer_unknown_key=0',
    });
  });
  after(async () => {
    await issuer.stop().catch(() => {});
    await cleanUp();
  });

  const me = (token) => ask('GET', server.url, '/auth/me', { token });

  test('signs tokens with which its users join and talk', async () => {
    const [anna, ben] = [await issuer.logIn('anna'), await issuer.logIn('ben')];
    const first = await Client.join(server.url, 'den', anna, 'a');
    const second = await Client.join(server.url, 'den', ben, 'b');

    assert.equal((await me(anna)).json.username, 'anna');
    await first.close();
    await second.close();
  });

  test('may change its keys under traffic and go away', async () => {
    const before = await issuer.logIn('anna');
    await issuer.stop();
    await issuer.start([next, old]);
    const after = await issuer.logIn('anna');

    const answers = await Promise.all([before, after, before, after].map(me));
    assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200, 200]);

    await issuer.stop();
    for (const token of [before, after]) assert.equal((await me(token)).status, 200, 'the last keys count');
    const forged = `${after.slice(0, -8)}AAAAAAAA`;
    assert.equal((await me(forged)).status, 401);
    await eventually(() => 'the log says why', () => server.child.output.includes('it is signed with another key'));
    await issuer.start([next]);
  });
});
